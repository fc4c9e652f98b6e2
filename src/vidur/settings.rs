//! Values of the flags: from the command line and from a `config.json`,
//! and as the nested document the original writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use super::flags::{Flag, Group, Kind, SELECTORS, Selector, groups};
use crate::input_file::{self, InputKind};
use crate::number::{narrow, whole_u64};
use crate::spelling::did_you_mean;

/// Keys of a `config.json` that follow from others and are not read.
const DERIVED: [&str; 8] = [
    "name",
    "world_size",
    "model_config",
    "device_config",
    "node_config",
    "max_tokens",
    "vidur_sweep",
    "global_scheduler_config",
];

/// Values of all flags, and which of them were given rather than default.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    values: BTreeMap<String, Value>,
    given: BTreeSet<String>,
    /// Flags that a document has a value for, whether or not that is another.
    documented: BTreeSet<String>,
}

impl Default for Settings {
    /// The original's defaults.
    fn default() -> Self {
        let mut values = BTreeMap::new();
        for group in groups() {
            for flag in group.flags() {
                values.insert(group.full_name(flag), default_value(flag));
            }
        }
        for selector in &SELECTORS {
            values.insert(selector.flag.to_owned(), selector.default.into());
        }
        Self {
            values,
            given: BTreeSet::new(),
            documented: BTreeSet::new(),
        }
    }
}

fn default_value(flag: &Flag) -> Value {
    // Defaults are JSON by construction; a test reads them all.
    serde_json::from_str(flag.default).unwrap_or(Value::Null)
}

impl Settings {
    /// The value of a flag, by its name without dashes.
    pub fn get(&self, flag: &str) -> &Value {
        self.values.get(flag).unwrap_or(&Value::Null)
    }

    /// Text of a flag; empty if it has none.
    pub fn text(&self, flag: &str) -> &str {
        self.get(flag).as_str().unwrap_or_default()
    }

    /// Number of a flag; 0 if it has none.
    pub fn number(&self, flag: &str) -> f64 {
        self.get(flag).as_f64().unwrap_or_default()
    }

    /// Whole number of a flag, as far as it goes; 0 if it has none.
    pub fn whole(&self, flag: &str) -> u32 {
        let whole = self.get(flag).as_u64().unwrap_or_default();
        narrow::<u32, _>(whole.min(u64::from(u32::MAX)))
    }

    /// Whether a flag was given.
    pub fn is_given(&self, flag: &str) -> bool {
        self.given.contains(flag)
    }

    /// Whether the command line or a document says what a flag is.
    pub fn is_stated(&self, flag: &str) -> bool {
        self.is_given(flag) || self.documented.contains(flag)
    }

    /// Sets a flag, as given.
    pub fn set(&mut self, flag: &str, value: Value) {
        self.values.insert(flag.to_owned(), value);
        self.given.insert(flag.to_owned());
    }

    /// Sets a flag from a document, which has every key: given is what differs
    /// from what stood there.
    fn take_over(&mut self, flag: &str, value: Value) {
        self.documented.insert(flag.to_owned());
        let same = |a: &Value, b: &Value| a == b || (a.is_number() && a.as_f64() == b.as_f64());
        if !same(self.get(flag), &value) {
            self.set(flag, value);
        }
    }

