//! The order in which CPython iterates over a set of small integers: that of its
//! hash table. Vidur wakes replicas in this order, which numbers their batches.

/// `ids`, without repetition, in the order a set they were added to has.
pub(crate) fn iteration_order(ids: &[u32]) -> Vec<u32> {
    let mut table = vec![None; 8];
    let mut used = 0;
    for &id in ids {
        if !insert(&mut table, id) {
            continue;
        }
        used += 1;
        let mask = table.len() - 1;
        if used * 5 >= mask * 3 {
            let wanted = if used > 50_000 { used * 2 } else { used * 4 };
            let mut size = 8;
            while size <= wanted {
                size *= 2;
            }
            let mut larger = vec![None; size];
            for id in table.into_iter().flatten() {
                insert(&mut larger, id);
            }
            table = larger;
        }
    }
    table.into_iter().flatten().collect()
}

/// Puts `id` into the first free slot of its probe sequence; `false` if it is there.
fn insert(table: &mut [Option<u32>], id: u32) -> bool {
    const LINEAR_PROBES: usize = 9;
    let mask = table.len() - 1;
    let mut perturb = id as usize;
    let mut slot = id as usize & mask;
    loop {
        let probes = if slot + LINEAR_PROBES <= mask {
            LINEAR_PROBES
        } else {
            0
        };
        for entry in &mut table[slot..=slot + probes] {
            match *entry {
                None => {
                    *entry = Some(id);
                    return true;
                }
                Some(other) if other == id => return false,
                Some(_) => {}
            }
        }
        perturb >>= 5;
        slot = (slot * 5 + 1 + perturb) & mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CPython 3.11 iterates.
    #[test]
    fn collisions_keep_the_order_of_insertion() {
        assert_eq!(iteration_order(&[9, 1]), [9, 1]);
        assert_eq!(iteration_order(&[1, 9]), [1, 9]);
        assert_eq!(iteration_order(&[3, 0, 2, 3]), [0, 2, 3]);
        assert_eq!(
            iteration_order(&[17, 1, 33, 9, 25, 2]),
            [1, 33, 2, 9, 17, 25]
        );
        assert_eq!(
            iteration_order(&[40, 8, 16, 24, 0, 32, 3, 11]),
            [0, 32, 3, 40, 8, 11, 16, 24]
        );
        let all: Vec<u32> = (0..20).rev().collect();
        assert_eq!(iteration_order(&all), (0..20).collect::<Vec<_>>());
    }
}
