//! How much more than its share the GPU with the busiest experts gets.
//!
//! Experts have popularities; GPUs have slots. A hot expert may have several
//! replicas, which share its tokens evenly. Decides what
//! [`super::operator::ExpertLoad::Uneven`] says.

/// Popularity of experts that falls as rank^-alpha, capped where a token would
/// visit an expert more than once; sums to 1. Ranks are scattered over the
/// experts, as nothing ties popularity to position.
pub fn power_law(alpha: f64, experts: u32, experts_per_token: u32) -> Vec<f64> {
    let count = experts as usize;
    let mut by_rank: Vec<f64> = (1..=experts)
        .map(|rank| f64::from(rank).powf(-alpha))
        .collect();
    cap(&mut by_rank, 1.0 / f64::from(experts_per_token.max(1)));
    // A stride near the golden section that meets every expert.
    let mut stride = (f64::from(experts) * 0.618) as usize | 1;
    while gcd(stride, count) != 1 {
        stride += 2;
    }
    let mut scattered = vec![0.0; count];
    for (rank, popularity) in by_rank.into_iter().enumerate() {
        scattered[rank * stride % count] = popularity;
    }
    scattered
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

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// [`busiest_factor`] of a power law without redundant experts.
pub fn power_law_factor(alpha: f64, experts: u32, experts_per_token: u32, gpus: u32) -> f64 {
    busiest_factor(&power_law(alpha, experts, experts_per_token), gpus, 0)
}

/// Load of the busiest of `gpus` over the mean. Without `redundant` experts they
/// lie in order; with some, each goes to the expert with the most load per
/// replica, and replicas are placed largest first on the least loaded GPU with a
/// free slot.
pub fn busiest_factor(popularity: &[f64], gpus: u32, redundant: u32) -> f64 {
    let total: f64 = popularity.iter().sum();
    if gpus <= 1 || total <= 0.0 {
        return 1.0;
    }
    let gpus = gpus as usize;
    let loads = if redundant == 0 {
        let slots = popularity.len().div_ceil(gpus);
        popularity
            .chunks(slots)
            .map(|own| own.iter().sum())
            .collect()
    } else {
        place(&replicate(popularity, redundant), gpus)
    };
    let busiest = loads.iter().copied().fold(0.0, f64::max);
    (busiest * gpus as f64 / total).max(1.0)
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
        let hot = power_law(1.01, 256, 8);
        let plain = busiest_factor(&hot, 32, 0);
        let helped = busiest_factor(&hot, 32, 32);
        assert!(helped < 1.3 && plain > 2.0, "{plain} {helped}");
    }
}
