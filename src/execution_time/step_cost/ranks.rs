//! Prompt chunks over attention data-parallel ranks.

use std::cell::RefCell;

use super::memo::ChunkShape;
use crate::execution_time::PrefillChunk;
use crate::number::narrow;

/// One rank's share of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RankLoad<'a> {
    /// Prompt chunks, equal ones side by side.
    pub(super) prefills: &'a [PrefillChunk],
    pub(super) prefill_tokens: u32,
    pub(super) decodes: u32,
    /// Mean keys a decode reads, its own included.
    pub(super) kv_tokens: f64,
}

/// The shares of a step: of every rank with prompt chunks, and of one of those
/// without, who all have the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares<'a> {
    idle: RankLoad<'a>,
    /// Chunks of the first rank, then of the next ...
    by_rank: &'a [PrefillChunk],
    /// ... and how many each has, with how many tokens.
    owned: &'a [(usize, u32)],
    has_idle: bool,
}

impl<'a> Shares<'a> {
    /// The one that takes longest, the first of equals; `time_s` is not asked if there
    /// is only one.
    #[inline]
    pub(super) fn longest(self, time_s: impl Fn(&RankLoad<'a>) -> f64) -> RankLoad<'a> {
        let mut shares = self.iter();
        let mut longest = shares.next().unwrap_or(self.idle);
        let mut longest_s = None;
        for share in shares {
            let share_s = time_s(&share);
            if share_s > *longest_s.get_or_insert_with(|| time_s(&longest)) {
                (longest, longest_s) = (share, Some(share_s));
            }
        }
        longest
    }

    #[inline]
    pub(super) fn iter(self) -> impl Iterator<Item = RankLoad<'a>> {
        let mut rest = self.by_rank;
        let busy = self.owned.iter().map(move |&(count, prefill_tokens)| {
            let (prefills, others) = rest.split_at(count);
            rest = others;
            RankLoad {
                prefills,
                prefill_tokens,
                ..self.idle
            }
        });
        busy.chain(self.has_idle.then_some(self.idle))
    }
}

thread_local! {
    /// Room to sort prompt chunks in, reused from step to step.
    static SCRATCH: RefCell<Ranks> = RefCell::new(Ranks::default());
}

/// Calls `with` with the shares of `ranks`, each of which has `decodes` that read
/// `kv_tokens` keys on the mean.
#[inline]
pub(super) fn with_shares<T>(
    chunks: &[PrefillChunk],
    ranks: u32,
    (decodes, kv_tokens): (u32, f64),
    with: impl FnOnce(Shares<'_>) -> T,
) -> T {
    let idle = RankLoad {
        prefills: &[],
        prefill_tokens: 0,
        decodes,
        kv_tokens,
    };
    let shares = |by_rank: &[_], owned: &[_]| {
        with(Shares {
            idle,
            by_rank,
            owned,
            has_idle: owned.len() < ranks as usize,
        })
    };
    match chunks {
        [] => shares(chunks, &[]),
        [chunk] => shares(chunks, &[(1, chunk.new_tokens)]),
        _ => SCRATCH.with_borrow_mut(|scratch| {
            scratch.assign(chunks, ranks);
            shares(&scratch.by_rank, &scratch.owned)
        }),
    }
}

/// Chunks by rank, each rank's longest first. Reused: holds its memory.
#[derive(Debug, Default)]
struct Ranks {
    sorted: Vec<PrefillChunk>,
    /// Rank of each sorted chunk.
    owner: Vec<u32>,
    /// Chunks and tokens of each rank that has any.
    owned: Vec<(usize, u32)>,
    by_rank: Vec<PrefillChunk>,
}

impl Ranks {
    /// Spreads `chunks` over `ranks`: longest first to the rank with the fewest
    /// tokens, the first of equals.
    fn assign(&mut self, chunks: &[PrefillChunk], ranks: u32) {
        self.sorted.clear();
        self.sorted.extend_from_slice(chunks);
        self.sorted.sort_unstable_by_key(|chunk| {
            std::cmp::Reverse((chunk.new_tokens, chunk.context_tokens))
        });
        self.owned.clear();
        self.owner.clear();
        for chunk in &self.sorted {
            let lightest = if self.owned.len() < ranks as usize {
                self.owned.push((0, 0));
                self.owned.len() - 1
            } else {
                let tokens = |&rank: &usize| self.owned[rank].1;
                (0..self.owned.len()).min_by_key(tokens).unwrap_or(0)
            };
            let (count, tokens) = &mut self.owned[lightest];
            *count += 1;
            *tokens += chunk.new_tokens;
            self.owner.push(narrow::<u32, _>(lightest));
        }
        self.by_rank.clear();
        if self.owned.len() == self.sorted.len() {
            return self.by_rank.extend_from_slice(&self.sorted);
        }
        for rank in 0..narrow::<u32, _>(self.owned.len()) {
            let owned = self.sorted.iter().zip(&self.owner);
            let owned = owned.filter(|(_, owner)| **owner == rank);
            self.by_rank.extend(owned.map(|(chunk, _)| *chunk));
        }
    }
}

/// Runs of equal chunks.
#[inline]
pub(super) fn groups(chunks: &[PrefillChunk]) -> impl Iterator<Item = ChunkShape> {
    chunks.chunk_by(|a, b| a == b).map(|equal| ChunkShape {
        batch: narrow::<u32, _>(equal.len()),
        new_tokens: equal[0].new_tokens,
        context_tokens: equal[0].context_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(new_tokens: u32) -> PrefillChunk {
        PrefillChunk {
            new_tokens,
            context_tokens: 0,
        }
    }

    /// Chunks of each rank that has any, their tokens, and whether others have none.
    fn spread(chunks: &[PrefillChunk], ranks: u32) -> Vec<(Vec<PrefillChunk>, u32)> {
        let of = |load: RankLoad<'_>| (load.prefills.to_vec(), load.prefill_tokens);
        with_shares(chunks, ranks, (2, 7.0), |shares| {
            shares.iter().map(of).collect()
        })
    }

    #[test]
    fn longest_first_to_the_least_loaded() {
        let loads = spread(&[chunk(10), chunk(70), chunk(40), chunk(30)], 2);
        let expected = [
            (vec![chunk(70), chunk(10)], 80),
            (vec![chunk(40), chunk(30)], 70),
        ];
        assert_eq!(loads, expected);
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        let one = spread(&[chunk(5), chunk(9), chunk(5)], 1);
        assert_eq!(one, spread(&[chunk(9), chunk(5), chunk(5)], 1));
        let shapes: Vec<_> = groups(&one[0].0).collect();
        assert_eq!(shapes.len(), 2);
        assert_eq!(shapes[1].batch, 2);
    }

    #[test]
    fn ranks_without_prompts_are_told_of_once() {
        let idle = (vec![], 0);
        assert_eq!(spread(&[], 4), std::slice::from_ref(&idle));
        let busy = (vec![chunk(3)], 3);
        assert_eq!(spread(&[chunk(3)], 1), std::slice::from_ref(&busy));
        assert_eq!(spread(&[chunk(3)], 4), [busy.clone(), idle.clone()]);
        let both = [chunk(3), chunk(3)];
        assert_eq!(spread(&both, 2), [busy.clone(), busy.clone()]);
        assert_eq!(spread(&both, 3), [busy.clone(), busy, idle]);
    }
}
