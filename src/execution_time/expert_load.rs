//! How much more than its share the GPU with the busiest experts gets.
//!
//! Experts have popularities; GPUs have slots. A hot expert may have several
//! replicas, which share its tokens evenly. Decides what
//! [`super::operator::ExpertLoad::Uneven`] says.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::number::whole_usize;

/// Scatterings of popular experts over GPUs that a power law's load is averaged
/// over: every layer has an order of its own.
const SCATTERINGS: u64 = 64;
/// Exponents up to which a power law is tabulated; a token visits no expert twice,
/// so what is steeper spreads tokens no differently.
const STEEPEST: f64 = 10.0;
/// Exponents tabulated per unit.
const EXPONENTS_PER_UNIT: usize = 10;

/// Popularity of experts by rank that falls as rank^-alpha, capped where a token
/// would visit an expert more than once; sums to 1.
pub fn power_law(alpha: f64, experts: u32, experts_per_token: u32) -> Vec<f64> {
    let mut by_rank: Vec<f64> = (1..=experts)
        .map(|rank| f64::from(rank).powf(-alpha))
        .collect();
    cap(&mut by_rank, 1.0 / f64::from(experts_per_token.max(1)));
    by_rank
}

/// Makes `shares`, which fall, sum to 1 with none above `most`.
fn cap(shares: &mut [f64], most: f64) {
    for capped in 0..shares.len() {
        let left = 1.0 - most * capped as f64;
        let sum: f64 = shares[capped..].iter().sum();
        let scale = left / sum;
        if shares[capped] * scale <= most {
            shares[..capped].fill(most);
            shares[capped..]
                .iter_mut()
                .for_each(|share| *share *= scale);
            return;
        }
    }
    let even = 1.0 / shares.len() as f64;
    shares.fill(even);
}

/// Experts of a layer, those a token visits, GPUs they are spread over, redundant
/// ones.
type Spread = [u32; 4];

/// Factors of power laws by exponent, one table per [`Spread`], each as far as anybody
/// has asked. What is in it depends on the key alone.
static FACTORS: LazyLock<Mutex<BTreeMap<Spread, Vec<f64>>>> = LazyLock::new(Mutex::default);

/// Load of the busiest of `gpus` over the mean when popularity falls as rank^-alpha.
/// Without `redundant` experts the ranks lie scattered, as nothing ties popularity
/// to position, and differently in every layer: the mean over many scatterings.
/// Never falls as `alpha` grows; straight lines between tabulated exponents.
pub fn power_law_factor(
    alpha: f64,
    experts: u32,
    experts_per_token: u32,
    gpus: u32,
    redundant: u32,
) -> f64 {
    if gpus <= 1 || experts == 0 {
        return 1.0;
    }
    let at = alpha.clamp(0.0, STEEPEST) * EXPONENTS_PER_UNIT as f64;
    let below = whole_usize(at).min(whole_usize(STEEPEST) * EXPONENTS_PER_UNIT - 1);
    let spread = [experts, experts_per_token, gpus, redundant];
    // Tables are whole whenever the lock is free, panic or not.
    let mut tables = FACTORS.lock().unwrap_or_else(PoisonError::into_inner);
    let table = tables.entry(spread).or_default();
    if table.len() < below + 2 {
        tabulate(table, below + 2, spread);
    }
    let weight = at - below as f64;
    table[below] + (table[below + 1] - table[below]) * weight
}

/// Adds factors of steeper laws to those in `table` until there are `count`. What a
/// steeper law may save because popular experts happen to lie apart is chance, and is
/// not counted.
fn tabulate(
    table: &mut Vec<f64>,
    count: usize,
    [experts, experts_per_token, gpus, redundant]: Spread,
) {
    let orders: Vec<Vec<u32>> = match redundant {
        0 => (0..SCATTERINGS)
            .map(|layer| scattering(experts, layer))
            .collect(),
        _ => Vec::new(),
    };
    for index in table.len()..count {
        let alpha = index as f64 / EXPONENTS_PER_UNIT as f64;
        let by_rank = power_law(alpha, experts, experts_per_token);
        let factor = if redundant == 0 {
            let factors = orders.iter().map(|order| {
                let popularity: Vec<f64> =
                    order.iter().map(|&rank| by_rank[rank as usize]).collect();
                busiest_factor(&popularity, gpus, 0)
            });
            factors.sum::<f64>() / SCATTERINGS as f64
        } else {
            busiest_factor(&by_rank, gpus, redundant)
        };
        let most = table.last().copied().unwrap_or(1.0);
        table.push(factor.max(most));
    }
}

/// An order of `experts` ranks, the same for the same `layer`.
fn scattering(experts: u32, layer: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..experts).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(layer));
    order
}

