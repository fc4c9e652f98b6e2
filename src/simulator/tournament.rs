//! The least of many keys: a tournament tree. Reading is O(1), changing one key
//! O(log n); ties go to the lowest index.
use crate::number::narrow;

/// Keys by index, and the least of them.
#[derive(Debug)]
pub(crate) struct Tournament<K> {
    /// A power of two.
    leaves: usize,
    /// Winners of the two subtrees of every inner node: those of `node` are its
    /// children `2 * node` and the next, node 1 is the root, and the leaves come after
    /// all inner nodes.
    pairs: Vec<[Winner<K>; 2]>,
    least: Winner<K>,
}

/// A key and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Winner<K> {
    index: u32,
    key: K,
}

impl<K: Copy + Ord> Tournament<K> {
    /// `count` keys, all `first`; none will be greater than `greatest`.
    pub(crate) fn new(count: usize, first: K, greatest: K) -> Self {
        let leaves = count.next_power_of_two();
        let leaf = |index: usize| Winner {
            index: narrow::<u32, _>(index),
            key: if index < count { first } else { greatest },
        };
        let mut pairs = vec![[leaf(0); 2]; leaves];
        for node in (1..leaves).rev() {
            let child = |child: usize| match child.checked_sub(leaves) {
                Some(index) => leaf(index),
                None => winner(&pairs[child]),
            };
            pairs[node] = [child(2 * node), child(2 * node + 1)];
        }
        Self {
            leaves,
            pairs,
            least: leaf(0),
        }
    }

    /// Index of the least key.
    #[inline]
    pub(crate) fn least(&self) -> u32 {
        self.least.index
    }

    /// The least key.
    #[inline]
    pub(crate) fn least_key(&self) -> K {
        self.least.key
    }

    #[inline]
    pub(crate) fn key(&self, index: u32) -> K {
        match self.leaves {
            1 => self.least.key,
            leaves => {
                let leaf = leaves + index as usize;
                self.pairs[leaf / 2][leaf % 2].key
            }
        }
    }

    #[inline]
    pub(crate) fn set(&mut self, index: u32, key: K) {
        let mut present = Winner { index, key };
        let mut node = self.leaves + index as usize;
        while node > 1 {
            let pair = &mut self.pairs[node / 2];
            if pair[node % 2] == present {
                // Nothing changes above.
                return;
            }
            pair[node % 2] = present;
            present = winner(pair);
            node /= 2;
        }
        self.least = present;
    }
}

#[inline]
fn winner<K: Copy + Ord>(&[left, right]: &[Winner<K>; 2]) -> Winner<K> {
    if right.key < left.key { right } else { left }
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
