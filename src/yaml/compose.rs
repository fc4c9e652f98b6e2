//! From the events of a YAML parser to a value and the places of its parts.
//!
//! Values are made as events come, so that a file made to harm ends where it goes
//! beyond a limit: levels are counted before anything is nested deeper, aliases as
//! what they stand for. Time is linear in what the file stands for.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Number, Value};

use super::error::{Position, YamlError, child_path};
use super::places::{Places, Within};
use crate::limits::{YAML_DEPTH_MAX, YAML_NODES_MAX};

/// A value and where its parts stand.
pub(super) type Composed = (Value, Places);

/// The one document of `text`; `file` is what messages call it.
pub(super) fn compose(text: &str, file: &Path) -> Result<Composed, YamlError> {
    let mut composer = Composer {
        // A byte-order mark is no part of the document.
        events: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        file,
        path: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
    };
    composer.document()
}

fn position_of(marker: &Marker) -> Position {
    (marker.line(), marker.col() + 1)
}

/// One step from a value to one within it.
enum Step {
    Key(String),
    Item(usize),
}

/// What an anchor stands for, and of how many values that consists.
struct Anchored {
    composed: Composed,
    nodes: usize,
}

struct Composer<'a> {
    events: Parser<'a, StrInput<'a>>,
    file: &'a Path,
    /// The way to the value being composed, for messages.
    path: Vec<Step>,
    anchors: HashMap<usize, Anchored>,
    /// Values so far, copies included.
    nodes: usize,
}