/// Load of the busiest of `gpus` over the mean. Without `redundant` experts they
/// lie in order; with some, each goes to the expert with the most load per
/// replica, and replicas are placed largest first on the least loaded GPU with a
/// free slot, or as half as many GPUs would have them, each in two, if that is
/// better.
pub fn busiest_factor(popularity: &[f64], gpus: u32, redundant: u32) -> f64 {
    let total: f64 = popularity.iter().sum();
    if gpus <= 1 || total <= 0.0 {
        return 1.0;
    }
    let busiest = if redundant == 0 {
        let slots = popularity.len().div_ceil(gpus as usize);
        let loads = popularity.chunks(slots).map(|own| own.iter().sum());
        loads.fold(0.0, f64::max)
    } else {
        busiest_placed(&replicate(popularity, redundant), gpus as usize)
    };
    (busiest * f64::from(gpus) / total).max(1.0)
}

/// Load of the busiest of `gpus` among which replicas are placed.
fn busiest_placed(replicas: &[f64], gpus: usize) -> f64 {
    let own = place(replicas, gpus).into_iter().fold(0.0, f64::max);
    if gpus.is_multiple_of(2) {
        own.min(busiest_placed(replicas, gpus / 2))
    } else {
        own
    }
}

/// Load of every replica, largest first.
fn replicate(popularity: &[f64], redundant: u32) -> Vec<f64> {
    let mut replicas = vec![1u32; popularity.len()];
    for _ in 0..redundant {
        let each = |expert: usize| popularity[expert] / f64::from(replicas[expert]);
        let hottest = (0..popularity.len()).max_by(|&a, &b| each(a).total_cmp(&each(b)));
        if let Some(hottest) = hottest {
            replicas[hottest] += 1;
        }
    }
    let mut loads: Vec<f64> = (popularity.iter().zip(&replicas))
        .flat_map(|(load, &count)| std::iter::repeat_n(load / f64::from(count), count as usize))
        .collect();
    loads.sort_by(|a, b| b.total_cmp(a));
    loads
}

fn place(replicas: &[f64], gpus: usize) -> Vec<f64> {
    let slots = replicas.len().div_ceil(gpus);
    let mut loads = vec![0.0f64; gpus];
    let mut used = vec![0; gpus];
    for load in replicas {
        let free = (0..gpus).filter(|&gpu| used[gpu] < slots);
        if let Some(gpu) = free.min_by(|&a, &b| loads[a].total_cmp(&loads[b])) {
            loads[gpu] += load;
            used[gpu] += 1;
        }
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_law_sums_to_one_and_no_token_visits_twice() {
        let shares = power_law(1.2, 128, 8);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(shares.iter().all(|share| *share <= 0.125 + 1e-12));
        assert_eq!(power_law(0.0, 4, 2), [0.25; 4]);
        assert_eq!(power_law(1.0, 2, 2), [0.5; 2], "every token visits all");
    }

    #[test]
    fn even_loads_have_no_busiest_gpu() {
        assert_eq!(busiest_factor(&[1.0; 64], 8, 0), 1.0);
        assert_eq!(busiest_factor(&[1.0; 64], 1, 0), 1.0);
        assert_eq!(busiest_factor(&[5.0, 1.0, 1.0, 1.0], 1, 3), 1.0);
    }

    #[test]
    fn experts_lie_in_order_until_replicas_are_placed() {
        let popularity = [6.0, 6.0, 2.0, 2.0];
        assert_eq!(busiest_factor(&popularity, 2, 0), 12.0 / 8.0);
        // Two replicas: 3, 3, 3, 3, 2, 2 in three slots each.
        assert_eq!(busiest_factor(&popularity, 2, 2), 1.0);
        let plain = power_law_factor(1.01, 256, 8, 32, 0);
        let helped = power_law_factor(1.01, 256, 8, 32, 32);
        assert!(helped < 1.3 && plain > 2.0, "{plain} {helped}");
    }

    #[test]
    fn factors_of_power_laws_never_fall_with_skew_nor_shares_grow_with_gpus() {
        for (experts, experts_per_token) in [(256, 8), (128, 8), (512, 10), (16, 1)] {
            for redundant in [0, 32] {
                let mut shares = vec![f64::INFINITY; 101];
                for gpus in [1, 2, 4, 8, 16] {
                    let factor = |alpha| {
                        power_law_factor(alpha, experts, experts_per_token, gpus, redundant)
                    };
                    let mut last = 1.0;
                    for (step, share) in shares.iter_mut().enumerate() {
                        let alpha = step as f64 * 0.0999;
                        let factor = factor(alpha);
                        assert!(
                            factor >= last * (1.0 - 1e-12),
                            "{experts} {redundant} {gpus} {alpha}"
                        );
                        last = factor;
                        let own = factor / f64::from(gpus);
                        assert!(
                            own <= *share * (1.0 + 1e-12),
                            "{experts} {redundant} {gpus}"
                        );
                        *share = own;
                    }
                    assert!(factor(10.0) <= f64::from(gpus) * (1.0 + 1e-12));
                    assert_eq!(factor(10.0), factor(11.0));
                }
            }
            let even = power_law_factor(0.0, experts, experts_per_token, 8, 0);
            assert!((even - 1.0).abs() < 1e-12, "{even}");
        }
    }
}