    /// Flags that were given and have no effect, with the reason.
    pub fn dead(&self) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        for group in groups() {
            for flag in group.flags() {
                let name = group.full_name(flag);
                if let Some(why) = flag.dead
                    && self.is_given(&name)
                {
                    found.push((name, why));
                }
            }
        }
        found
    }

    /// Adds every flag to a command, grouped.
    pub fn augment(command: Command) -> Command {
        // Of a flag given twice the last counts, as in the original.
        let mut command = command.args_override_self(true);
        for group in groups() {
            if group.prefix.is_empty() {
                command = add_group(command, group);
                for selector in &SELECTORS {
                    command = command.arg(selector_arg(selector));
                }
            } else {
                command = add_group(command, group);
            }
        }
        command
    }

    /// Takes over what was given on the command line.
    pub fn take(&mut self, matches: &ArgMatches) {
        for group in groups() {
            for flag in group.flags() {
                let name = group.full_name(flag);
                if let Some(value) = given(matches, &name, flag.kind) {
                    self.set(&name, value);
                }
            }
        }
        for selector in &SELECTORS {
            if let Some(word) = matches.get_one::<Value>(selector.flag) {
                self.set(selector.flag, word.clone());
            }
        }
    }

    /// Takes over a `config.json` as the original writes it.
    ///
    /// # Errors
    /// One line per key that is unknown or whose value is not allowed.
    pub fn take_config(&mut self, path: &Path) -> Result<(), String> {
        let at = |what: String| format!("{}: {what}", path.display());
        let text = input_file::read_text(path, InputKind::Description)
            .map_err(|error| at(error.to_string()))?;
        let document: Value = serde_json::from_str(&text).map_err(|error| {
            format!(
                "{}:{}:{}: not JSON: {error}",
                path.display(),
                error.line(),
                error.column()
            )
        })?;
        if !document.is_object() {
            return Err(at("is not an object of sections".to_owned()));
        }
        let mut problems = Vec::new();
        for selector in &SELECTORS {
            let Some(name) = section(&document, selector.section).and_then(|s| s.get("name"))
            else {
                continue;
            };
            match name.as_str().filter(|word| selector.choices.contains(word)) {
                Some(word) => self.take_over(selector.flag, word.into()),
                None => problems.push(at(format!(
                    "key `{}.name`: value {name} is not allowed; allowed is one of {}",
                    selector.section.join("."),
                    selector.choices.join(", ")
                ))),
            }
        }
        for group in groups() {
            if self.is_active(group) {
                let found = section(&document, group.section);
                self.take_section(group, found.unwrap_or(&Value::Null), &mut problems, &at);
            }
        }
        self.leave_run_folder();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("\n"))
        }
    }

    /// A `config.json` names the folder of its own run; another run goes beside it.
    fn leave_run_folder(&mut self) {
        const FLAG: &str = "metrics_config_output_dir";
        let dir = Path::new(self.text(FLAG));
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        if chrono::NaiveDateTime::parse_from_str(&name, "%Y-%m-%d_%H-%M-%S-%f").is_ok()
            && let Some(parent) = dir.parent()
        {
            let parent = parent.to_string_lossy().into_owned();
            self.set(FLAG, parent.into());
        }
    }

    fn take_section(
        &mut self,
        group: &Group,
        found: &Value,
        problems: &mut Vec<String>,
        at: &dyn Fn(String) -> String,
    ) {
        let place = |key: &str| {
            let mut path = group.section.to_vec();
            path.push(key);
            path.join(".")
        };
        if !found.is_null() && !found.is_object() {
            problems.push(at(format!(
                "key `{}`: value {found} is not allowed; allowed is an object of keys",
                group.section.join(".")
            )));
        }
        for (key, value) in found.as_object().into_iter().flatten() {
            let Some(flag) = group.flags().find(|flag| flag.name == key) else {
                let section = groups().any(|other| {
                    other.section.len() > group.section.len()
                        && other.section.starts_with(group.section)
                        && other.section[group.section.len()] == key
                });
                if !section && !DERIVED.contains(&key.as_str()) {
                    let hint = did_you_mean(key, group.flags().map(|flag| flag.name));
                    problems.push(at(format!("unknown key `{}`{hint}", place(key))));
                }
                continue;
            };
            match checked(flag.kind, value) {
                // `null` is no value, as leaving the key out.
                _ if value.is_null() && flag.default == "null" => {
                    let name = group.full_name(flag);
                    self.values.insert(name, Value::Null);
                }
                Ok(value) => self.take_over(&group.full_name(flag), value),
                Err(allowed) => problems.push(at(format!(
                    "key `{}`: value {value} is not allowed; allowed is {allowed}",
                    place(key)
                ))),
            }
        }
    }

    /// Whether a group's flags count, by the selectors.
    fn is_active(&self, group: &Group) -> bool {
        let Some(variant) = group.variant else {
            return true;
        };
        let selector = SELECTORS.iter().find(|s| s.section == group.section);
        let chosen = selector.map_or("", |selector| self.text(selector.flag));
        // Interpolation has the options of the forest.
        chosen == variant || (chosen == "interpolation" && variant == "random_forrest")
    }

    /// The nested document: sections of the groups that count.
    pub fn document(&self) -> Value {
        let mut document = Value::Object(Map::new());
        for group in groups().filter(|group| self.is_active(group)) {
            if group.section == ["request_generator_config", "length_generator_config"]
                || group.section == ["request_generator_config", "interval_generator_config"]
            {
                // Only synthetic requests have them.
                if self.text("request_generator_config_type") != "synthetic" {
                    continue;
                }
            }
            let target = section_mut(&mut document, group.section);
            for flag in group.flags() {
                let value = self.get(&group.full_name(flag)).clone();
                target.insert(flag.name.to_owned(), value);
            }
        }
        for selector in &SELECTORS {
            let target = section_mut(&mut document, selector.section);
            if selector.section.len() == 1
                || !target.is_empty()
                || selector.flag.starts_with("glob")
            {
                target.insert("name".to_owned(), self.get(selector.flag).clone());
            }
        }
        if let Some(requests) = document["request_generator_config"].as_object_mut() {
            requests.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
        }
        document
    }
}

fn section<'a>(document: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, key| value.get(key))
}

