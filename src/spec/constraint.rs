//! The little language of `constraints`: conditions on configurations, such as
//! `total_gpus <= 64` or `expert_parallel % tensor_parallel == 0`.
//!
//! ```text
//! or      = and ("or" and)*
//! and     = not ("and" not)*
//! not     = "not" not | compare
//! compare = sum (("==" | "!=" | "<" | "<=" | ">" | ">=") sum)*     a < b < c chains
//! sum     = product (("+" | "-") product)*
//! product = unary (("*" | "/" | "%") unary)*
//! unary   = "-" unary | number | 'text' | true | false | null | name | "(" or ")"
//! ```
//!
//! Names are dotted run keys and [`DERIVED_NAMES`]. A tagged value, such as a
//! replica scheduler, compares as its type.

use std::cell::OnceCell;
use std::fmt;

use serde_json::Value as Json;

use super::RunConfig;
use super::deployment::{Replicas, gpus_of};
use super::keys::run_key_paths;
use crate::limits::{CONSTRAINT_CHARACTERS_MAX, CONSTRAINT_DEPTH_MAX};
use crate::spelling::did_you_mean;

/// Names that follow from a configuration, and what they are.
pub const DERIVED_NAMES: [(&str, &str); 6] = [
    ("total_gpus", "GPUs of the whole deployment"),
    (
        "gpus_per_replica",
        "GPUs of one replica, pool overrides aside",
    ),
    ("gpus_per_prefill_replica", "GPUs of one prefill replica"),
    ("gpus_per_decode_replica", "GPUs of one decode replica"),
    (
        "prefill_replicas",
        "replicas that prefill (all, without disaggregation)",
    ),
    (
        "decode_replicas",
        "replicas that decode (all, without disaggregation)",
    ),
];

/// What an expression amounts to.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A key that is not set.
    Null,
}

/// What is wrong with the text of a constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstraintError {
    /// Characters before the place.
    pub offset: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for ConstraintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.offset + 1, self.message)
    }
}

/// A parsed constraint.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraint {
    text: String,
    root: Expression,
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Literal(Operand),
    Name(String),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Arithmetic(char, Box<Expression>, Box<Expression>),
    /// `first op next op next ...`
    Compare(Box<Expression>, Vec<(&'static str, Expression)>),
}

impl Constraint {
    /// Parses a constraint; every name must be a run key or a derived name.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.len() > CONSTRAINT_CHARACTERS_MAX {
            return Err(ConstraintError {
                offset: 0,
                message: format!("longer than {CONSTRAINT_CHARACTERS_MAX} characters"),
            });
        }
        let tokens = tokenize(text)?;
        let mut parser = Parser {
            tokens: &tokens,
            at: 0,
            depth: 0,
            end: text.chars().count(),
        };
        let root = parser.or()?;
        if let Some(token) = parser.peek() {
            let message = format!("unexpected `{}` after a complete condition", token.text);
            return Err(parser.error(message));
        }
        Ok(Self {
            text: text.to_owned(),
            root,
        })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `config` satisfies it. An error says why that has no answer, such
    /// as a comparison of text with a number.
    pub fn holds(&self, config: &RunConfig) -> Result<bool, String> {
        let names = ConfigNames {
            config,
            json: OnceCell::new(),
        };
        self.holds_for(&|name| names.get(name))
    }

    /// Whether it holds where names have the values `lookup` gives.
    pub fn holds_for(&self, lookup: &dyn Fn(&str) -> Operand) -> Result<bool, String> {
        match evaluate(&self.root, lookup)? {
            Operand::Bool(holds) => Ok(holds),
            other => Err(format!("is {other}, not true or false")),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Text(text) => write!(f, "the text '{text}'"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Null => write!(f, "not set"),
        }
    }
}

/// Values of names under a configuration.
struct ConfigNames<'a> {
    config: &'a RunConfig,
    /// The configuration as JSON, made when a name needs it.
    json: OnceCell<Json>,
}

