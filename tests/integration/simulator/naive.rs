//! A replica simulated the slow way: every request is visited at every step.
//! One mixed replica, one stage; must agree with the simulator on every token.

use proptest::prelude::*;
use vidur_sweep::execution_time::{PrefillChunk, StepCost, StepShape};
use vidur_sweep::simulator::{GlobalScheduler, PoolRole};

use super::support::{LinearCost, cluster, pool, run, sarathi, vllm};

#[derive(Clone, Default)]
struct Slow {
    arrived_at_s: f64,
    prompt: u32,
    output: u32,
    target: u32,
    prefilled: u32,
    generated: u32,
    blocks: u64,
    tokens_at_s: Vec<f64>,
    restarts: u32,
}

struct Outcome {
    completed_at_s: Vec<f64>,
    first_token_at_s: Vec<f64>,
    restarts: Vec<u32>,
    intervals: Vec<f64>,
    /// Of each request; none: it has one token.
    longest_interval_s: Vec<Option<f64>>,
}

#[derive(Clone, Copy)]
struct Rules {
    chunked: bool,
    budget: u32,
    cap: usize,
    blocks: u64,
}

fn slow_replica(rules: Rules, requests: &[(f64, u32, u32)]) -> Outcome {
    let cost = LinearCost { stages: 1 };
    let watermark = (0.01 * rules.blocks as f64) as u64;
    let mut all: Vec<Slow> = requests
        .iter()
        .map(|&(arrived_at_s, prompt, output)| Slow {
            arrived_at_s,
            prompt,
            output,
            target: prompt,
            ..Slow::default()
        })
        .collect();
    let (mut waiting, mut prefilling, mut decoding) = (
        Vec::<usize>::new(),
        Vec::<usize>::new(),
        Vec::<usize>::new(),
    );
    let mut free = rules.blocks;
    let (mut now_s, mut next) = (0.0, 0);
    loop {
        while next < all.len() && all[next].arrived_at_s <= now_s {
            waiting.push(next);
            next += 1;
        }
        let mut prefills: Vec<(usize, u32)> = Vec::new();
        let mut decodes: Vec<usize> = Vec::new();
        let whole_prompts_wait = |waiting: &[usize], all: &[Slow], free: u64, admitted: usize| {
            waiting.first().is_some_and(|&id| {
                let need = u64::from(all[id].target).div_ceil(16);
                admitted < rules.cap
                    && free >= need + if free == rules.blocks { 0 } else { watermark }
            })
        };
        let admitted = prefilling.len() + decoding.len();
        if rules.chunked || !whole_prompts_wait(&waiting, &all, free, admitted) {
            // Every decode writes one entry; those at a block boundary need a block.
            loop {
                let need: u64 = decoding
                    .iter()
                    .map(|&id| {
                        let tokens = u64::from(all[id].prompt + all[id].generated);
                        tokens.div_ceil(16) - all[id].blocks
                    })
                    .sum();
                if need <= free {
                    break;
                }
                let victim = prefilling.pop().or_else(|| decoding.pop()).unwrap();
                free += all[victim].blocks;
                all[victim].blocks = 0;
                all[victim].target = all[victim].prompt + all[victim].generated;
                all[victim].prefilled = 0;
                all[victim].restarts += 1;
                waiting.insert(0, victim);
            }
            for &id in &decoding {
                let need = u64::from(all[id].prompt + all[id].generated).div_ceil(16);
                free -= need - all[id].blocks;
                all[id].blocks = need;
            }
            decodes = std::mem::take(&mut decoding);
        }
        let mut budget = rules.budget.saturating_sub(if rules.chunked {
            decodes.len() as u32
        } else {
            0
        });
        let mut held = prefilling.len() + decoding.len() + decodes.len();
        while (rules.chunked || decodes.is_empty())
            && budget > 0
            && prefills.len() + decodes.len() < rules.cap
        {
            let id = if let Some(&id) = prefilling.first() {
                prefilling.remove(0);
                id
            } else {
                if !whole_prompts_wait(&waiting, &all, free, held) {
                    break;
                }
                let id = waiting[0];
                if !rules.chunked && all[id].target > budget && !prefills.is_empty() {
                    break;
                }
                waiting.remove(0);
                all[id].blocks = u64::from(all[id].target).div_ceil(16);
                free -= all[id].blocks;
                held += 1;
                id
            };
            let rest = all[id].target - all[id].prefilled;
            let tokens = if rules.chunked {
                rest.min(budget)
            } else {
                rest
            };
            budget = budget.saturating_sub(tokens);
            prefills.push((id, tokens));
        }
        if prefills.is_empty() && decodes.is_empty() {
            if next == all.len() {
                break;
            }
            now_s = all[next].arrived_at_s;
            continue;
        }
        let shape = StepShape {
            prefills: prefills
                .iter()
                .map(|&(id, new_tokens)| PrefillChunk {
                    new_tokens,
                    context_tokens: all[id].prefilled,
                })
                .collect(),
            decode_requests: decodes.len() as u32,
            decode_context_tokens: decodes
                .iter()
                .map(|&id| u64::from(all[id].prompt + all[id].generated - 1))
                .sum(),
            sampled_tokens: 0,
        };
        now_s += cost.stage_time(0, &shape).total_s();
        // Arrivals up to the end of the step queue before the next one is formed.
        let mut still_prefilling = Vec::new();
        for id in decodes {
            all[id].generated += 1;
            all[id].tokens_at_s.push(now_s);
            if all[id].generated == all[id].output {
                free += std::mem::take(&mut all[id].blocks);
            } else {
                decoding.push(id);
            }
        }
        for (id, tokens) in prefills {
            all[id].prefilled += tokens;
            if all[id].prefilled < all[id].target {
                still_prefilling.push(id);
                continue;
            }
            all[id].generated += 1;
            all[id].tokens_at_s.push(now_s);
            if all[id].generated == all[id].output {
                free += std::mem::take(&mut all[id].blocks);
            } else {
                decoding.push(id);
            }
        }
        still_prefilling.append(&mut prefilling);
        prefilling = still_prefilling;
    }
    let gaps = |request: &Slow| -> Vec<f64> {
        let pairs = request.tokens_at_s.windows(2);
        pairs.map(|pair| pair[1] - pair[0]).collect()
    };
    let mut intervals: Vec<f64> = all.iter().flat_map(gaps).collect();
    let longest = |request: &Slow| gaps(request).into_iter().max_by(f64::total_cmp);
    intervals.sort_by(f64::total_cmp);
    Outcome {
        completed_at_s: all.iter().map(|r| *r.tokens_at_s.last().unwrap()).collect(),
        first_token_at_s: all.iter().map(|r| r.tokens_at_s[0]).collect(),
        restarts: all.iter().map(|r| r.restarts).collect(),
        intervals,
        longest_interval_s: all.iter().map(longest).collect(),
    }
}

