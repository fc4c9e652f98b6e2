//! The recorder of runs whose length is open: times between tokens by segment of the run,
//! and the request rows that are to be kept. Everything about requests can be asked of the
//! run itself.

use super::log::RequestLog;
use super::{ExactRun, Recorder, RequestRecord, SparseHistogram, TimeHistogram};

/// Keeps times between tokens by segment, and rows of requests.
#[derive(Debug)]
pub struct SegmentRecorder {
    log: RequestLog,
    /// Those that have ended.
    segments: Vec<SparseHistogram>,
    /// Since the last mark.
    open: TimeHistogram,
    has_begun: bool,
}

impl SegmentRecorder {
    /// Every `log_every`-th row is kept (0: none).
    pub fn new(log_every: u32) -> Self {
        Self {
            log: RequestLog::new(0, log_every, false),
            segments: Vec::new(),
            open: TimeHistogram::default(),
            has_begun: false,
        }
    }

    /// Times between tokens by segment, each from one mark to the next.
    pub fn segments(&self) -> &[SparseHistogram] {
        &self.segments
    }

    /// Times between tokens since the last mark.
    pub fn open(&self) -> SparseHistogram {
        SparseHistogram::taken_from(&mut self.open.clone())
    }

    /// The kept rows in order of request id.
    pub fn finish(self) -> Vec<RequestRecord> {
        self.log.finish()
    }
}

impl Recorder for SegmentRecorder {
    #[inline]
    fn request(&mut self, record: &RequestRecord) {
        if self.log.keeps(record.request_id) {
            self.log.insert(record.clone());
        }
    }

    #[inline]
    fn token_intervals(&mut self, interval_s: f64, count: u32) {
        self.open.insert(interval_s, count);
    }

    #[inline]
    fn all_token_intervals(&mut self, intervals_s: &[f64], sum: &ExactRun, count: u32) {
        self.open.insert_all(intervals_s, sum, count);
    }

    const ANY_ORDER: bool = true;

    fn mark_passed(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            let ended = SparseHistogram::taken_from(&mut self.open);
            self.segments.push(ended);
        }
    }

    fn segments_merged(&mut self) {
        let pairs = self.segments.chunks(2);
        self.segments = pairs
            .map(|pair| SparseHistogram::merged(pair.iter()))
            .collect();
    }
}