impl ConfigNames<'_> {
    fn get(&self, name: &str) -> Operand {
        let config = self.config;
        let number = |n: u32| Operand::Number(f64::from(n));
        let replicas = |phase: fn(Replicas) -> u32| match config.split_replicas() {
            Ok(replicas) => number(phase(replicas)),
            Err(_) => number(0),
        };
        let gpus = |pool| Operand::Number(gpus_of(config.pool_parallelism(pool)) as f64);
        match name {
            "total_gpus" => match config.total_gpus() {
                Some(gpus) => Operand::Number(gpus as f64),
                None => Operand::Number(
                    f64::from(config.replicas) * gpus_of(config.parallelism()) as f64,
                ),
            },
            "gpus_per_replica" => Operand::Number(gpus_of(config.parallelism()) as f64),
            "gpus_per_prefill_replica" => gpus(&config.prefill),
            "gpus_per_decode_replica" => gpus(&config.decode),
            "prefill_replicas" => replicas(|r| match r {
                Replicas::Mixed(n) | Replicas::Disaggregated { prefill: n, .. } => n,
            }),
            "decode_replicas" => replicas(|r| match r {
                Replicas::Mixed(n) | Replicas::Disaggregated { decode: n, .. } => n,
            }),
            "tensor_parallel" => number(config.tensor_parallel),
            "pipeline_parallel" => number(config.pipeline_parallel),
            "expert_parallel" => number(config.expert_parallel),
            "attention_data_parallel" => number(config.parallelism().attention_data_parallel),
            "replicas" => number(config.replicas),
            "pd_node_ratio" => Operand::Number(config.pd_node_ratio),
            "qps" => config.qps.map_or(Operand::Null, Operand::Number),
            "model" => Operand::Text(config.model.clone()),
            "device" => Operand::Text(config.device.clone()),
            "global_scheduler" => plain(&config.global_scheduler),
            "replica_scheduler" => plain(&config.replica_scheduler),
            other => self.look_up(other),
        }
    }

    fn look_up(&self, name: &str) -> Operand {
        let json = self
            .json
            .get_or_init(|| serde_json::to_value(self.config).unwrap_or_default());
        let value = name.split('.').try_fold(json, |value, key| value.get(key));
        operand(value.unwrap_or(&Json::Null))
    }
}

fn plain(value: &impl serde::Serialize) -> Operand {
    operand(&serde_json::to_value(value).unwrap_or_default())
}

fn operand(value: &Json) -> Operand {
    match value {
        Json::Number(number) => number.as_f64().map_or(Operand::Null, Operand::Number),
        Json::String(text) => Operand::Text(text.clone()),
        Json::Bool(truth) => Operand::Bool(*truth),
        Json::Object(map) => map.get("type").map_or(Operand::Null, operand),
        Json::Null | Json::Array(_) => Operand::Null,
    }
}

fn evaluate(expression: &Expression, lookup: &dyn Fn(&str) -> Operand) -> Result<Operand, String> {
    let number = |expression: &Expression| match evaluate(expression, lookup)? {
        Operand::Number(number) => Ok(number),
        other => Err(format!("{} is {other}, not a number", describe(expression))),
    };
    let truth = |expression: &Expression| match evaluate(expression, lookup)? {
        Operand::Bool(truth) => Ok(truth),
        other => Err(format!(
            "{} is {other}, not true or false",
            describe(expression)
        )),
    };
    Ok(match expression {
        Expression::Literal(operand) => operand.clone(),
        Expression::Name(name) => lookup(name),
        Expression::Not(inner) => Operand::Bool(!truth(inner)?),
        Expression::Negate(inner) => Operand::Number(-number(inner)?),
        Expression::And(a, b) => Operand::Bool(truth(a)? && truth(b)?),
        Expression::Or(a, b) => Operand::Bool(truth(a)? || truth(b)?),
        Expression::Arithmetic(operator, a, b) => {
            let (a, b) = (number(a)?, number(b)?);
            Operand::Number(match operator {
                '+' => a + b,
                '-' => a - b,
                '*' => a * b,
                _ if b == 0.0 => return Err("division by zero".to_owned()),
                '/' => a / b,
                _ => a.rem_euclid(b),
            })
        }
        Expression::Compare(first, rest) => {
            let mut left = evaluate(first, lookup)?;
            for (operator, next) in rest {
                let right = evaluate(next, lookup)?;
                if !compare(operator, &left, &right)? {
                    return Ok(Operand::Bool(false));
                }
                left = right;
            }
            Operand::Bool(true)
        }
    })
}

fn describe(expression: &Expression) -> String {
    match expression {
        Expression::Name(name) => format!("`{name}`"),
        _ => "a part".to_owned(),
    }
}

