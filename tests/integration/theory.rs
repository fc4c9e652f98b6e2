//! Figures of whole runs against queueing theory: means and percentiles of waiting, a
//! server that takes several at a time, how often intervals hold the truth, and how often
//! a verdict is wrong.

use std::env;

use rayon::prelude::*;
use serde_json::{Value, json};
use vidur_sweep::explore::{RunOne, Simulate};
use vidur_sweep::simulator::RunSummary;
use vidur_sweep::spec::{RequestOutput, RunConfig};
use vidur_sweep::statistics::{Interval, LoadVerdict};
use vidur_sweep::workload::WorkloadSource;

/// Mean service time, seconds, in all of these.
const SERVICE_S: f64 = 1.0;

/// A server of one request at a time at this load, service times being all the same or
/// exponential.
fn one_server(load: f64, is_exponential: bool, more: &Value) -> RunConfig {
    let lengths = match is_exponential {
        true => json!({"type": "exponential", "prefill_mean_tokens": 100,
                       "decode_mean_tokens": 1}),
        false => json!({"type": "fixed", "prefill_tokens": 100, "decode_tokens": 1}),
    };
    let mut config = json!({
        "model": "llama-3-8b",
        "device": "h100",
        "backend": "formula",
        "formula": {"prefill_token_s": SERVICE_S / 100.0},
        "replica_scheduler": {"type": "vllm", "batch_size_cap": 1, "max_tokens_in_batch": 4096},
        "qps": load / SERVICE_S,
        "workload": {"lengths": lengths, "arrivals": {"type": "poisson"}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).expect("a configuration")
}

fn run(config: &RunConfig, requests: Option<u32>, seed: u64) -> RunSummary {
    let mut config = config.clone();
    config.seed = seed;
    config.workload.requests = requests;
    let runner = Simulate::new(WorkloadSource::default(), RequestOutput::None, None);
    let result = runner.run(0, &config);
    result
        .summary
        .unwrap_or_else(|| panic!("{:?}", result.reason))
}

/// Mean time in the system, and its 99th percentile, of an M/M/1 queue.
fn exponential_s(load: f64) -> (f64, f64) {
    let mean_s = SERVICE_S / (1.0 - load);
    (mean_s, mean_s * 100f64.ln())
}

/// Mean time in the system of an M/D/1 queue (Pollaczek and Khinchine).
fn constant_mean_s(load: f64) -> f64 {
    SERVICE_S * (1.0 + load / (2.0 * (1.0 - load)))
}

fn near(found: f64, expected: f64, tolerance: f64) {
    let error = found / expected - 1.0;
    assert!(
        error.abs() < tolerance,
        "{found} for {expected}: {error:+.3}"
    );
}

#[test]
fn times_in_the_system_are_those_of_queues_of_one_server() {
    for (load, requests, tolerance) in [(0.5, 40_000, 0.04), (0.8, 120_000, 0.07)] {
        let exponential = run(&one_server(load, true, &json!({})), Some(requests), 3);
        let (mean_s, p99_s) = exponential_s(load);
        near(exponential.ttft.mean_s, mean_s, tolerance);
        near(exponential.e2e.p99_s, p99_s, 2.0 * tolerance);
        near(
            exponential.scheduling_delay.mean_s,
            mean_s - SERVICE_S,
            1.5 * tolerance,
        );
        let constant = run(&one_server(load, false, &json!({})), Some(requests), 3);
        near(constant.ttft.mean_s, constant_mean_s(load), tolerance);
        near(constant.gpu_busy_fraction, load, tolerance);
        near(
            f64::from(constant.served_requests) / constant.duration_s,
            load,
            tolerance,
        );
    }
}

/// Mean wait in a queue of Poisson arrivals whose server takes all that wait, up to `cap`,
/// for a time that is always the same; `arrivals` come in one service on average. By the
/// chain of what one service leaves waiting: what is left after the next one has begun,
/// and who comes meanwhile. Solved by iteration.
fn bulk_wait_s(arrivals: f64, cap: usize) -> f64 {
    const MOST: usize = 400;
    let mut coming = vec![0.0; MOST];
    coming[0] = (-arrivals).exp();
    for count in 1..MOST {
        coming[count] = coming[count - 1] * arrivals / count as f64;
    }
    let mut waiting = vec![0.0; MOST];
    waiting[0] = 1.0;
    for _ in 0..4000 {
        let mut next = vec![0.0; MOST];
        for (count, probability) in waiting.iter().enumerate() {
            let left = count.saturating_sub(cap);
            for (more, chance) in coming[..MOST - left].iter().enumerate() {
                next[left + more] += probability * chance;
            }
        }
        waiting = next;
    }
    let left: f64 = (waiting.iter().enumerate())
        .map(|(count, probability)| count.saturating_sub(cap) as f64 * probability)
        .sum();
    let rate = arrivals / SERVICE_S;
    // Per service: the time those wait that are left, and those that come meanwhile.
    let waited_s = left * SERVICE_S + rate * SERVICE_S * SERVICE_S / 2.0;
    // A service that finds nobody starts with the next arrival.
    let cycle_s = SERVICE_S + waiting[0] / rate;
    waited_s / cycle_s / rate
}

#[test]
fn a_server_of_several_at_a_time_makes_them_wait_as_the_chain_says() {
    // Of one at a time it is an M/D/1 queue.
    near(bulk_wait_s(0.5, 1), constant_mean_s(0.5) - SERVICE_S, 1e-9);
    for (cap, load) in [(4, 0.7), (16, 0.9)] {
        let arrivals = load * f64::from(cap);
        let config = one_server(
            arrivals,
            false,
            &json!({
                "formula": {"step_s": SERVICE_S},
                "replica_scheduler": {"type": "vllm", "batch_size_cap": cap,
                                      "max_tokens_in_batch": 4096},
            }),
        );
        let summary = run(&config, Some(100_000), 5);
        let expected_s = bulk_wait_s(arrivals, cap as usize);
        near(summary.scheduling_delay.mean_s, expected_s, 0.1);
        let steady = summary.steady.expect("steady state");
        assert_ne!(steady.verdict, LoadVerdict::Saturated);
    }
}

/// Of runs of the default length: how many have a verdict, and in what share of those the
/// intervals of the mean and of the 99th percentile hold the truth.
fn coverage(load: f64, is_exponential: bool, runs: u64) -> (u64, [f64; 2]) {
    let config = one_server(load, is_exponential, &json!({}));
    let (mean_s, p99_s) = exponential_s(load);
    let mean_s = match is_exponential {
        true => mean_s,
        false => constant_mean_s(load),
    };
    let holds = |interval: Interval, truth: f64| (interval.low..=interval.high).contains(&truth);
    let judged: Vec<[bool; 2]> = (0..runs)
        .into_par_iter()
        .filter_map(|seed| {
            let steady = run(&config, None, seed).steady.expect("steady state");
            let is_stable = steady.verdict == LoadVerdict::Stable;
            is_stable.then(|| {
                [
                    holds(steady.ttft.mean, mean_s),
                    holds(steady.ttft.p99, p99_s),
                ]
            })
        })
        .collect();
    let share = |of: usize| {
        let held = judged.iter().filter(|holds| holds[of]).count();
        held as f64 / judged.len() as f64
    };
    (judged.len() as u64, [share(0), share(1)])
}

/// Few seeds, as debug builds are slow; `VIDUR_SWEEP_STATISTICS_CAMPAIGN=1000` in a release
/// build runs as many of each, at three loads, in about an hour of CPU.
#[test]
fn intervals_hold_the_truth() {
    let campaign = env::var("VIDUR_SWEEP_STATISTICS_CAMPAIGN").ok();
    let campaign: Option<u64> = campaign.and_then(|runs| runs.parse().ok());
    let (runs, loads) = match campaign {
        Some(runs) => (runs, &[0.5, 0.8, 0.95][..]),
        None => (48, &[0.5][..]),
    };
    for &load in loads {
        for is_exponential in [true, false] {
            let (judged, [mean, p99]) = coverage(load, is_exponential, runs);
            println!("load {load}, exponential {is_exponential}: {judged} of {runs}, {mean} {p99}");
            assert!(judged * 10 >= runs * 9, "{judged} of {runs} at {load}");
            // Of 48 runs, 40 and more would hold it with a probability of 99.8 % if 95 % do.
            let least = if campaign.is_some() { 0.9 } else { 40.0 / 48.0 };
            assert!(mean >= least, "{mean} at {load}");
            assert!(!is_exponential || p99 >= least, "{p99} at {load}");
        }
    }
}

#[test]
fn overload_is_not_called_stable_nor_heavy_load_saturated() {
    for requests in [100, 400, 2000] {
        for seed in 0..12 {
            for is_exponential in [true, false] {
                let verdict = |load| {
                    let config = one_server(load, is_exponential, &json!({}));
                    let steady = run(&config, Some(requests), seed).steady;
                    steady.expect("steady state").verdict
                };
                assert_ne!(verdict(0.9), LoadVerdict::Saturated, "{requests} {seed}");
                assert_ne!(verdict(1.1), LoadVerdict::Stable, "{requests} {seed}");
            }
        }
    }
    let config = one_server(2.0, true, &json!({}));
    let summary = run(&config, Some(100_000), 1);
    let steady = summary.steady.expect("steady state");
    assert_eq!(steady.verdict, LoadVerdict::Saturated);
    // It stops as soon as that is certain, and says what it serves.
    assert!(
        steady.simulated_requests < 5000,
        "{}",
        steady.simulated_requests
    );
    near(steady.requests_per_s.value, 1.0 / SERVICE_S, 0.15);
}