impl<'a> Composer<'a> {
    fn document(&mut self) -> Result<Composed, YamlError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {}
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text.is_empty() => {}
                _ if root.is_some() => {
                    let message = "more than one YAML document in the file";
                    return Err(self.error(&span, message));
                }
                event => root = Some(self.value(event, span, None)?),
            }
        }
        root.ok_or_else(|| YamlError {
            file: self.file.to_path_buf(),
            position: None,
            path: String::new(),
            message: "the file is empty".into(),
        })
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.not_valid(&error)),
            None => {
                let end = Marker::new(0, 1, 0);
                Ok((Event::StreamEnd, Span::empty(end)))
            }
        }
    }

    /// What the parser objects to.
    fn not_valid(&self, error: &ScanError) -> YamlError {
        let message = match error.info() {
            // It has a limit of its own, and looks ahead.
            "recursion limit exceeded" => too_deep(),
            info => format!("not valid YAML: {info}"),
        };
        YamlError {
            file: self.file.to_path_buf(),
            position: Some(position_of(error.marker())),
            path: String::new(),
            message,
        }
    }

    /// The value that starts with `event`; `key` is where its key stands.
    fn value(
        &mut self,
        event: Event<'a>,
        span: Span,
        key: Option<Position>,
    ) -> Result<Composed, YamlError> {
        let nodes_before = self.nodes;
        self.count(1, &span)?;
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(anchor, tag)
            | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            _ => (0, false),
        };
        if tag {
            return Err(self.error(&span, "YAML tags are not supported"));
        }
        let place = position_of(&span.start);
        let (value, within) = match event {
            Event::Scalar(text, style, ..) => (self.scalar(text, style, &span)?, Within::Nothing),
            Event::SequenceStart(..) => self.sequence(&span)?,
            Event::MappingStart(..) => self.mapping(&span)?,
            Event::Alias(anchor) => {
                let (value, places) = self.alias(anchor, &span)?;
                (value, places.within)
            }
            _ => return Err(self.error(&span, "this value cannot be read")),
        };
        let places = Places::new(key, place, within);
        if anchor != 0 {
            let nodes = self.nodes - nodes_before;
            self.count(nodes, &span)?;
            let composed = (value.clone(), places.clone());
            self.anchors.insert(anchor, Anchored { composed, nodes });
        }
        Ok((value, places))
    }

    /// A copy of what an anchor stands for.
    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Composed, YamlError> {
        let Some(Anchored { nodes, .. }) = self.anchors.get(&anchor) else {
            return Err(self.error(span, "an alias stands within what it stands for"));
        };
        self.count(*nodes, span)?;
        Ok(self.anchors[&anchor].composed.clone())
    }

    /// Counts values before they are made.
    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= YAML_NODES_MAX {
            return Ok(());
        }
        let message = format!(
            "the file stands for more than {YAML_NODES_MAX} values (aliases count as what they \
             stand for), the most that are allowed"
        );
        Err(self.error(span, &message))
    }

    fn enter(&mut self, step: Step, span: &Span) -> Result<(), YamlError> {
        if self.path.len() >= YAML_DEPTH_MAX {
            return Err(YamlError {
                file: self.file.to_path_buf(),
                position: Some(position_of(&span.start)),
                path: String::new(),
                message: too_deep(),
            });
        }
        self.path.push(step);
        Ok(())
    }

    fn sequence(&mut self, start: &Span) -> Result<(Value, Within), YamlError> {
        let (mut items, mut places) = (Vec::new(), Vec::new());
        self.enter(Step::Item(0), start)?;
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                break;
            }
            if let Some(Step::Item(at)) = self.path.last_mut() {
                *at = items.len();
            }
            let (value, place) = self.value(event, span, None)?;
            items.push(value);
            places.push(place);
        }
        self.path.pop();
        Ok((Value::Array(items), Within::Items(places)))
    }

    fn mapping(&mut self, start: &Span) -> Result<(Value, Within), YamlError> {
        let mut mapping = Mapping::default();
        self.enter(Step::Key(String::new()), start)?;
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.key(event, &span)?;
            let (event, value_span) = self.next()?;
            if key == "<<" {
                let merged = self.value(event, value_span, None)?;
                mapping.merge(merged).map_err(|place| {
                    let message = "`<<` needs a mapping or a list of mappings";
                    self.error_at(place, message, self.path.len() - 1)
                })?;
                continue;
            }
            if !mapping.written.insert(key.clone()) {
                return Err(YamlError {
                    file: self.file.to_path_buf(),
                    position: Some(position_of(&span.start)),
                    path: String::new(),
                    message: format!("not valid YAML: duplicated key `{}`", cut(&key)),
                });
            }
            if let Some(step) = self.path.last_mut() {
                *step = Step::Key(key.clone());
            }
            let place = Some(position_of(&span.start));
            let (value, places) = self.value(event, value_span, place)?;
            mapping.values.insert(key.clone(), value);
            mapping.places.insert(key, places);
        }
        self.path.pop();
        Ok((
            Value::Object(mapping.values),
            Within::Entries(mapping.places),
        ))
    }

    /// A key as text. What it is in YAML makes no difference.
    fn key(&mut self, event: Event<'a>, span: &Span) -> Result<String, YamlError> {
        let word = match event {
            Event::Scalar(text, ScalarStyle::Plain, 0, None) => {
                match Scalar::parse_from_cow(text) {
                    Scalar::String(text) if !text.is_empty() => Some(text.into_owned()),
                    Scalar::Integer(number) => Some(number.to_string()),
                    Scalar::Boolean(flag) => Some(flag.to_string()),
                    _ => None,
                }
            }
            Event::Scalar(text, _, 0, None) => Some(text.into_owned()),
            _ => None,
        };
        word.ok_or_else(|| {
            let depth = self.path.len() - 1;
            self.error_at(position_of(&span.start), "a key must be a word", depth)
        })
    }

    fn scalar(
        &self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        span: &Span,
    ) -> Result<Value, YamlError> {
        if style != ScalarStyle::Plain {
            return Ok(Value::String(text.into_owned()));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        Ok(match Scalar::parse_from_cow(text.clone()) {
            Scalar::Null => Value::Null,
            Scalar::Boolean(flag) => Value::Bool(flag),
            Scalar::Integer(number) => Value::from(number),
            Scalar::String(text) => Value::String(text.into_owned()),
            Scalar::FloatingPoint(number) => {
                // Integers above i64 arrive as floats; u64 ones are kept exact.
                if let Ok(exact) = text.parse::<u64>() {
                    return Ok(Value::from(exact));
                }
                let number = Number::from_f64(number.into_inner())
                    .ok_or_else(|| self.error(span, "a number must be finite"))?;
                Value::Number(number)
            }
        })
    }

    /// An error about the value being composed.
    fn error(&self, span: &Span, message: &str) -> YamlError {
        self.error_at(position_of(&span.start), message, self.path.len())
    }

    /// One about the value so many steps from the top.
    fn error_at(&self, position: Position, message: &str, depth: usize) -> YamlError {
        let path = self.path[..depth]
            .iter()
            .fold(String::new(), |path, step| match step {
                Step::Key(key) => child_path(&path, &cut(key)),
                Step::Item(index) => format!("{path}[{index}]"),
            });
        let message = match path.is_empty() {
            true => message.to_owned(),
            false => format!("key `{path}`: {message}"),
        };
        YamlError {
            file: self.file.to_path_buf(),
            position: Some(position),
            path,
            message,
        }
    }
}

/// A mapping while its entries come.
#[derive(Default)]
struct Mapping {
    values: Map<String, Value>,
    places: HashMap<String, Places>,
    /// Keys written in the mapping itself: others are merged into it and yield to them.
    written: HashSet<String>,
}

impl Mapping {
    /// Takes over the entries of a mapping, or of each of a list of them, whose keys are
    /// not there yet. An error is the place of something else.
    fn merge(&mut self, (value, places): Composed) -> Result<(), Position> {
        let place = places.value();
        match (value, places.within) {
            (Value::Array(items), Within::Items(places)) => {
                let mut composed = items.into_iter().zip(places);
                composed.try_for_each(|one| self.merge(one))
            }
            (Value::Object(entries), Within::Entries(mut places)) => {
                for (key, value) in entries {
                    if let (false, Some(place)) =
                        (self.values.contains_key(&key), places.remove(&key))
                    {
                        self.places.insert(key.clone(), place);
                        self.values.insert(key, value);
                    }
                }
                Ok(())
            }
            _ => Err(place),
        }
    }
}

fn too_deep() -> String {
    format!("nested too deeply: allowed are {YAML_DEPTH_MAX} mappings and lists inside one another")
}

/// The beginning of a key that may be of any length.
fn cut(key: &str) -> Cow<'_, str> {
    const LONGEST: usize = 100;
    match key.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &key[..end]).into(),
        None => key.into(),
    }
}