/// The object at `path`, made where it is not there.
fn section_mut<'a>(document: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut value = document;
    for key in path {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        value = &mut value[*key];
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

fn add_group(command: Command, group: &Group) -> Command {
    group.flags().fold(command, |command, flag| {
        let name = group.full_name(flag);
        let command = command.arg(value_arg(group, flag, &name));
        if flag.kind == Kind::Bool {
            let no = format!("no-{name}");
            let arg = Arg::new(no.clone())
                .long(no)
                .action(ArgAction::SetTrue)
                .overrides_with(name)
                .hide(true);
            command.arg(arg)
        } else {
            command
        }
    })
}

fn value_arg(group: &Group, flag: &Flag, name: &str) -> Arg {
    let default = match flag.default {
        "null" => "none".to_owned(),
        text => text.trim_matches('"').to_owned(),
    };
    let mut help = format!("{} [default: {default}]", flag.help);
    if let Some(why) = flag.dead {
        help += &format!(" [no effect: {why}]");
    }
    let arg = Arg::new(name.to_owned())
        .long(name.to_owned())
        .help_heading(group.title);
    let arg = match flag.kind {
        Kind::Bool => {
            help += &format!(" [off: --no-{name}]");
            arg.action(ArgAction::SetTrue)
                .overrides_with(format!("no-{name}"))
        }
        Kind::Counts | Kind::Bools => arg.num_args(1..).action(ArgAction::Set),
        _ => arg.action(ArgAction::Set),
    };
    let arg = match flag.kind {
        Kind::Bool => arg,
        kind => arg
            .allow_negative_numbers(true)
            .value_name(value_name(kind))
            .value_parser(move |text: &str| parse(kind, text)),
    };
    arg.help(help)
}

fn selector_arg(selector: &'static Selector) -> Arg {
    Arg::new(selector.flag)
        .long(selector.flag)
        .help_heading("Choices")
        .value_name("NAME")
        .help(format!(
            "{} [choices: {}] [default: {}]",
            selector.help,
            selector.choices.join(", "),
            selector.default
        ))
        .value_parser(|text: &str| parse(Kind::Choice(selector.choices), text))
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Whole(_) => "N",
        Kind::Float(_) => "X",
        Kind::Text | Kind::Bool => "TEXT",
        Kind::Choice(_) => "NAME",
        Kind::Counts => "N...",
        Kind::Bools => "BOOL...",
    }
}

/// What the command line gives a flag.
fn given(matches: &ArgMatches, name: &str, kind: Kind) -> Option<Value> {
    match kind {
        Kind::Bool => {
            let on = matches.get_flag(name);
            let off = matches.get_flag(&format!("no-{name}"));
            (on || off).then_some(Value::Bool(on))
        }
        Kind::Counts | Kind::Bools => {
            let values = matches.get_many::<Value>(name)?;
            Some(Value::Array(values.cloned().collect()))
        }
        _ => matches.get_one::<Value>(name).cloned(),
    }
}

/// One word of the command line as a value of a flag (an element, of a list).
fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    let scalar = match kind {
        Kind::Counts => Kind::Whole(1),
        Kind::Bools => Kind::Bool,
        kind => kind,
    };
    let value = match scalar {
        Kind::Text | Kind::Choice(_) => Value::from(text),
        _ if matches!(text, "None" | "none" | "null") => return Ok(Value::Null),
        Kind::Bool => match text {
            "True" | "true" | "1" => Value::Bool(true),
            "False" | "false" | "0" => Value::Bool(false),
            _ => Value::from(text),
        },
        _ => match text.parse::<i64>() {
            Ok(whole) => Value::from(whole),
            Err(_) => text.parse::<f64>().map_or(Value::from(text), Value::from),
        },
    };
    let hint = match scalar {
        Kind::Choice(words) => did_you_mean(text, words.iter().copied()),
        _ => String::new(),
    };
    checked(scalar, &value).map_err(|allowed| format!("allowed is {allowed}{hint}"))
}

