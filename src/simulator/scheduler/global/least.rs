//! The least of many loads: a tournament tree. Reading is O(1), changing one
//! load O(log n); ties go to the lowest index.

#[derive(Debug)]
pub(crate) struct LeastLoaded {
    leaves: usize,
    loads: Vec<u64>,
    /// Winner of each subtree; `winners[1]` is the overall one.
    winners: Vec<u32>,
}

impl LeastLoaded {
    pub(crate) fn new(count: u32) -> Self {
        let leaves = (count as usize).next_power_of_two();
        let mut loads = vec![u64::MAX; leaves];
        loads[..count as usize].fill(0);
        let mut tree = Self {
            leaves,
            loads,
            winners: vec![0; leaves.max(2)],
        };
        for node in (1..leaves).rev() {
            tree.winners[node] = tree.winner_of(node);
        }
        tree
    }

    pub(crate) fn least(&self) -> u32 {
        self.winners[1]
    }

    pub(crate) fn load(&self, index: u32) -> u64 {
        self.loads[index as usize]
    }

    pub(crate) fn change(&mut self, index: u32, update: impl FnOnce(u64) -> u64) {
        let load = &mut self.loads[index as usize];
        *load = update(*load);
        let mut node = (self.leaves + index as usize) / 2;
        while node >= 1 {
            let winner = self.winner_of(node);
            // The same one with the same load as before: so it is further up.
            if self.winners[node] == winner && winner != index {
                break;
            }
            self.winners[node] = winner;
            node /= 2;
        }
    }

    fn winner_of(&self, node: usize) -> u32 {
        if self.leaves == 1 {
            return 0;
        }
        let child = |child: usize| {
            if child >= self.leaves {
                (child - self.leaves) as u32
            } else {
                self.winners[child]
            }
        };
        let (left, right) = (child(2 * node), child(2 * node + 1));
        if self.loads[right as usize] < self.loads[left as usize] {
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
            count in 1u32..40,
            changes in proptest::collection::vec((0u32..40, 0u64..5), 0..100),
        ) {
            let mut tree = LeastLoaded::new(count);
            let mut loads = vec![0u64; count as usize];
            for (index, load) in changes {
                let index = index % count;
                tree.change(index, |_| load);
                loads[index as usize] = load;
                let least = loads.iter().min().copied();
                let first = loads.iter().position(|&load| Some(load) == least);
                prop_assert_eq!(Some(tree.least() as usize), first);
            }
        }
    }
}
