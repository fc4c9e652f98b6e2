//! KV cache blocks of one replica: a counter, not a map. Which block holds what
//! has no effect on time, so only how many are taken is kept.

use super::config::KvCacheSpec;
use crate::memory::WindowCache;
use crate::number::whole_u64;
use crate::units::Divisor;

/// Blocks of one replica, and the integral of their use over time.
#[derive(Debug, Clone)]
pub(crate) struct BlockPool {
    total: u64,
    free: u64,
    watermark: u64,
    /// Tokens of a block.
    block_size: Divisor,
    /// Layers that cache only the last tokens of a request.
    window: Option<WindowCache>,
    used_block_seconds: f64,
    changed_at_s: f64,
}

impl BlockPool {
    pub(crate) fn new(spec: KvCacheSpec, watermark_fraction: f64) -> Self {
        Self {
            total: spec.num_blocks,
            free: spec.num_blocks,
            watermark: whole_u64(watermark_fraction * spec.num_blocks as f64),
            block_size: Divisor::new(spec.block_size),
            window: spec.window,
            used_block_seconds: 0.0,
            changed_at_s: 0.0,
        }
    }

    /// Blocks that hold `tokens`, without what layers need that cache only some.
    #[inline]
    pub(crate) fn blocks_for(&self, tokens: u64) -> u64 {
        match self.window {
            Some(WindowCache { full_layers: 0, .. }) => 0,
            _ => self.block_size.div_ceil(tokens),
        }
    }

    /// Blocks beside those that layers need which cache only the last tokens of a
    /// request, when they hold as many as they ever will of one that ends with
    /// `tokens` in the cache.
    #[inline]
    pub(crate) fn window_blocks(&self, tokens: u64) -> u64 {
        let Some(window) = self.window else {
            return 0;
        };
        // A window that does not start with a block reaches into one more.
        let most = self.block_size.div_ceil(u64::from(window.tokens)) + 1;
        let held = self.block_size.div_ceil(tokens).min(most);
        match window.full_layers {
            0 => held,
            full => (held * u64::from(window.layers)).div_ceil(u64::from(full)),
        }
    }

    /// Tokens of the blocks that a request with `tokens` in the cache has, which ends
    /// with `final_tokens`.
    pub(crate) fn whole_blocks(&self, tokens: u64, final_tokens: u64) -> u64 {
        let blocks = self.blocks_for(tokens) + self.window_blocks(final_tokens);
        blocks * u64::from(self.block_size.get())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(tokens: u32, layers: u32, full_layers: u32) -> BlockPool {
        let window = WindowCache {
            tokens,
            layers,
            full_layers,
        };
        let spec = KvCacheSpec {
            num_blocks: 1000,
            block_size: 16,
            window: Some(window),
        };
        BlockPool::new(spec, 0.0)
    }

    #[test]
    fn windows_take_no_more_than_they_hold() {
        // gpt-oss-20b: as many local layers as others, windows of 128 tokens: 8
        // blocks, and one that the window only reaches into.
        let half = pool(128, 12, 12);
        for (tokens, blocks, window) in [(1, 1, 1), (100, 7, 7), (144, 9, 9), (9000, 563, 9)] {
            assert_eq!(half.blocks_for(tokens), blocks);
            assert_eq!(half.window_blocks(tokens), window, "{tokens}");
        }
        // Gemma-3-27b: 52 local layers beside 10 others.
        assert_eq!(
            pool(1024, 52, 10).window_blocks(5000),
            (65u64 * 52).div_ceil(10)
        );
        // Mistral-7B-v0.1: nothing beside them.
        let all = pool(4096, 32, 0);
        assert_eq!((all.blocks_for(9000), all.window_blocks(9000)), (0, 257));
        assert_eq!(all.window_blocks(100), 7);
    }
}
