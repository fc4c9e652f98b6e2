//! Splitwise's mixed pool (Patel et al., ISCA '24, section IV): where the queue of
//! prompts is too long or the decode replicas' memory is full, a replica of the
//! other pool helps out, batching both phases, and returns to its own when it has
//! no such work left.
//!
//! A prompt that runs on a decode replica stays there to decode. A cache goes to a
//! prefill replica only if there is room for it at once. So nobody waits for room
//! on a prefill replica, a decode replica waits for nobody, and replicas cannot
//! end up waiting for each other.

use crate::number::narrow;
use crate::simulator::config::MixedPoolConfig;

/// What routing looks at of a replica, for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// KV cache blocks in use or promised, without the request.
    pub used_blocks: u64,
    /// Blocks the request would take in addition.
    pub needed_blocks: u64,
    /// All blocks.
    pub total_blocks: u64,
    /// Whether the request can run here up to its end.
    pub is_able: bool,
    /// Whether its cache can be taken at once.
    pub has_room: bool,
}

impl Candidate {
    fn pressure(&self) -> f64 {
        self.used_blocks as f64 / self.total_blocks as f64
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Machine {
    pending_prompt_tokens: u64,
    /// Requests it has in the phase its pool is not there for: it is in the mixed
    /// pool while it has any.
    helped_requests: u32,
}

/// Routes prompts and decodes among all replicas.
#[derive(Debug)]
pub(crate) struct MixedPool {
    config: MixedPoolConfig,
    machines: Vec<Machine>,
    /// Replicas below belong to the prefill pool, the others to the decode pool.
    first_decode: u32,
}

impl MixedPool {
    pub(crate) fn new(config: MixedPoolConfig, prefill: u32, decode: u32) -> Self {
        Self {
            config,
            machines: vec![Machine::default(); (prefill + decode) as usize],
            first_decode: prefill,
        }
    }

    /// Whether a replica helps out at present.
    pub(crate) fn mixes(&self, replica: u32) -> bool {
        self.machines[replica as usize].helped_requests > 0
    }

    fn is_decode(&self, replica: u32) -> bool {
        replica >= self.first_decode
    }

    fn all(&self) -> std::ops::Range<u32> {
        0..narrow::<u32, _>(self.machines.len())
    }

    fn prefill_pool(&self) -> impl Iterator<Item = u32> {
        (0..self.first_decode).filter(|&replica| !self.mixes(replica))
    }

    fn decode_pool(&self) -> impl Iterator<Item = u32> {
        (self.first_decode..narrow::<u32, _>(self.machines.len()))
            .filter(|&replica| !self.mixes(replica))
    }

    fn mixed_pool(&self) -> impl Iterator<Item = u32> {
        self.all().filter(|&replica| self.mixes(replica))
    }

    /// Gives a prompt of `tokens` to a replica. `candidate` tells of decode replicas.
    pub(crate) fn route_prompt(
        &mut self,
        tokens: u64,
        candidate: impl Fn(u32) -> Candidate,
    ) -> u32 {
        let chosen = self.choose_for_prompt(tokens, candidate);
        let helps = self.is_decode(chosen);
        let machine = &mut self.machines[chosen as usize];
        machine.pending_prompt_tokens += tokens;
        machine.helped_requests += u32::from(helps);
        chosen
    }

    fn choose_for_prompt(&self, tokens: u64, candidate: impl Fn(u32) -> Candidate) -> u32 {
        let pending = |replica: &u32| self.machines[*replica as usize].pending_prompt_tokens;
        let is_short = |replica: &u32| {
            let pending = pending(replica);
            pending == 0 || pending + tokens <= self.config.max_pending_prompt_tokens
        };
        let is_able = |replica: &u32| !self.is_decode(*replica) || candidate(*replica).is_able;
        let own = self.prefill_pool().min_by_key(pending).filter(is_short);
        let mixed = || {
            let able = self.mixed_pool().filter(is_able);
            able.min_by_key(pending).filter(is_short)
        };
        let taken = || least_pressed(self.decode_pool().filter(is_able), &candidate);
        // With everybody overloaded: as if there were no pools.
        let any = || self.all().filter(is_able).min_by_key(pending);
        own.or_else(mixed).or_else(taken).or_else(any).unwrap_or(0)
    }

    /// Chooses where a request whose prompt is on `sender` decodes. `candidate` tells
    /// of any replica.
    pub(crate) fn route_decode(
        &mut self,
        sender: u32,
        candidate: impl Fn(u32) -> Candidate,
    ) -> u32 {
        if self.is_decode(sender) {
            return sender;
        }
        let chosen = self.choose_for_decode(sender, candidate);
        let helps = !self.is_decode(chosen);
        self.machines[chosen as usize].helped_requests += u32::from(helps);
        chosen
    }

    fn choose_for_decode(&self, sender: u32, candidate: impl Fn(u32) -> Candidate) -> u32 {
        let is_free = |replica: &u32| {
            let candidate = candidate(*replica);
            let blocks = candidate.used_blocks + candidate.needed_blocks;
            blocks as f64 <= self.config.max_kv_cache_fraction * candidate.total_blocks as f64
        };
        let takes = |replica: &u32| {
            let candidate = candidate(*replica);
            self.is_decode(*replica) || (candidate.is_able && candidate.has_room)
        };
        let own = least_pressed(self.decode_pool(), &candidate).filter(is_free);
        let mixed = || least_pressed(self.mixed_pool().filter(takes), &candidate).filter(is_free);
        let taken = || least_pressed(self.prefill_pool().filter(takes), &candidate);
        // With everybody overloaded: as if there were no pools, or wait.
        let here = || candidate(sender).is_able.then_some(sender);
        let any = || {
            least_pressed(
                self.first_decode..narrow::<u32, _>(self.machines.len()),
                &candidate,
            )
        };
        (own.or_else(mixed).or_else(taken).or_else(here).or_else(any)).unwrap_or(self.first_decode)
    }

    /// A prompt of `tokens` has been processed on `replica`.
    pub(crate) fn prompt_done(&mut self, replica: u32, tokens: u64) {
        let helped = self.is_decode(replica);
        let machine = &mut self.machines[replica as usize];
        machine.pending_prompt_tokens -= tokens;
        machine.helped_requests -= u32::from(helped);
    }

    /// A request that was to decode on `replica` has all its tokens.
    pub(crate) fn decode_done(&mut self, replica: u32) {
        let helped = !self.is_decode(replica);
        self.machines[replica as usize].helped_requests -= u32::from(helped);
    }
}

/// The first of those with the least of their memory in use or promised.
fn least_pressed(
    replicas: impl Iterator<Item = u32>,
    candidate: &impl Fn(u32) -> Candidate,
) -> Option<u32> {
    let pressure = |replica: u32| (candidate(replica).pressure(), replica);
    let least = replicas.map(pressure).min_by(|a, b| a.0.total_cmp(&b.0));
    least.map(|(_, replica)| replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(prefill: u32, decode: u32) -> MixedPool {
        let config = MixedPoolConfig {
            max_pending_prompt_tokens: 1000,
            max_kv_cache_fraction: 1.0,
        };
        MixedPool::new(config, prefill, decode)
    }

    /// A replica of 100 blocks of which so many are taken; a request takes 10.
    fn with(used: &[u64]) -> impl Fn(u32) -> Candidate {
        |replica| Candidate {
            used_blocks: used[replica as usize],
            needed_blocks: 10,
            total_blocks: 100,
            is_able: true,
            has_room: used[replica as usize] <= 90,
        }
    }

    #[test]
    fn prompts_overflow_to_the_mixed_pool_then_to_decode_replicas_and_those_return() {
        let mut pool = pool(2, 2);
        let load = with(&[0, 0, 50, 20]);
        // Shortest queue first, whatever the prompt's length if it is empty.
        assert_eq!(pool.route_prompt(2000, &load), 0);
        assert_eq!(pool.route_prompt(600, &load), 1);
        assert_eq!(pool.route_prompt(400, &load), 1);
        // Replica 1 would have 1,001 tokens: the decode replica with most memory.
        assert_eq!(pool.route_prompt(1, &load), 3);
        assert!(pool.mixes(3) && !pool.mixes(2));
        // It takes more before another is drawn in.
        assert_eq!(pool.route_prompt(999, &load), 3);
        assert_eq!(pool.route_prompt(500, &load), 2);
        assert_eq!(pool.route_prompt(501, &load), 2, "fewest pending of all");
        pool.prompt_done(3, 1);
        assert!(pool.mixes(3));
        pool.prompt_done(3, 999);
        assert!(!pool.mixes(3));
    }

    #[test]
    fn decodes_overflow_to_prefill_replicas_with_room() {
        let mut pool = pool(3, 1);
        assert_eq!(pool.route_decode(0, with(&[50, 20, 10, 90])), 3);
        assert_eq!(pool.route_decode(0, with(&[50, 20, 10, 91])), 2);
        assert!(pool.mixes(2));
        // Of the mixed pool before another is drawn in.
        assert_eq!(pool.route_decode(0, with(&[50, 0, 90, 91])), 2);
        assert_eq!(pool.route_decode(0, with(&[50, 0, 95, 91])), 1);
        // Nobody has room: where its cache is.
        assert_eq!(pool.route_decode(0, with(&[99, 99, 99, 99])), 0);
        for replica in [2, 2, 1, 0] {
            assert!(pool.mixes(replica));
            pool.decode_done(replica);
        }
        assert!((0..4).all(|replica| !pool.mixes(replica)));
    }

    #[test]
    fn what_runs_on_a_decode_replica_stays_there() {
        let mut pool = pool(1, 2);
        assert_eq!(pool.route_decode(2, with(&[0, 0, 100])), 2);
        assert!(!pool.mixes(2));
    }

    #[test]
    fn replicas_that_cannot_run_a_request_are_not_drawn_in() {
        let mut pool = pool(1, 1);
        let unable = |replica| Candidate {
            is_able: false,
            ..with(&[100, 100])(replica)
        };
        assert_eq!(pool.route_prompt(900, unable), 0);
        assert_eq!(pool.route_prompt(900, unable), 0);
        assert_eq!(pool.route_decode(0, unable), 1);
    }
}
