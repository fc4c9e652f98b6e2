//! What the replicas of a pool have done.

use crate::execution_time::StepShape;

/// Work a pool has done, for utilisation figures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PoolWork {
    /// Batches executed.
    pub batches: u64,
    /// Requests in them.
    pub batch_requests: u64,
    /// Tokens through the linear layers.
    pub tokens: u64,
    /// Query-key pairs per layer and head.
    pub attended_pairs: f64,
    /// Rows through the LM head.
    pub sampled_tokens: u64,
    /// Time stages were busy, summed over stages; known at the end.
    pub busy_s: f64,
}

impl PoolWork {
    /// Sum of two.
    pub fn plus(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            batch_requests: self.batch_requests + other.batch_requests,
            tokens: self.tokens + other.tokens,
            attended_pairs: self.attended_pairs + other.attended_pairs,
            sampled_tokens: self.sampled_tokens + other.sampled_tokens,
            busy_s: self.busy_s + other.busy_s,
        }
    }

    /// What was done beside `earlier`, which it contains.
    pub fn minus(self, earlier: Self) -> Self {
        Self {
            batches: self.batches - earlier.batches,
            batch_requests: self.batch_requests - earlier.batch_requests,
            tokens: self.tokens - earlier.tokens,
            attended_pairs: self.attended_pairs - earlier.attended_pairs,
            sampled_tokens: self.sampled_tokens - earlier.sampled_tokens,
            busy_s: self.busy_s - earlier.busy_s,
        }
    }

    /// Counts `steps` steps like `shape`, but for its prompts, the first with
    /// `context_tokens` in the cache and each other with one more per decode.
    #[inline]
    pub(crate) fn count_alike(&mut self, shape: &StepShape, context_tokens: u64, steps: u64) {
        let members = u64::from(shape.decode_requests);
        let pairs =
            steps * (context_tokens + members) + members * (steps * steps.saturating_sub(1) / 2);
        self.count_decodes(steps, steps * members, pairs);
        let prompts = u64::from(shape.sampled_tokens) - members;
        self.sampled_tokens += steps * prompts;
    }

    /// Counts `batches` whose decodes are `decodes` in all and attend to `pairs`.
    #[inline]
    pub(crate) fn count_decodes(&mut self, batches: u64, decodes: u64, pairs: u64) {
        self.batches += batches;
        self.batch_requests += decodes;
        self.tokens += decodes;
        self.sampled_tokens += decodes;
        // Whole numbers: exact, whatever the order.
        self.attended_pairs += pairs as f64;
    }

    #[inline]
    pub(super) fn count(&mut self, shape: &StepShape) {
        self.count_alike(shape, shape.decode_context_tokens, 1);
        for chunk in &shape.prefills {
            self.batch_requests += 1;
            self.tokens += u64::from(chunk.new_tokens);
            let (new, context) = (f64::from(chunk.new_tokens), f64::from(chunk.context_tokens));
            self.attended_pairs += new * context + new * (new + 1.0) / 2.0;
        }
    }
}