/// `value` as a flag's, or what is allowed.
fn checked(kind: Kind, value: &Value) -> Result<Value, String> {
    let ok = match kind {
        Kind::Whole(least) => value
            .as_f64()
            .is_some_and(|x| x.fract() == 0.0 && x >= least as f64 && x <= f64::from(u32::MAX)),
        Kind::Float(range) => value.as_f64().is_some_and(|x| range.contains(x)),
        Kind::Text => value.is_string(),
        Kind::Bool => value.is_boolean(),
        Kind::Choice(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        Kind::Counts | Kind::Bools => {
            let scalar = if kind == Kind::Counts {
                Kind::Whole(1)
            } else {
                Kind::Bool
            };
            let items = value.as_array();
            items.is_some_and(|items| {
                !items.is_empty() && items.iter().all(|item| checked(scalar, item).is_ok())
            })
        }
    };
    if !ok {
        return Err(match kind {
            Kind::Whole(least) if value.as_f64().is_some_and(|x| x > f64::from(u32::MAX)) => {
                format!("a whole number from {least} to {}", u32::MAX)
            }
            Kind::Whole(least) => format!("a whole number from {least} on"),
            Kind::Float(range) => range.allowed().to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Counts => "a list of whole numbers from 1 on".to_owned(),
            Kind::Bools => "a list of true and false".to_owned(),
        });
    }
    Ok(match (kind, value.as_f64()) {
        (Kind::Whole(_), Some(x)) => Value::from(whole_u64(x)),
        _ => value.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(words: &[&str]) -> Result<Settings, clap::Error> {
        let command = Settings::augment(Command::new("simulate"));
        let words = std::iter::once("simulate").chain(words.iter().copied());
        let matches = command.try_get_matches_from(words)?;
        let mut settings = Settings::default();
        settings.take(&matches);
        Ok(settings)
    }

    #[test]
    fn the_originals_have_162_flags_and_their_defaults_are_of_their_kind() {
        // 141 of Vidur, 21 more of Vidur-AlibabaCloud.
        let flags: usize = groups().map(|group| group.flags().count()).sum();
        assert_eq!(flags + SELECTORS.len(), 141 + 21);
        for group in groups() {
            for flag in group.flags() {
                let value: Value = serde_json::from_str(flag.default).unwrap();
                let name = group.full_name(flag);
                assert!(
                    value.is_null() || checked(flag.kind, &value).is_ok(),
                    "{name}"
                );
            }
        }
        for selector in &SELECTORS {
            assert!(selector.choices.contains(&selector.default));
        }
    }

    #[test]
    fn flags_are_read_in_every_way_the_original_reads_them() {
        let given = settings(&[
            "--cluster_config_num_replicas=4",
            "--no-metrics_config_store_plots",
            "--metrics_config_write_json_trace",
            "--random_forrest_execution_time_predictor_config_max_depth",
            "8",
            "16",
            "--poisson_request_interval_generator_config_qps",
            "6.45",
            "--replica_scheduler_config_type",
            "vllm",
            "--random_forrest_execution_time_predictor_config_num_training_job_threads",
            "-1",
        ])
        .unwrap();
        assert_eq!(given.get("cluster_config_num_replicas"), 4);
        assert_eq!(given.get("metrics_config_store_plots"), false);
        assert_eq!(given.get("metrics_config_write_json_trace"), true);
        let depths = "random_forrest_execution_time_predictor_config_max_depth";
        assert_eq!(*given.get(depths), serde_json::json!([8, 16]));
        assert_eq!(
            given.get("poisson_request_interval_generator_config_qps"),
            6.45
        );
        assert!(given.is_given("replica_scheduler_config_type"));
        assert!(!given.is_given("seed"));
        assert_eq!(given.dead().len(), 1);
    }

    #[test]
    fn wrong_values_and_names_are_refused_with_a_hint() {
        let message = |words: &[&str]| settings(words).unwrap_err().to_string();
        let text = message(&["--cluster_config_num_replicas", "0"]);
        assert!(text.contains("a whole number from 1 on"), "{text}");
        let text = message(&["--replica_scheduler_config_type", "sarati"]);
        assert!(text.contains("did you mean `sarathi`?"), "{text}");
        let text = message(&["--cluster_config_num_replica", "2"]);
        assert!(text.contains("--cluster_config_num_replicas"), "{text}");
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let given = settings(&[
            "--replica_scheduler_config_type",
            "orca",
            "--orca_scheduler_config_num_blocks",
            "300",
            "--length_generator_config_type",
            "zipf",
        ])
        .unwrap();
        let document = given.document();
        assert_eq!(
            document["cluster_config"]["replica_scheduler_config"]["num_blocks"],
            300
        );
        let lengths = &document["request_generator_config"]["length_generator_config"];
        assert_eq!(lengths["name"], "zipf");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, document.to_string()).unwrap();
        let mut read = Settings::default();
        read.take_config(&path).unwrap();
        assert_eq!(read.document(), document);
    }

    #[test]
    fn what_is_wrong_in_a_document_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = r#"{"sede": 1, "cluster_config": {"num_replicas": 0, "replica_config": {"device": "a100", "world_size": 1}}}"#;
        std::fs::write(&path, text).unwrap();
        let message = Settings::default().take_config(&path).unwrap_err();
        assert!(
            message.contains("unknown key `sede`; did you mean `seed`?"),
            "{message}"
        );
        assert!(
            message.contains("key `cluster_config.num_replicas`: value 0"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 2);
        std::fs::write(&path, "{").unwrap();
        let message = Settings::default().take_config(&path).unwrap_err();
        assert!(message.contains("config.json:1:1: not JSON"), "{message}");
    }
}
