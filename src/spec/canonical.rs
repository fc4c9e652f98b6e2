//! Canonical JSON: no blanks, keys sorted, one text for one content.
//!
//! Written straight from plain data: a sweep names thousands of runs a second, and a
//! tree of values in between costs several times as much as the text and its hash.

use std::fmt::{self, Write};
use std::ops::Range;

use serde::Serialize;
use serde::ser;
use serde_json::{Number, Value};

/// `data` as canonical JSON, all of it.
pub fn canonical_json<T: Serialize + ?Sized>(data: &T) -> String {
    let writer = Writer {
        keeps_all: true,
        ..Writer::default()
    };
    writer.text_of(data)
}

/// The same without what is not set: null, and mappings of nothing but such. Within a
/// list all stays.
pub(super) fn canonical_json_of_set<T: Serialize + ?Sized>(data: &T) -> String {
    Writer::default().text_of(data)
}

#[derive(Debug, Default)]
struct Writer {
    text: String,
    /// Whether entries of mappings stay that are not set.
    keeps_all: bool,
}

/// Data that is not plain.
#[derive(Debug)]
struct NotPlain;

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not plain data")
    }
}

impl std::error::Error for NotPlain {}

impl ser::Error for NotPlain {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Whether what was written is set.
type Written = Result<bool, NotPlain>;

impl Writer {
    /// What is not plain has no text; configurations are.
    fn text_of<T: Serialize + ?Sized>(mut self, data: &T) -> String {
        self.text.reserve(2048);
        match data.serialize(&mut self) {
            Ok(_) => self.text,
            Err(NotPlain) => "null".to_owned(),
        }
    }

    fn null(&mut self) -> Written {
        self.text.push_str("null");
        Ok(false)
    }

    fn shown(&mut self, content: impl fmt::Display) -> Written {
        write!(self.text, "{content}").map_err(|_| NotPlain)?;
        Ok(true)
    }

    fn string(&mut self, content: &str) -> Written {
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if content.bytes().all(plain) {
            // Most have nothing in them to escape.
            self.text.push('"');
            self.text.push_str(content);
            self.text.push('"');
        } else {
            self.text += &Value::from(content).to_string();
        }
        Ok(true)
    }

    fn mapping(&mut self) -> Mapping<'_> {
        Mapping {
            start: self.text.len(),
            writer: self,
            entries: Vec::new(),
            key: String::new(),
            variant: None,
        }
    }

    fn list(&mut self) -> List<'_> {
        self.text.push('[');
        List {
            start: self.text.len(),
            kept_all: std::mem::replace(&mut self.keeps_all, true),
            writer: self,
            in_variant: false,
        }
    }
}

/// A mapping that is being written: its entries, one after the other, are put in order
/// when all are there.
struct Mapping<'w> {
    writer: &'w mut Writer,
    /// Where it starts in the text.
    start: usize,
    entries: Vec<Entry>,
    /// The key of the value to come, where it comes apart from that.
    key: String,
    /// What this is the content of: the only entry of another mapping.
    variant: Option<&'static str>,
}

/// Where an entry and its key, without the quotes, are in the text.
struct Entry {
    key: Range<usize>,
    all: Range<usize>,
}

impl Mapping<'_> {
    fn entry<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), NotPlain> {
        let start = self.writer.text.len();
        self.writer.string(key)?;
        let key_end = self.writer.text.len();
        self.writer.text.push(':');
        let is_set = value.serialize(&mut *self.writer)?;
        if is_set || self.writer.keeps_all {
            self.entries.push(Entry {
                key: start + 1..key_end - 1,
                all: start..self.writer.text.len(),
            });
        } else {
            self.writer.text.truncate(start);
        }
        Ok(())
    }

    fn close(mut self) -> Written {
        let text = &mut self.writer.text;
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|a, b| text[a.key.clone()].cmp(&text[b.key.clone()]));
        let mut ordered = String::with_capacity(text.len() - self.start + entries.len() + 2);
        ordered.push('{');
        for (nth, entry) in entries.iter().enumerate() {
            if nth > 0 {
                ordered.push(',');
            }
            ordered.push_str(&text[entry.all.clone()]);
        }
        ordered.push('}');
        text.truncate(self.start);
        let is_set = !entries.is_empty();
        match self.variant {
            None => text.push_str(&ordered),
            Some(_) if !is_set && !self.writer.keeps_all => text.push_str("{}"),
            Some(variant) => {
                text.push('{');
                self.writer.string(variant)?;
                self.writer.text.push(':');
                self.writer.text.push_str(&ordered);
                self.writer.text.push('}');
            }
        }
        Ok(is_set)
    }
}