fn compare(operator: &str, left: &Operand, right: &Operand) -> Result<bool, String> {
    match operator {
        "==" => return Ok(left == right),
        "!=" => return Ok(left != right),
        _ => {}
    }
    let (Operand::Number(a), Operand::Number(b)) = (left, right) else {
        return Err(format!(
            "`{operator}` compares numbers, here {left} and {right}"
        ));
    };
    Ok(match operator {
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        _ => a >= b,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Number,
    Text,
    Name,
    Symbol,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    kind: TokenKind,
    text: String,
    offset: usize,
}

const SYMBOLS: [&str; 13] = [
    "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "(", ")",
];

fn tokenize(text: &str) -> Result<Vec<Token>, ConstraintError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        let run = |from: usize, belongs: fn(char) -> bool| {
            from + chars[from..].iter().take_while(|c| belongs(**c)).count()
        };
        let first = chars[at];
        let kind = if first.is_whitespace() {
            at += 1;
            continue;
        } else if first.is_ascii_digit() || first == '.' {
            at = number_end(&chars, at);
            TokenKind::Number
        } else if first.is_ascii_alphabetic() || first == '_' {
            at = run(at, |c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            TokenKind::Name
        } else if first == '\'' || first == '"' {
            let closing = chars[at + 1..].iter().position(|c| *c == first);
            let Some(length) = closing else {
                return Err(ConstraintError {
                    offset: at,
                    message: format!("text without its closing {first}"),
                });
            };
            at += length + 2;
            TokenKind::Text
        } else {
            let rest: String = chars[at..].iter().take(2).collect();
            let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) else {
                return Err(unknown_symbol(at, &rest));
            };
            at += symbol.len();
            TokenKind::Symbol
        };
        let text: String = match kind {
            TokenKind::Text => chars[start + 1..at - 1].iter().collect(),
            _ => chars[start..at].iter().collect(),
        };
        tokens.push(Token {
            kind,
            text,
            offset: start,
        });
    }
    Ok(tokens)
}

/// End of a number: digits, dots and an exponent with its sign.
fn number_end(chars: &[char], start: usize) -> usize {
    let mut at = start;
    while let Some(&c) = chars.get(at) {
        let signed = (c == '+' || c == '-') && matches!(chars[at - 1], 'e' | 'E') && at > start;
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || signed) {
            break;
        }
        at += 1;
    }
    at
}

