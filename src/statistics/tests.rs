//! Error rates of verdicts and coverage of intervals, measured on queues with known
//! answers. A small part runs with the tests; the tables of `docs/statistics.md` come from
//!
//! ```sh
//! VIDUR_SWEEP_STATISTICS_CAMPAIGN=1000 cargo test --release --lib statistics::tests -- --nocapture
//! ```

use super::growth::{LoadEvidence, LoadVerdict};
use super::quantile::{Quantiles, Sample};
use super::queues::{KINDS, Kind, Queue, true_wait};
use super::{batch_means, length, warm_up};

/// Runs per line of a table, if a campaign was asked for.
fn campaign() -> Option<u64> {
    let runs = std::env::var("VIDUR_SWEEP_STATISTICS_CAMPAIGN").ok()?;
    Some(runs.parse().expect("a number of runs"))
}

/// Requests of the longest run.
const MOST_REQUESTS: usize = 2_000_000;

fn verdict(queue: &Queue, dropped: usize, waits_s: &[f64]) -> LoadVerdict {
    let evidence = LoadEvidence::new(
        &queue.arrivals_s,
        &queue.begins_s,
        &queue.ends_s,
        queue.arrivals_s[dropped],
        queue.now_s(),
    );
    let is_known =
        || length::mean_is_known(waits_s) && Quantiles::new(&Sample::new(waits_s)).is_known(0.99);
    evidence.verdict(evidence.is_bounded() && is_known())
}

#[derive(Debug, Default)]
struct Coverage {
    verdicts: usize,
    saturated: usize,
    mean: usize,
    p99: usize,
    lengths: Vec<usize>,
}

/// One run, extended until it has a verdict.
fn extended_run(kind: Kind, load: f64, seed: u64, coverage: &mut Coverage) {
    let (true_mean, true_p99) = true_wait(kind, load);
    let mut queue = Queue::new(kind, load, seed);
    let mut requests = 500;
    loop {
        queue.extend(requests);
        let waits_s = queue.waits_s();
        let dropped = warm_up::mser5(&waits_s).dropped;
        let measured = &waits_s[dropped..];
        match verdict(&queue, dropped, measured) {
            LoadVerdict::Stable => {
                let mean = batch_means::mean(measured).interval;
                let p99 = Quantiles::new(&Sample::new(measured)).quantile(0.99);
                let covers = |low, truth, high| usize::from(low <= truth && truth <= high);
                coverage.verdicts += 1;
                coverage.mean += covers(mean.low, true_mean, mean.high);
                coverage.p99 += covers(p99.low, true_p99, p99.high);
                coverage.lengths.push(requests);
                return;
            }
            LoadVerdict::Saturated => {
                coverage.saturated += 1;
                return;
            }
            LoadVerdict::TooShort if requests >= MOST_REQUESTS => return,
            LoadVerdict::TooShort => requests = (requests * 3 / 2).min(MOST_REQUESTS),
        }
    }
}

fn coverage(kind: Kind, load: f64, runs: u64) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in 0..runs {
        extended_run(kind, load, seed, &mut coverage);
    }
    coverage.lengths.sort_unstable();
    coverage
}

#[test]
fn intervals_of_extended_runs_cover_the_truth() {
    let (loads, runs): (&[f64], u64) = match campaign() {
        Some(runs) => (&[0.5, 0.8, 0.95], runs),
        None => (&[0.5], 60),
    };
    for kind in [Kind::Markov, Kind::ConstantService] {
        for &load in loads {
            let found = coverage(kind, load, runs);
            let median = found.lengths.get(found.lengths.len() / 2);
            println!(
                "| {kind:?} | {load} | {} of {runs} | {} | {} | {median:?} |",
                found.verdicts, found.mean, found.p99
            );
            assert_eq!(found.saturated, 0);
            assert!(found.verdicts as f64 >= 0.9 * runs as f64);
            // Four standard errors below 93 % of a small number of runs.
            let share = if campaign().is_some() { 0.9 } else { 0.8 };
            let least = share * found.verdicts as f64;
            assert!(
                found.mean as f64 >= least && found.p99 as f64 >= least,
                "{found:?}"
            );
        }
    }
}

#[test]
fn verdicts_of_runs_of_any_length_are_not_wrong() {
    let lengths: &[usize] = match campaign() {
        Some(_) => &[
            50, 100, 200, 500, 1000, 2000, 5000, 20_000, 100_000, 1_000_000,
        ],
        None => &[50, 100, 500, 2000],
    };
    for kind in KINDS {
        for load in [0.5, 0.9, 1.1, 2.0] {
            for &requests in lengths {
                let runs = match campaign() {
                    Some(runs) => (runs * 2000 / requests.max(2000) as u64).max(10),
                    None => 20,
                };
                let (mut stable, mut saturated) = (0, 0);
                for seed in 0..runs {
                    let mut queue = Queue::new(kind, load, seed);
                    queue.extend(requests);
                    match verdict(&queue, 0, &queue.waits_s()) {
                        LoadVerdict::Stable => stable += 1,
                        LoadVerdict::Saturated => saturated += 1,
                        LoadVerdict::TooShort => {}
                    }
                }
                println!("| {kind:?} | {load} | {requests} | {runs} | {stable} | {saturated} |");
                let wrong = if load < 1.0 { saturated } else { stable };
                // At most 2 of 100 verdicts; one alone among so many lines is chance.
                assert!(wrong <= 1.max((stable + saturated) / 50));
            }
        }
    }
}

/// The doc of [`super::growth`]: the time average of the absolute value of Brownian
/// motion on `[0, 1]` is hardly ever below [`super::growth::BOUNDED_LEVEL`].
#[test]
fn a_critical_backlog_is_seldom_small() {
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let (runs, steps) = (4000, 400);
    let mut averages: Vec<f64> = (0..runs)
        .map(|_| {
            let (mut place, mut sum) = (0.0_f64, 0.0);
            for _ in 0..steps {
                let step: f64 = StandardNormal.sample(&mut rng);
                place += step;
                sum += place.abs();
            }
            sum / f64::from(steps).powf(1.5)
        })
        .collect();
    averages.sort_unstable_by(f64::total_cmp);
    // 40,000 walks of 4,000 steps: none below 0.1, 1 % below 0.149, half below 0.451.
    assert!(
        averages[0] > super::growth::BOUNDED_LEVEL,
        "{}",
        averages[0]
    );
    assert!((averages[runs / 100] - 0.149).abs() < 0.02);
    assert!((averages[runs / 2] - 0.451).abs() < 0.02);
}
