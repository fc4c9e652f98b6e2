//! KV cache blocks of one replica: a counter, not a map. Which block holds what
//! has no effect on time, so only how many are taken is kept.

use super::config::KvCacheSpec;
use crate::units::Divisor;

/// Blocks of one replica, and the integral of their use over time.
#[derive(Debug, Clone)]
pub(crate) struct BlockPool {
    total: u64,
    free: u64,
    watermark: u64,
    /// Tokens of a block.
    block_size: Divisor,
    used_block_seconds: f64,
    changed_at_s: f64,
}

impl BlockPool {
    pub(crate) fn new(spec: KvCacheSpec, watermark_fraction: f64) -> Self {
        Self {
            total: spec.num_blocks,
            free: spec.num_blocks,
            watermark: (watermark_fraction * spec.num_blocks as f64) as u64,
            block_size: Divisor::new(spec.block_size),
            used_block_seconds: 0.0,
            changed_at_s: 0.0,
        }
    }

    /// Blocks that hold `tokens`.
    #[inline]
    pub(crate) fn blocks_for(&self, tokens: u64) -> u64 {
        self.block_size.div_ceil(tokens)
    }

    /// `tokens` and what is left over of their last block.
    pub(crate) fn whole_blocks(&self, tokens: u64) -> u64 {
        self.blocks_for(tokens) * u64::from(self.block_size.get())
    }

    /// Tokens of all blocks.
    pub(crate) fn total_tokens(&self) -> u64 {
        self.total * u64::from(self.block_size.get())
    }

    #[inline]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    #[inline]
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    #[inline]
    pub(crate) fn used(&self) -> u64 {
        self.total - self.free
    }

    /// The same, with the watermark kept free even of an empty cache.
    pub(crate) fn admits_strictly(&self, blocks: u64) -> bool {
        self.free >= blocks + self.watermark
    }

    /// Whether a new request may take `blocks`: the watermark stays free for
    /// the growth of running ones. An empty cache admits whatever fits.
    #[inline]
    pub(crate) fn admits(&self, blocks: u64) -> bool {
        let reserve = if self.free == self.total {
            0
        } else {
            self.watermark
        };
        self.free >= blocks + reserve
    }

    #[inline]
    pub(crate) fn take(&mut self, blocks: u64, now_s: f64) {
        debug_assert!(blocks <= self.free, "{blocks} of {} blocks", self.free);
        self.integrate(now_s);
        self.free -= blocks;
    }

    #[inline]
    pub(crate) fn give(&mut self, blocks: u64, now_s: f64) {
        debug_assert!(blocks <= self.used(), "{blocks} of {} blocks", self.used());
        self.integrate(now_s);
        self.free += blocks;
    }

    #[inline]
    fn integrate(&mut self, now_s: f64) {
        // Signed numbers convert in one instruction.
        let used = self.used().cast_signed() as f64;
        self.used_block_seconds += used * (now_s - self.changed_at_s);
        self.changed_at_s = now_s;
    }

    /// Mean share of blocks in use from time zero to `end_s`.
    pub(crate) fn utilization(&mut self, end_s: f64) -> f64 {
        self.integrate(end_s.max(self.changed_at_s));
        if end_s > 0.0 && self.total > 0 {
            self.used_block_seconds / (self.total as f64 * end_s)
        } else {
            0.0
        }
    }
}
