//! Reasons why runs did not come off, grouped: many runs, few causes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::results::{RunStatus, SummaryRow};

/// Groups kept apart; a sweep with more kinds of reasons than this has them
/// under one heading.
const GROUPS_MAX: usize = 1000;

/// Runs that failed for the same reason but for the numbers in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReasonGroup {
    /// `infeasible` or `failed`.
    pub status: RunStatus,
    /// The reason, numbers replaced by `N`.
    pub reason: String,
    /// How many runs.
    pub runs: u64,
    /// Its first reason, word for word.
    pub example: String,
    /// Index of that run.
    pub example_run_index: u64,
}

/// Collects reasons.
#[derive(Debug, Clone, Default)]
pub struct ReasonGroups {
    groups: BTreeMap<(&'static str, String), ReasonGroup>,
}

impl ReasonGroups {
    /// Counts the run if it is not `ok`.
    pub fn observe(&mut self, row: SummaryRow<'_>) {
        let status = match row.status() {
            None | Some(RunStatus::Ok) => return,
            Some(status) => status,
        };
        let example = row.text("reason").unwrap_or("no reason given");
        let mut key = (status.name(), normalise(example));
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            key.1 = "other reasons".into();
        }
        let group = self
            .groups
            .entry(key)
            .or_insert_with_key(|key| ReasonGroup {
                status,
                reason: key.1.clone(),
                runs: 0,
                example: example.to_string(),
                example_run_index: row.run_index(),
            });
        group.runs += 1;
    }

    /// The groups, largest first.
    pub fn sorted(&self) -> Vec<ReasonGroup> {
        let mut groups: Vec<ReasonGroup> = self.groups.values().cloned().collect();
        groups.sort_by(|a, b| b.runs.cmp(&a.runs).then_with(|| a.reason.cmp(&b.reason)));
        groups
    }
}

/// Replaces every number that stands for itself by `N`; names such as `h100` or
/// `llama-3-8b` stay.
pub fn normalise(reason: &str) -> String {
    let mut out = String::with_capacity(reason.len());
    let mut rest = reason;
    let mut after_name = false;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_digit() && !after_name {
            let end = number_end(rest);
            let follows = rest[end..].chars().next();
            let is_name = follows.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
            out.push_str(if is_name { &rest[..end] } else { "N" });
            after_name = is_name;
            rest = &rest[end..];
        } else {
            out.push(first);
            after_name = first.is_alphanumeric() || first == '_' || (first == '-' && after_name);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// Bytes of the number at the start: digits with separators between digits.
fn number_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let mut end = 0;
    while digit(end) || (matches!(bytes.get(end), Some(b'.' | b',')) && digit(end + 1)) {
        end += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn numbers_go_and_names_stay() {
        let cases = [
            ("needs 141.5 GB of 80 GB", "needs N GB of N GB"),
            (
                "llama-3-8b on h100: 1,024 blocks",
                "llama-3-8b on h100: N blocks",
            ),
            (
                "tensor_parallel=16 does not divide 40.",
                "tensor_parallel=N does not divide N.",
            ),
            ("8xh100 (3)", "8xh100 (N)"),
            ("fehlt: 3 µs", "fehlt: N µs"),
        ];
        for (reason, expected) in cases {
            assert_eq!(normalise(reason), expected);
        }
    }
}