/// A list that is being written.
struct List<'w> {
    writer: &'w mut Writer,
    /// Where its first item starts in the text.
    start: usize,
    /// What the writer kept before it.
    kept_all: bool,
    /// Whether it is the only entry of a mapping.
    in_variant: bool,
}

impl List<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), NotPlain> {
        if self.writer.text.len() > self.start {
            self.writer.text.push(',');
        }
        item.serialize(&mut *self.writer).map(drop)
    }

    fn close(self) -> Written {
        let end = if self.in_variant { "]}" } else { "]" };
        self.writer.text.push_str(end);
        self.writer.keeps_all = self.kept_all;
        Ok(true)
    }
}

/// What is written as it is shown.
macro_rules! shown {
    ($($method:ident: $type:ty,)+) => {
        $(fn $method(self, content: $type) -> Written {
            self.shown(content)
        })+
    };
}

impl<'w> ser::Serializer for &'w mut Writer {
    type Ok = bool;
    type Error = NotPlain;
    type SerializeSeq = List<'w>;
    type SerializeTuple = List<'w>;
    type SerializeTupleStruct = List<'w>;
    type SerializeTupleVariant = List<'w>;
    type SerializeMap = Mapping<'w>;
    type SerializeStruct = Mapping<'w>;
    type SerializeStructVariant = Mapping<'w>;

    shown! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
    }

    fn serialize_f32(self, number: f32) -> Written {
        self.serialize_f64(f64::from(number))
    }

    fn serialize_f64(self, number: f64) -> Written {
        match Number::from_f64(number) {
            Some(number) => self.shown(number),
            None => self.null(),
        }
    }

    fn serialize_char(self, content: char) -> Written {
        self.string(content.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, content: &str) -> Written {
        self.string(content)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Written {
        self.collect_seq(bytes)
    }

    fn serialize_none(self) -> Written {
        self.null()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        self.null()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.null()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.string(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        let mut mapping = self.mapping();
        mapping.entry(variant, value)?;
        mapping.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'w>, NotPlain> {
        Ok(self.list())
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'w>, NotPlain> {
        Ok(self.list())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'w>, NotPlain> {
        Ok(self.list())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'w>, NotPlain> {
        self.text.push('{');
        self.string(variant)?;
        self.text.push(':');
        Ok(List {
            in_variant: true,
            ..self.list()
        })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Mapping<'w>, NotPlain> {
        Ok(self.mapping())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Mapping<'w>, NotPlain> {
        Ok(self.mapping())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Mapping<'w>, NotPlain> {
        Ok(Mapping {
            variant: Some(variant),
            ..self.mapping()
        })
    }
}

impl ser::SerializeMap for Mapping<'_> {
    type Ok = bool;
    type Error = NotPlain;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotPlain> {
        self.key = match serde_json::to_value(key) {
            Ok(Value::String(key)) => key,
            Ok(key @ (Value::Number(_) | Value::Bool(_))) => key.to_string(),
            _ => return Err(NotPlain),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotPlain> {
        let key = std::mem::take(&mut self.key);
        self.entry(&key, value)
    }

    fn end(self) -> Written {
        self.close()
    }
}

/// Lists of all kinds are written alike.
macro_rules! lists {
    ($($kind:ident: $item:ident),+) => {
        $(impl ser::$kind for List<'_> {
            type Ok = bool;
            type Error = NotPlain;

            fn $item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), NotPlain> {
                self.item(item)
            }

            fn end(self) -> Written {
                self.close()
            }
        })+
    };
}

lists!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field
);

/// And so are mappings whose keys are names of fields.
macro_rules! structs {
    ($($kind:ident),+) => {
        $(impl ser::$kind for Mapping<'_> {
            type Ok = bool;
            type Error = NotPlain;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), NotPlain> {
                self.entry(key, value)
            }

            fn end(self) -> Written {
                self.close()
            }
        })+
    };
}