fn unknown_symbol(offset: usize, rest: &str) -> ConstraintError {
    let (symbol, instead) = match rest {
        r if r.starts_with('=') => ("=", "; equality is `==`"),
        "&&" => ("&&", "; write `and`"),
        "||" => ("||", "; write `or`"),
        r if r.starts_with('!') => ("!", "; write `not`"),
        r => (
            r.get(..1).unwrap_or(r),
            "; allowed are names, numbers, 'text', == != < <= > >= + - * / % ( ) and or not",
        ),
    };
    ConstraintError {
        offset,
        message: format!("unexpected `{symbol}`{instead}"),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    /// Characters of the whole text.
    end: usize,
}

type Parsed = Result<Expression, ConstraintError>;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// Takes the next token if it is one of these symbols or keywords.
    fn take(&mut self, wanted: &[&'static str]) -> Option<&'static str> {
        let token = self.peek()?;
        if !matches!(token.kind, TokenKind::Symbol | TokenKind::Name) {
            return None;
        }
        let found = wanted.iter().find(|w| **w == token.text)?;
        self.at += 1;
        Some(found)
    }

    fn error(&self, message: String) -> ConstraintError {
        ConstraintError {
            offset: self.peek().map_or(self.end, |token| token.offset),
            message,
        }
    }

    fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        while self.take(&["or"]).is_some() {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.not()?;
        while self.take(&["and"]).is_some() {
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        if self.take(&["not"]).is_some() {
            return self.deeper(|parser| Ok(Expression::Not(Box::new(parser.not()?))));
        }
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(operator) = self.take(&["==", "!=", "<=", ">=", "<", ">"]) {
            rest.push((operator, self.sum()?));
        }
        Ok(match rest.is_empty() {
            true => first,
            false => Expression::Compare(Box::new(first), rest),
        })
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        while let Some(operator) = self.take(&["+", "-"]) {
            left = arithmetic(operator, left, self.product()?);
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        while let Some(operator) = self.take(&["*", "/", "%"]) {
            left = arithmetic(operator, left, self.unary()?);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        if self.take(&["-"]).is_some() {
            return self.deeper(|parser| Ok(Expression::Negate(Box::new(parser.unary()?))));
        }
        if self.take(&["("]).is_some() {
            let inner = self.deeper(Self::or)?;
            if self.take(&[")"]).is_none() {
                return Err(self.error("`)` is missing here".to_owned()));
            }
            return Ok(inner);
        }
        let Some(token) = self.peek().cloned() else {
            return Err(self.error("a name or value is missing here".to_owned()));
        };
        let literal = |operand| Ok(Expression::Literal(operand));
        let parsed = match (token.kind, token.text.as_str()) {
            (TokenKind::Text, text) => literal(Operand::Text(text.to_owned())),
            (TokenKind::Number, text) => match text.parse::<f64>() {
                Ok(number) => literal(Operand::Number(number)),
                Err(_) => Err(self.error(format!("`{text}` is not a number"))),
            },
            (TokenKind::Name, "true") => literal(Operand::Bool(true)),
            (TokenKind::Name, "false") => literal(Operand::Bool(false)),
            (TokenKind::Name, "null") => literal(Operand::Null),
            (TokenKind::Name, "and" | "or" | "not") | (TokenKind::Symbol, _) => Err(self.error(
                format!("a name or value is missing before `{}`", token.text),
            )),
            (TokenKind::Name, name) => self.name(name),
        };
        self.at += 1;
        parsed
    }

    fn name(&self, name: &str) -> Parsed {
        let derived = DERIVED_NAMES.iter().map(|(name, _)| *name);
        let known = || {
            derived
                .clone()
                .chain(run_key_paths().iter().map(String::as_str))
        };
        if known().any(|k| k == name) {
            return Ok(Expression::Name(name.to_owned()));
        }
        let message = format!(
            "unknown name `{name}`; allowed are {} and the keys of a run{}",
            derived.clone().collect::<Vec<_>>().join(", "),
            did_you_mean(name, known())
        );
        Err(self.error(message))
    }

    fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        self.depth += 1;
        if self.depth > CONSTRAINT_DEPTH_MAX {
            return Err(self.error(format!("nested more than {CONSTRAINT_DEPTH_MAX} deep")));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }
}

fn arithmetic(operator: &str, left: Expression, right: Expression) -> Expression {
    let operator = operator.chars().next().unwrap_or('+');
    Expression::Arithmetic(operator, Box::new(left), Box::new(right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::ReplicaScheduler;
    use crate::spec::test_config;

    fn config() -> RunConfig {
        RunConfig {
            tensor_parallel: 2,
            expert_parallel: 8,
            replicas: 4,
            pd_node_ratio: 0.25,
            replica_scheduler: Some(ReplicaScheduler::default()),
            ..test_config()
        }
    }

    #[test]
    fn conditions_are_evaluated_as_written() {
        for (text, expected) in [
            ("total_gpus == 4 * 8", true),
            ("total_gpus < 32", false),
            (
                "gpus_per_replica == 8 and prefill_replicas == 1 and decode_replicas == 3",
                true,
            ),
            (
                "attention_data_parallel == expert_parallel / tensor_parallel",
                true,
            ),
            ("expert_parallel % tensor_parallel == 0", true),
            (
                "1 + 2 * 3 - 4 == 3 and (1 + 2) * 3 == 9 and -2 + 3 == 1",
                true,
            ),
            ("not tensor_parallel > 4 or false", true),
            ("true or false and false", true),
            ("1 <= tensor_parallel <= 4", true),
            ("1 <= tensor_parallel < 2", false),
            (
                "replica_scheduler == 'sarathi' and replica_scheduler.chunk_size >= 5e2",
                true,
            ),
            ("model != \"deepseek-671B\"", true),
            ("time_limit_s == null", true),
            ("dtype == 'fp8'", false),
        ] {
            let constraint = Constraint::parse(text).unwrap();
            assert_eq!(constraint.holds(&config()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_has_no_answer_is_said() {
        let error = |text| {
            Constraint::parse(text)
                .unwrap()
                .holds(&config())
                .unwrap_err()
        };
        assert_eq!(
            error("model < 3"),
            "`<` compares numbers, here the text 'llama-3-8b' and the number 3"
        );
        assert_eq!(
            error("time_limit_s + 1 > 0"),
            "`time_limit_s` is not set, not a number"
        );
        assert_eq!(error("replicas"), "is the number 4, not true or false");
        assert_eq!(
            error("not replicas"),
            "`replicas` is the number 4, not true or false"
        );
        assert_eq!(error("1 / 0 > 1"), "division by zero");
    }

    #[test]
    fn malformed_text_is_pointed_at() {
        for (text, offset, part) in [
            ("total_gpu <= 64", 0, "did you mean `total_gpus`?"),
            ("total_gpus = 64", 11, "equality is `==`"),
            ("total_gpus <= ", 14, "a name or value is missing here"),
            ("(total_gpus <= 4", 16, "`)` is missing"),
            ("total_gpus <= 64 64", 17, "unexpected `64` after"),
            ("total_gpus <= 6x4", 14, "`6x4` is not a number"),
            ("qps > 1 && qps < 2", 8, "write `and`"),
            ("model == 'llama", 9, "closing '"),
            ("and qps > 1", 0, "missing before `and`"),
            ("qps > 1 # no", 8, "unexpected `#`"),
            ("", 0, "missing here"),
        ] {
            let error = Constraint::parse(text).unwrap_err();
            assert_eq!(error.offset, offset, "{text}: {error}");
            assert!(error.message.contains(part), "{text}: {error}");
        }
        let deep = "(".repeat(1000);
        let error = Constraint::parse(&deep).unwrap_err();
        assert!(error.message.contains("deep"), "{error}");
    }
}