/// Requests in order of arrival.
fn requests() -> impl Strategy<Value = Vec<(f64, u32, u32)>> {
    proptest::collection::vec((0.0f64..0.2, 1u32..300, 1u32..120), 1..60).prop_map(|draws| {
        let mut at_s = 0.0;
        draws
            .into_iter()
            .map(|(gap_s, prompt, output)| {
                at_s += gap_s;
                (at_s, prompt, output)
            })
            .collect()
    })
}

fn compare(rules: Rules, requests: &[(f64, u32, u32)]) -> Result<u32, TestCaseError> {
    let scheduler = if rules.chunked {
        sarathi(rules.budget, rules.cap as u32)
    } else {
        vllm(rules.budget, rules.cap as u32)
    };
    let pools = vec![pool(PoolRole::Mixed, 1, 1, rules.blocks, scheduler)];
    let (fast, _) = run(&cluster(pools, GlobalScheduler::RoundRobin), requests, None);
    let slow = slow_replica(rules, requests);
    for (record, id) in fast.records.iter().zip(0..) {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.max(1.0);
        prop_assert!(
            close(record.completed_at_s, slow.completed_at_s[id]),
            "request {}",
            id
        );
        prop_assert!(close(
            record.prefill_completed_at_s,
            slow.first_token_at_s[id]
        ));
        prop_assert_eq!(record.restarts, slow.restarts[id], "request {}", id);
        match slow.longest_interval_s[id] {
            Some(longest_s) => prop_assert!(
                (record.longest_interval_s - longest_s).abs() < 1e-9,
                "request {}: {} {}",
                id,
                record.longest_interval_s,
                longest_s
            ),
            None => prop_assert!(record.longest_interval_s.is_nan()),
        }
    }
    let mut intervals: Vec<f64> = fast
        .intervals
        .iter()
        .flat_map(|&(interval_s, count)| std::iter::repeat_n(interval_s, count as usize))
        .collect();
    intervals.sort_by(f64::total_cmp);
    prop_assert_eq!(intervals.len(), slow.intervals.len());
    for (fast, slow) in intervals.iter().zip(&slow.intervals) {
        prop_assert!((fast - slow).abs() < 1e-9);
    }
    Ok(slow.restarts.iter().sum())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn chunked_prefill_agrees(
        requests in requests(), budget in 1u32..256, cap in 1usize..32, blocks in 27u64..200,
    ) {
        compare(Rules { chunked: true, budget, cap, blocks }, &requests)?;
    }

    #[test]
    fn prefill_first_agrees(
        requests in requests(), budget in 300u32..1000, cap in 1usize..32, blocks in 27u64..200,
    ) {
        compare(Rules { chunked: false, budget, cap, blocks }, &requests)?;
    }
}

#[test]
fn the_comparison_covers_preemption() {
    let requests: Vec<_> = (0..40).map(|i| (0.01 * f64::from(i), 100, 100)).collect();
    for chunked in [true, false] {
        let rules = Rules {
            chunked,
            budget: 512,
            cap: 32,
            blocks: 60,
        };
        assert!(compare(rules, &requests).unwrap() > 10);
    }
}
