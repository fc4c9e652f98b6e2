//! Traces as JSON lines, one object a request, told apart by their keys.
//!
//! Behaviour of the formats: kvcache-ai/Mooncake's traces, the README of
//! alibaba-edu/qwen-bailian-usagetraces-anon, and AIPerf's documentation of
//! `mooncake_trace` and `bailian_trace`.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Lengths, Rows, TimeUnit, check_rows};
use crate::input_file::{SHOWN_CHARACTERS_MAX, shown};
use crate::number::whole_u32;
use crate::workload::WorkloadError;
use crate::workload::limits::{MOST_TOKENS, check_lengths};

/// What a line can say. Everything else in it is passed over without being kept.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object of keys and values")]
struct Line {
    timestamp: Option<Scalar>,
    #[serde(alias = "isl")]
    input_length: Option<Scalar>,
    #[serde(alias = "osl")]
    output_length: Option<Scalar>,
    hash_ids: Option<IgnoredAny>,
    chat_id: Option<IgnoredAny>,
    session_id: Option<IgnoredAny>,
    delay: Option<IgnoredAny>,
    turns: Option<IgnoredAny>,
    text_input: Option<IgnoredAny>,
    messages: Option<IgnoredAny>,
    payload: Option<IgnoredAny>,
    arrived_at: Option<Scalar>,
    num_prefill_tokens: Option<Scalar>,
    num_decode_tokens: Option<Scalar>,
}

/// Formats that mean different things by their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Mooncake's, and AIPerf's, which has the same keys.
    Mooncake,
    /// Alibaba Cloud's Bailian.
    Bailian,
    /// Vidur's columns as keys.
    Vidur,
}

/// Keys of a format, and the unit its times are in.
struct Keys {
    name: &'static str,
    time: &'static str,
    prefill: &'static str,
    decode: &'static str,
    unit: TimeUnit,
}

impl Format {
    fn of(line: &Line) -> Self {
        let vidur = [
            &line.arrived_at,
            &line.num_prefill_tokens,
            &line.num_decode_tokens,
        ];
        if line.chat_id.is_some() {
            Self::Bailian
        } else if vidur.iter().any(|value| value.is_some()) && line.input_length.is_none() {
            Self::Vidur
        } else {
            Self::Mooncake
        }
    }

    const fn keys(self) -> Keys {
        match self {
            Self::Mooncake => Keys {
                name: "Mooncake's, milliseconds",
                time: "timestamp",
                prefill: "input_length",
                decode: "output_length",
                unit: TimeUnit::Milliseconds,
            },
            Self::Bailian => Keys {
                name: "Bailian's, seconds, for its `chat_id`",
                time: "timestamp",
                prefill: "input_length",
                decode: "output_length",
                unit: TimeUnit::Seconds,
            },
            Self::Vidur => Keys {
                name: "Vidur's, seconds",
                time: "arrived_at",
                prefill: "num_prefill_tokens",
                decode: "num_decode_tokens",
                unit: TimeUnit::Seconds,
            },
        }
    }
}

/// Reads the lines of a file; numbers of time are in `time_unit`, or in the unit of
/// the format.
pub(super) fn read<'a>(
    file: &Path,
    lines: impl Iterator<Item = (usize, &'a str)>,
    time_unit: Option<TimeUnit>,
) -> Result<Rows, WorkloadError> {
    let (mut lengths, mut times_s) = (Vec::new(), Vec::new());
    let mut first: Option<(usize, Format)> = None;
    let mut notes = Notes::default();
    for (number, text) in lines {
        check_rows(file, number, lengths.len())?;
        let values = parse(text).map_err(|(column, message)| {
            WorkloadError::at(file, number, column, format!("not JSON: {message}"))
        })?;
        let row = Row {
            file,
            number,
            text,
            format: Format::of(&values),
        };
        row.check_served(&values)?;
        let &mut (first_number, format) = first.get_or_insert((number, row.format));
        if row.format != format {
            let (here, there) = (row.format.keys().name, format.keys().name);
            let message = format!(
                "the keys are {here}, those of line {first_number} {there}: a file has one format"
            );
            return Err(WorkloadError::at(file, number, 1, message));
        }
        notes.see(&values);
        lengths.push(row.lengths(&values)?);
        times_s.extend(row.time_s(&values, time_unit)?);
        if !times_s.is_empty() && times_s.len() != lengths.len() {
            let time = format.keys().time;
            let message = format!("`{time}` must be in every line or in none");
            return Err(WorkloadError::at(file, number, 1, message));
        }
    }
    Ok(Rows {
        lengths: Some(lengths),
        times_s: (!times_s.is_empty()).then_some(times_s),
        notes: notes.told(),
    })
}

