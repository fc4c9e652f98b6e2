//! Where the parts of a document stand: a tree of the shape of its value.

use std::collections::HashMap;

use serde_json::Value;

use super::error::Position;

/// Where a value stands, its key, and what is within it.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// A sequence item has none, nor has the document.
    key: Option<(u32, u32)>,
    value: (u32, u32),
    pub(super) within: Within,
}

/// Places of what is within a value.
#[derive(Debug, Clone)]
pub(super) enum Within {
    Nothing,
    Items(Vec<Places>),
    Entries(HashMap<String, Places>),
}

fn small((line, column): Position) -> (u32, u32) {
    let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
    (small(line), small(column))
}

fn large((line, column): (u32, u32)) -> Position {
    (line as usize, column as usize)
}

impl Places {
    pub(super) fn new(key: Option<Position>, value: Position, within: Within) -> Self {
        Self {
            key: key.map(small),
            value: small(value),
            within,
        }
    }

    /// Where the value starts.
    pub(super) fn value(&self) -> Position {
        large(self.value)
    }

    /// Where its key starts, or itself if it has none.
    pub(super) fn key(&self) -> Position {
        large(self.key.unwrap_or(self.value))
    }

    fn item(&self, index: usize) -> Option<&Self> {
        match &self.within {
            Within::Items(items) => items.get(index),
            _ => None,
        }
    }

    fn entry(&self, key: &str) -> Option<&Self> {
        match &self.within {
            Within::Entries(entries) => entries.get(key),
            _ => None,
        }
    }
}

/// Walks a dotted path by the entries of mappings and the items of sequences. Keys that
/// themselves contain dots are found too: at each mapping the longest key that fits is
/// taken.
fn walk<'a, T>(
    start: &'a T,
    path: &str,
    entry: fn(&'a T, &str) -> Option<&'a T>,
    item: fn(&'a T, usize) -> Option<&'a T>,
) -> Option<&'a T> {
    if path.is_empty() {
        return Some(start);
    }
    let go_on = |found, rest: &str| {
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        walk(found, rest, entry, item)
    };
    if let Some(rest) = path.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        return go_on(item(start, index.parse().ok()?)?, rest);
    }
    let ends = path.match_indices(['.', '[']).map(|(at, _)| at);
    let mut ends: Vec<usize> = ends.chain([path.len()]).collect();
    ends.reverse();
    ends.into_iter().find_map(|end| {
        let (key, rest) = path.split_at(end);
        go_on(entry(start, key)?, rest)
    })
}

/// The value at a dotted path.
pub(super) fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    walk(
        value,
        path,
        |value, key| value.as_object()?.get(key),
        |value, index| value.as_array()?.get(index),
    )
}

/// The place at a dotted path.
pub(super) fn place_at<'a>(places: &'a Places, path: &str) -> Option<&'a Places> {
    walk(places, path, Places::entry, Places::item)
}
