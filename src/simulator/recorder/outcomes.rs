//! How the requests of a run, or of a part of it, ended.

use super::{RequestOutcome, RequestRecord, RequestTargets};

/// Requests by how they ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OutcomeCounts {
    pub(crate) requests: u32,
    pub(crate) completed: u32,
    pub(crate) rejected: u32,
    pub(crate) rejected_by_max_model_len: u32,
    pub(crate) capped_by_max_model_len: u32,
    pub(crate) unfinished: u32,
    pub(crate) undecided: u32,
    pub(crate) not_arrived: u32,
    /// Completed within every target.
    pub(crate) within_targets: u32,
}

impl OutcomeCounts {
    /// Counts a request. Returns whether it met every target; none without targets, or if
    /// that is not decided.
    #[inline]
    pub(crate) fn add(
        &mut self,
        record: &RequestRecord,
        targets: Option<RequestTargets>,
    ) -> Option<bool> {
        self.requests += 1;
        let mut is_decided = true;
        match record.outcome {
            RequestOutcome::Completed => self.completed += 1,
            RequestOutcome::RejectedTooLargeForKvCache
            | RequestOutcome::RejectedPromptExceedsBatch => self.rejected += 1,
            RequestOutcome::RejectedPromptExceedsMaxModelLen => {
                self.rejected += 1;
                self.rejected_by_max_model_len += 1;
            }
            RequestOutcome::UnfinishedTimeLimit | RequestOutcome::UnfinishedEndOfRun => {
                self.unfinished += 1;
                is_decided = targets.is_some_and(|targets| targets.exceeded_by(record));
                self.undecided += u32::from(!is_decided);
            }
            RequestOutcome::UnfinishedStuck => self.unfinished += 1,
            RequestOutcome::NotArrived => {
                self.not_arrived += 1;
                is_decided = false;
            }
        }
        if record.is_capped && record.outcome != RequestOutcome::NotArrived {
            self.capped_by_max_model_len += 1;
        }
        let met = targets.filter(|_| is_decided)?.met_by(record);
        self.within_targets += u32::from(met);
        Some(met)
    }

    /// Adds those of another part.
    pub(crate) fn merge(&mut self, part: Self) {
        self.requests += part.requests;
        self.completed += part.completed;
        self.rejected += part.rejected;
        self.rejected_by_max_model_len += part.rejected_by_max_model_len;
        self.capped_by_max_model_len += part.capped_by_max_model_len;
        self.unfinished += part.unfinished;
        self.undecided += part.undecided;
        self.not_arrived += part.not_arrived;
        self.within_targets += part.within_targets;
    }
}