/// The values of a line; or where in it, from 1, something is wrong, and what.
fn parse(text: &str) -> Result<Line, (usize, String)> {
    let indent = text.len() - text.trim_start().len();
    if !text[indent..].starts_with('{') {
        return Err((indent + 1, "expected an object, `{...}`".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        // What follows is its place, which is that of the line.
        let what = message
            .rfind(" at line ")
            .map_or(&*message, |at| &message[..at]);
        (error.column().max(1), shown(what))
    })
}

/// What is in a file and has no effect.
#[derive(Default)]
struct Notes {
    hash_ids: bool,
    sessions: bool,
}

impl Notes {
    fn see(&mut self, line: &Line) {
        self.hash_ids |= line.hash_ids.is_some();
        self.sessions |= line.session_id.is_some();
    }

    fn told(&self) -> Vec<String> {
        let all = [
            (
                self.hash_ids,
                "`hash_ids` have no effect: there is no prefix caching yet, so every prompt is \
                 computed whole",
            ),
            (
                self.sessions,
                "`session_id` has no effect: every turn comes at its `timestamp`, whether or not \
                 the turn before it has ended",
            ),
        ];
        let seen = all.into_iter().filter(|(seen, _)| *seen);
        seen.map(|(_, note)| note.to_owned()).collect()
    }
}

/// One line of a file.
struct Row<'a> {
    file: &'a Path,
    number: usize,
    text: &'a str,
    format: Format,
}

impl Row<'_> {
    /// Refuses what cannot be simulated yet, or not at all.
    fn check_served(&self, line: &Line) -> Result<(), WorkloadError> {
        let refuse = |key: &str, message: String| {
            Err(WorkloadError::at(
                self.file,
                self.number,
                self.column(key),
                message,
            ))
        };
        for (key, value) in [("delay", &line.delay), ("turns", &line.turns)] {
            if value.is_some() {
                let message = format!(
                    "key `{key}`: sessions, whose turns follow a delay after the turn before them, \
                     cannot be simulated yet; give every request a `timestamp`"
                );
                return refuse(key, message);
            }
        }
        let texts = [
            ("text_input", &line.text_input),
            ("messages", &line.messages),
            ("payload", &line.payload),
        ];
        let text = texts.into_iter().find(|(_, value)| value.is_some());
        match text {
            Some((key, _)) if line.input_length.is_none() => refuse(
                key,
                format!(
                    "key `{key}`: the prompt is given as text, of which nobody here knows the \
                     tokens; give `input_length` as well"
                ),
            ),
            _ => Ok(()),
        }
    }

    fn lengths(&self, line: &Line) -> Result<Lengths, WorkloadError> {
        let keys = self.format.keys();
        let (prefill, decode) = match self.format {
            Format::Vidur => (&line.num_prefill_tokens, &line.num_decode_tokens),
            _ => (&line.input_length, &line.output_length),
        };
        let lengths = Lengths {
            prefill_tokens: self.tokens(keys.prefill, prefill.as_ref())?,
            decode_tokens: self.tokens(keys.decode, decode.as_ref())?,
        };
        let column = || self.column(keys.prefill);
        check_lengths(lengths).map_err(|e| e.placed(self.file, self.number, column()))
    }

    fn tokens(&self, key: &str, value: Option<&Scalar>) -> Result<u32, WorkloadError> {
        let whole = match value {
            Some(Scalar::Whole(whole)) => u32::try_from(*whole).ok(),
            Some(Scalar::Number(x))
                if x.fract() == 0.0 && (0.0..=f64::from(MOST_TOKENS)).contains(x) =>
            {
                Some(whole_u32(*x))
            }
            _ => None,
        };
        whole
            .filter(|tokens| (1..=MOST_TOKENS).contains(tokens))
            .ok_or_else(|| {
                self.error(
                    key,
                    value,
                    &format!("a whole number from 1 to {MOST_TOKENS}"),
                )
            })
    }

    fn time_s(
        &self,
        line: &Line,
        time_unit: Option<TimeUnit>,
    ) -> Result<Option<f64>, WorkloadError> {
        let keys = self.format.keys();
        let value = match self.format {
            Format::Vidur => &line.arrived_at,
            _ => &line.timestamp,
        };
        let unit = time_unit.unwrap_or(keys.unit);
        let time = match value {
            None => return Ok(None),
            Some(Scalar::Whole(whole)) => *whole as f64,
            Some(Scalar::Number(number)) => *number,
            Some(_) => {
                let allowed = format!("a number of {}", unit.in_words());
                return Err(self.error(keys.time, value.as_ref(), &allowed));
            }
        };
        Ok(Some(unit.to_seconds(time)))
    }

    /// Column of a key in the line.
    fn column(&self, key: &str) -> usize {
        let found = self.text.find(&format!("\"{key}\""));
        found.map_or(1, |at| self.text[..at].chars().count() + 1)
    }

    fn error(&self, key: &str, value: Option<&Scalar>, allowed: &str) -> WorkloadError {
        let found = match value {
            Some(value) => format!("is {value}"),
            None => "is missing".to_owned(),
        };
        let message = format!("key `{key}` {found}; allowed is {allowed}");
        WorkloadError::at(self.file, self.number, self.column(key), message)
    }
}

/// A value where a number should be; of others just enough to name them.
#[derive(Debug, Clone, PartialEq)]
enum Scalar {
    Whole(u64),
    Number(f64),
    Text(String),
    Other(&'static str),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(whole) => write!(f, "`{whole}`"),
            Self::Number(number) => write!(f, "`{number}`"),
            Self::Text(text) => write!(f, "`\"{}\"`", shown(text)),
            Self::Other(what) => write!(f, "{what}"),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value")
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(whole))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(whole as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        // One more than is shown, so that it is seen to be cut.
        let kept = text.chars().take(SHOWN_CHARACTERS_MAX + 1);
        Ok(Scalar::Text(kept.collect()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other(if value { "`true`" } else { "`false`" }))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other("`null`"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scalar, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("a mapping"))
    }
}
