//! The least of many keys: a tournament tree. Reading is O(1), changing one key
//! O(log n); ties go to the lowest index.

/// Keys by index, and the least of them.
#[derive(Debug)]
pub(crate) struct Tournament<K> {
    /// A power of two of them, those beyond the count never less than others.
    keys: Vec<K>,
    /// Winner of each subtree: `winners[1]` is the overall one, those of `node` come
    /// from `2 * node` and the next, and the second half are the leaves.
    winners: Vec<u32>,
}

impl<K: Copy + Ord> Tournament<K> {
    /// `count` keys, all `first`; none will be greater than `greatest`.
    pub(crate) fn new(count: usize, first: K, greatest: K) -> Self {
        let leaves = count.next_power_of_two();
        let mut keys = vec![greatest; leaves];
        keys[..count].fill(first);
        let leaf = |node: usize| node.saturating_sub(leaves) as u32;
        let mut tree = Self {
            keys,
            winners: (0..2 * leaves).map(leaf).collect(),
        };
        for node in (1..leaves).rev() {
            tree.winners[node] = tree.winner_of(node);
        }
        tree
    }

    /// Index of the least key.
    #[inline]
    pub(crate) fn least(&self) -> u32 {
        self.winners[1]
    }

    /// The least key.
    #[inline]
    pub(crate) fn least_key(&self) -> K {
        self.keys[self.least() as usize]
    }

    #[inline]
    pub(crate) fn key(&self, index: u32) -> K {
        self.keys[index as usize]
    }

    #[inline]
    pub(crate) fn set(&mut self, index: u32, key: K) {
        self.keys[index as usize] = key;
        let mut node = (self.keys.len() + index as usize) / 2;
        while node >= 1 {
            let winner = self.winner_of(node);
            if winner != index && self.winners[node] == winner {
                // It neither won here before nor does now: nothing changes above.
                break;
            }
            self.winners[node] = winner;
            node /= 2;
        }
    }

    #[inline]
    fn winner_of(&self, node: usize) -> u32 {
        let [left, right] = [self.winners[2 * node], self.winners[2 * node + 1]];
        if self.keys[right as usize] < self.keys[left as usize] {
            right
        } else {
            left
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn least_is_the_first_minimum(
            count in 1usize..40,
            changes in proptest::collection::vec((0usize..40, 0u64..5), 0..100),
        ) {
            let mut tree = Tournament::new(count, 0, u64::MAX);
            let mut keys = vec![0u64; count];
            for (index, key) in changes {
                let index = index % count;
                tree.set(index as u32, key);
                keys[index] = key;
                let least = keys.iter().min().copied();
                let first = keys.iter().position(|&key| Some(key) == least);
                prop_assert_eq!(Some(tree.least() as usize), first);
                prop_assert_eq!(Some(tree.least_key()), least);
                prop_assert_eq!(tree.key(index as u32), key);
            }
        }
    }
}
