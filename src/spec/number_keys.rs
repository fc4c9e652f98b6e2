//! Keys of a run that a summary has as numbers.

use serde_json::Value;

use super::Points;

/// Keys of a run that a sweep varies and its summary has as numbers.
pub(super) fn number_keys<'a>(axes: Option<&'a Value>, points: Option<&'a Points>) -> Vec<&'a str> {
    let axes = axes.and_then(Value::as_object).into_iter().flatten();
    let axes = axes.filter(|(_, values)| {
        let values = values.as_array().map_or(&[][..], Vec::as_slice);
        are_numbers(&mut values.iter())
    });
    let columns = points.into_iter().flat_map(|points| {
        let columns = points.columns.iter();
        columns.filter(|column| are_numbers(&mut points.column_values(column).into_iter()))
    });
    let axes = axes.map(|(key, _)| key.as_str());
    axes.chain(columns.map(String::as_str)).collect()
}

/// Whether there are numbers, and nothing else but nulls.
fn are_numbers(values: &mut dyn Iterator<Item = &Value>) -> bool {
    let mut given = values.filter(|value| !value.is_null()).peekable();
    given.peek().is_some() && given.all(Value::is_number)
}