structs!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    /// What has the canonical text, as serde_json writes it: keys in order, and only what
    /// is set.
    fn set_in_order(value: &Value, keeps_all: bool) -> Value {
        match value {
            Value::Object(map) => {
                let in_order: BTreeMap<_, _> = map.iter().collect();
                let kept = in_order
                    .into_iter()
                    .filter(|(_, inner)| keeps_all || is_set(inner));
                kept.map(|(key, inner)| (key.clone(), set_in_order(inner, keeps_all)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Value::Array(items) => items.iter().map(|item| set_in_order(item, true)).collect(),
            other => other.clone(),
        }
    }

    fn is_set(value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::Object(map) => map.values().any(is_set),
            _ => true,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\"\\\\\n ü]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let items = proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let entries = proptest::collection::vec(("[a-c]{1,3}", inner), 0..5);
            let map = |entries: Vec<(String, Value)>| Value::Object(entries.into_iter().collect());
            prop_oneof![items, entries.prop_map(map)]
        })
    }

    proptest! {
        #[test]
        fn text_is_that_of_the_tree_in_order(value in json()) {
            prop_assert_eq!(canonical_json(&value), set_in_order(&value, true).to_string());
            prop_assert_eq!(canonical_json_of_set(&value), set_in_order(&value, false).to_string());
        }
    }

    #[test]
    fn key_order_does_not_matter() {
        let parse = |text| serde_json::from_str::<Value>(text).unwrap();
        let a = parse(r#"{"b": [1, {"y": 2.5, "x": null}], "a": "q\"1"}"#);
        let b = parse(r#"{"a": "q\"1", "b": [1, {"x": null, "y": 2.5}]}"#);
        assert_eq!(
            canonical_json(&a),
            r#"{"a":"q\"1","b":[1,{"x":null,"y":2.5}]}"#
        );
        assert_eq!(canonical_json(&a), canonical_json(&b));
    }

    #[test]
    fn every_kind_of_data_has_the_text_of_its_tree() {
        #[derive(Serialize)]
        struct Unit;
        #[derive(Serialize)]
        struct Wrapped(f32);
        #[derive(Serialize)]
        struct Pair(Option<u8>, char);
        #[derive(Serialize)]
        enum Variant {
            Unit,
            Of(Option<i16>),
            Pair(bool, Option<u8>),
            Named {
                b: Option<u64>,
                a: Option<&'static str>,
            },
        }
        #[derive(Serialize)]
        #[serde(tag = "type")]
        enum Tagged {
            Map(BTreeMap<u32, i8>),
            Named { unset: Option<u64>, a: (u16, ()) },
        }
        #[derive(Serialize)]
        struct All {
            units: (Unit, Variant),
            wrapped: Wrapped,
            pair: Pair,
            variants: [Variant; 3],
            none: Variant,
            nothing: Variant,
            something: Variant,
            two: Variant,
            tagged: [Tagged; 2],
            alone: Tagged,
            not_finite: f64,
        }
        let named = |a| Variant::Named { b: None, a };
        let all = All {
            units: (Unit, Variant::Unit),
            wrapped: Wrapped(0.1),
            pair: Pair(None, '"'),
            variants: [Variant::Of(None), Variant::Pair(true, None), named(None)],
            none: Variant::Of(None),
            nothing: named(None),
            something: named(Some("z")),
            two: Variant::Pair(false, Some(1)),
            tagged: [
                Tagged::Map(BTreeMap::from([(10, -1), (9, 2)])),
                Tagged::Named {
                    unset: None,
                    a: (3, ()),
                },
            ],
            alone: Tagged::Named {
                unset: None,
                a: (3, ()),
            },
            not_finite: f64::NAN,
        };
        let tree = serde_json::to_value(&all).unwrap();
        assert_eq!(canonical_json(&all), set_in_order(&tree, true).to_string());
        let set = set_in_order(&tree, false);
        assert_eq!(canonical_json_of_set(&all), set.to_string());
        assert_eq!(set["something"], json!({"Named": {"a": "z"}}));
        assert!(set.get("nothing").is_none() && set.get("none").is_none());
        assert_eq!(canonical_json_of_set(&named(None)), "{}");
        assert_eq!(canonical_json_of_set(&Variant::Of(None)), "{}");
    }
}
