//! Prompt chunks over attention data-parallel ranks.

use super::memo::ChunkShape;
use crate::execution_time::PrefillChunk;

/// Chunks by rank, each rank's longest first. Reused: holds its memory.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    sorted: Vec<PrefillChunk>,
    /// Rank of each sorted chunk.
    owner: Vec<u32>,
    tokens: Vec<u32>,
    by_rank: Vec<PrefillChunk>,
}

impl Ranks {
    /// Spreads `chunks` over `ranks`: longest first to the rank with the fewest
    /// tokens, the first of equals.
    pub(super) fn assign(&mut self, chunks: &[PrefillChunk], ranks: u32) {
        self.sorted.clear();
        self.sorted.extend_from_slice(chunks);
        self.sorted.sort_unstable_by_key(|chunk| {
            std::cmp::Reverse((chunk.new_tokens, chunk.context_tokens))
        });
        self.tokens.clear();
        self.tokens.resize(ranks as usize, 0);
        self.owner.clear();
        for chunk in &self.sorted {
            let lightest = (0..self.tokens.len())
                .min_by_key(|&rank| self.tokens[rank])
                .unwrap_or(0);
            self.tokens[lightest] += chunk.new_tokens;
            self.owner.push(lightest as u32);
        }
        self.by_rank.clear();
        for rank in 0..ranks {
            let owned = self.sorted.iter().zip(&self.owner);
            let owned = owned.filter(|(_, owner)| **owner == rank);
            self.by_rank.extend(owned.map(|(chunk, _)| *chunk));
        }
    }

    /// Every rank's chunks and their tokens.
    pub(super) fn loads(&self) -> impl Iterator<Item = (&[PrefillChunk], u32)> {
        let mut rest = self.by_rank.as_slice();
        self.tokens.iter().enumerate().map(move |(rank, tokens)| {
            let owned = |owner: &&u32| **owner == rank as u32;
            let (mine, others) = rest.split_at(self.owner.iter().filter(owned).count());
            rest = others;
            (mine, *tokens)
        })
    }
}

/// Runs of equal chunks.
pub(super) fn groups(chunks: &[PrefillChunk]) -> impl Iterator<Item = ChunkShape> {
    chunks.chunk_by(|a, b| a == b).map(|equal| ChunkShape {
        batch: equal.len() as u32,
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

    #[test]
    fn longest_first_to_the_least_loaded() {
        let mut ranks = Ranks::default();
        ranks.assign(&[chunk(10), chunk(70), chunk(40), chunk(30)], 2);
        let loads: Vec<_> = ranks.loads().map(|(c, t)| (c.to_vec(), t)).collect();
        assert_eq!(loads[0], (vec![chunk(70), chunk(10)], 80));
        assert_eq!(loads[1], (vec![chunk(40), chunk(30)], 70));
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        let mut ranks = Ranks::default();
        let mut seen = Vec::new();
        for chunks in [
            [chunk(5), chunk(9), chunk(5)],
            [chunk(9), chunk(5), chunk(5)],
        ] {
            ranks.assign(&chunks, 1);
            let shapes: Vec<_> = ranks.loads().flat_map(|(c, _)| groups(c)).collect();
            seen.push(shapes);
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0].len(), 2);
        assert_eq!(seen[0][1].batch, 2);
    }

    #[test]
    fn ranks_may_be_idle() {
        let mut ranks = Ranks::default();
        ranks.assign(&[chunk(3)], 4);
        let tokens: Vec<_> = ranks.loads().map(|(_, tokens)| tokens).collect();
        assert_eq!(tokens, [3, 0, 0, 0]);
    }
}
