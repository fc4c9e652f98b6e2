//! What batches and requests have spent their time on.

/// How a batch has spent its time, for its members' accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spent {
    /// Stage times, host overhead included.
    pub total_s: f64,
    /// The same without host overhead.
    pub model_s: f64,
    /// Between the stages: from the end of one to the start of the next.
    pub waiting_s: f64,
}

impl Spent {
    #[inline]
    pub(crate) fn add(&mut self, other: Self) {
        self.total_s += other.total_s;
        self.model_s += other.model_s;
        self.waiting_s += other.waiting_s;
    }

    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            total_s: self.total_s - earlier.total_s,
            model_s: self.model_s - earlier.model_s,
            waiting_s: self.waiting_s - earlier.waiting_s,
        }
    }
}
