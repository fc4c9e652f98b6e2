//! The rows of requests that a run keeps.

use super::RequestRecord;

/// The request rows that are kept.
#[derive(Debug)]
pub(super) struct RequestLog {
    /// Every n-th request by id; 0: none.
    pub(super) every: u32,
    /// One row for each id that is kept, in that order, up to the last that came; in a
    /// part of a simulation, which has few of them, the rows that came.
    pub(super) rows: Vec<RequestRecord>,
    is_part: bool,
    /// How many of `rows` came.
    count: usize,
}

impl RequestLog {
    pub(super) fn new(capacity: usize, every: u32, is_part: bool) -> Self {
        let capacity = match every {
            0 => 0,
            every => capacity.div_ceil(every as usize),
        };
        Self {
            every,
            rows: Vec::with_capacity(capacity),
            is_part,
            count: 0,
        }
    }

    pub(super) fn keeps(&self, request_id: u32) -> bool {
        self.every != 0 && request_id.is_multiple_of(self.every)
    }

    /// Puts a row where it belongs, as moving it later would take longer.
    pub(super) fn insert(&mut self, row: RequestRecord) {
        self.count += 1;
        if self.is_part {
            return self.rows.push(row);
        }
        let place = (row.request_id / self.every) as usize;
        if place >= self.rows.len() {
            self.rows.resize(place + 1, RequestRecord::NONE);
        }
        let none = RequestRecord::NONE.request_id;
        debug_assert_eq!(self.rows[place].request_id, none, "recorded twice");
        self.rows[place] = row;
    }

    /// The rows in order of request id.
    pub(super) fn finish(mut self) -> Vec<RequestRecord> {
        if self.is_part {
            self.rows.sort_unstable_by_key(|row| row.request_id);
        } else if self.count < self.rows.len() {
            let none = RequestRecord::NONE.request_id;
            self.rows.retain(|row| row.request_id != none);
        }
        self.rows
    }
}
