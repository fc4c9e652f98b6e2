//! Routed experts cost what they can: properties of their prices on every device with
//! measured kernels, under every engine, for every model with experts.

use vidur_sweep::catalog::{Catalog, DeviceSpec, ModelSpec};
use vidur_sweep::execution_time::expert_load::busiest_factor;
use vidur_sweep::execution_time::operator::{ExpertLoad, ExpertTokens};
use vidur_sweep::execution_time::silicon::{DOUBTFUL_MULTIPLE, SiliconDb};
use vidur_sweep::execution_time::step_cost::GraphCost;
use vidur_sweep::execution_time::{
    BackendKind, Operator, OperatorCost, PrefillChunk, Provenance, StepCost, StepOptions, StepShape,
};
use vidur_sweep::memory::{Formats, Parallelism};
use vidur_sweep::network::LinkOverrides;
use vidur_sweep::units::DType;

const ENGINES: [Option<&str>; 4] = [None, Some("vllm"), Some("sglang"), Some("trtllm")];
const ARRIVALS: [ExpertTokens; 3] = [
    ExpertTokens::Gathered,
    ExpertTokens::Sent,
    ExpertTokens::SentLowLatency,
];
const FORMATS: [DType; 4] = [DType::Bfloat16, DType::Fp8, DType::Fp8Block, DType::Nvfp4];
/// Measured counts of tokens and others.
const TOKENS: [u32; 7] = [1, 16, 100, 2048, 16_384, 131_072, 1_000_000];
const WAYS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Expert kernels of one model on one device.
struct Experts {
    name: String,
    /// The device measured: it may lend its kernels to the one named.
    device: DeviceSpec,
    database: SiliconDb,
    model: ModelSpec,
    dtype: DType,
    arrival: ExpertTokens,
}

impl Experts {
    fn operator(&self, tokens: u32, ways: u32, load: ExpertLoad) -> Operator {
        let moe = self.model.moe.as_ref().expect("a model with experts");
        Operator::MoeExperts {
            tokens,
            hidden_size: self.model.hidden_size,
            intermediate_size: moe.intermediate_size,
            experts_per_token: moe.experts_per_token,
            experts: moe.experts,
            expert_tensor_parallel: 1,
            expert_parallel: ways,
            dtype: self.dtype,
            load,
            arrival: self.arrival,
        }
    }

    fn price(&self, tokens: u32, ways: u32, load: ExpertLoad) -> (f64, Provenance) {
        let price = self.database.price(&self.operator(tokens, ways, load));
        let price = price.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        (price.time_s, price.provenance)
    }

    fn time_s(&self, tokens: u32, ways: u32, load: ExpertLoad) -> f64 {
        self.price(tokens, ways, load).0
    }

    /// Ways that divide the experts of the model.
    fn ways(&self) -> impl Iterator<Item = u32> {
        let experts = self.model.moe.as_ref().map_or(1, |moe| moe.experts);
        WAYS.into_iter()
            .filter(move |ways| experts.is_multiple_of(*ways))
    }

    /// The least time that arithmetic and the reading of visited experts take on the
    /// busiest GPU, from the data sheet.
    fn bound_s(&self, tokens: u32, ways: u32, load: ExpertLoad) -> f64 {
        let moe = self.model.moe.as_ref().expect("a model with experts");
        let factor = load.busiest_factor(moe.experts, moe.experts_per_token, ways);
        let visits =
            factor * f64::from(tokens) * f64::from(moe.experts_per_token) / f64::from(ways);
        let visits = visits.max(1.0);
        let elements = 3.0 * f64::from(self.model.hidden_size) * f64::from(moe.intermediate_size);
        let visited = visits.min(f64::from(moe.experts / ways));
        let bytes = match self.dtype {
            // One scale of a byte for 16 elements.
            DType::Nvfp4 => 0.5 + 1.0 / 16.0,
            other => other.bytes(),
        };
        let memory = self.device.memory_bandwidth_gb_per_s * 1e9;
        let arithmetic_s = 2.0 * visits * elements / self.device.peak_flops(self.dtype);
        arithmetic_s.max(visited * elements * bytes / memory)
    }
}

/// Every device with measured kernels of its own or of another, every engine, model
/// with experts, format and way of tokens to their experts that has a price.
fn all() -> Vec<Experts> {
    let catalog = Catalog::builtin();
    let mut all = Vec::new();
    for device in catalog.devices() {
        for engine in ENGINES {
            let Ok(database) = SiliconDb::for_device(device, engine) else {
                continue;
            };
            let measured = database.stand_in().unwrap_or(&device.name);
            let measured = catalog.device(measured).expect("a device");
            for model in catalog.models().iter().filter(|model| model.moe.is_some()) {
                for dtype in FORMATS {
                    for arrival in ARRIVALS {
                        let experts = Experts {
                            name: format!(
                                "{} {engine:?} {} {} {arrival:?}",
                                device.name,
                                model.name,
                                dtype.name()
                            ),
                            device: measured.clone(),
                            database: database.clone(),
                            model: model.clone(),
                            dtype,
                            arrival,
                        };
                        let trial = experts.operator(64, 1, ExpertLoad::Balanced);
                        if experts.database.price(&trial).is_ok() {
                            all.push(experts);
                        }
                    }
                }
            }
        }
    }
    all
}

/// Those with the formats their models are published in.
fn as_published() -> Vec<Experts> {
    let mut all = all();
    all.retain(|experts| experts.dtype == experts.model.dtype);
    all
}

/// Power laws up to the steepest, and between any that were measured.
fn exponents() -> impl Iterator<Item = f64> {
    let steps = (0..=40).map(|step| f64::from(step) * 0.25);
    let fine = [0.013, 0.61, 0.99, 1.01, 1.02, 1.19, 1.2, 1.21, 7.77];
    let mut all: Vec<f64> = steps.chain(fine).collect();
    all.sort_by(f64::total_cmp);
    all.into_iter()
}

/// Within the rounding of a sum.
fn at_most(a: f64, b: f64) -> bool {
    a <= b * (1.0 + 1e-12)
}

#[test]
fn every_device_with_tables_is_there() {
    let all = all();
    for device in ["a100", "b200", "gb200", "h100", "h200", "h800"] {
        let there = (all.iter()).any(|experts| experts.name.starts_with(&format!("{device} ")));
        assert!(there, "{device}");
    }
    assert!(all.len() > 300, "{}", all.len());
}

#[test]
fn cost_grows_with_skew_and_balanced_is_cheapest() {
    for experts in as_published() {
        for ways in experts.ways() {
            for tokens in [1, 100, 2048, 16_384, 300_000] {
                let balanced = experts.time_s(tokens, ways, ExpertLoad::Balanced);
                let mut last = balanced;
                for alpha in exponents() {
                    let load = ExpertLoad::PowerLaw { alpha };
                    let time_s = experts.time_s(tokens, ways, load);
                    assert!(
                        at_most(last, time_s),
                        "{} EP {ways}, {tokens} tokens, exponent {alpha}: {time_s} after {last}",
                        experts.name
                    );
                    last = time_s;
                }
                if ways >= 8 && tokens >= 300_000 {
                    assert!(last > balanced, "{} EP {ways}", experts.name);
                }
            }
        }
    }
}

#[test]
fn cost_grows_with_the_skew_of_a_histogram() {
    for experts in as_published() {
        let count = experts.model.moe.as_ref().map_or(0, |moe| moe.experts);
        for ways in experts.ways() {
            let mut last = experts.time_s(4096, ways, ExpertLoad::Balanced);
            for hot in [0.0, 1.0, 10.0, 100.0, 1e4] {
                // One expert that gets so much more than the others.
                let mut tokens = vec![1.0; count as usize];
                tokens[17] += hot;
                let factor = busiest_factor(&tokens, ways, 0);
                let time_s = experts.time_s(4096, ways, ExpertLoad::Uneven { factor });
                assert!(
                    at_most(last, time_s),
                    "{} EP {ways} hot {hot}",
                    experts.name
                );
                last = time_s;
            }
        }
    }
}

#[test]
fn more_ways_of_expert_parallelism_never_cost_a_gpu_more() {
    let loads = [0.5, 1.2, 10.0].map(|alpha| ExpertLoad::PowerLaw { alpha });
    for experts in all() {
        for load in std::iter::once(ExpertLoad::Balanced).chain(loads) {
            for tokens in TOKENS {
                let mut last = f64::INFINITY;
                for ways in experts.ways() {
                    let time_s = experts.time_s(tokens, ways, load);
                    assert!(
                        at_most(time_s, last),
                        "{} EP {ways}, {tokens} tokens, {load:?}: {time_s} after {last}",
                        experts.name
                    );
                    last = time_s;
                }
            }
        }
    }
}

#[test]
fn sending_tokens_to_more_gpus_costs_none_more_than_gathering_them() {
    let mut gathered = as_published();
    gathered.retain(|experts| experts.arrival == ExpertTokens::Gathered);
    for mut experts in gathered {
        for tokens in TOKENS {
            experts.arrival = ExpertTokens::Gathered;
            let in_a_node = experts.time_s(tokens, 8, ExpertLoad::Balanced);
            for arrival in [ExpertTokens::Sent, ExpertTokens::SentLowLatency] {
                experts.arrival = arrival;
                let across = experts.time_s(tokens, 16, ExpertLoad::Balanced);
                assert!(
                    at_most(across, in_a_node),
                    "{} {tokens} {arrival:?}",
                    experts.name
                );
            }
        }
    }
}

#[test]
fn more_tokens_never_cost_less() {
    for experts in all() {
        for ways in experts.ways() {
            let mut last = 0.0;
            for tokens in TOKENS {
                let time_s = experts.time_s(tokens, ways, ExpertLoad::Balanced);
                assert!(
                    at_most(last, time_s),
                    "{} EP {ways}, {tokens} tokens",
                    experts.name
                );
                last = time_s;
            }
        }
    }
}

#[test]
fn nothing_is_faster_than_its_bound_nor_far_slower_without_a_note() {
    let loads = [1.2, 10.0].map(|alpha| ExpertLoad::PowerLaw { alpha });
    let (mut sound, mut doubtful) = (0, 0);
    for experts in all() {
        for load in std::iter::once(ExpertLoad::Balanced).chain(loads) {
            for ways in experts.ways() {
                for tokens in TOKENS {
                    let (time_s, provenance) = experts.price(tokens, ways, load);
                    let bound_s = experts.bound_s(tokens, ways, load);
                    let what = || format!("{} EP {ways}, {tokens} tokens, {load:?}", experts.name);
                    assert!(
                        time_s >= bound_s * (1.0 - 1e-9),
                        "{} {time_s} {bound_s}",
                        what()
                    );
                    let times = time_s / bound_s;
                    if let Provenance::Doubtful { times_bound, .. } = provenance {
                        assert!(times > DOUBTFUL_MULTIPLE * (1.0 - 1e-9), "{}", what());
                        assert!((f64::from(times_bound) - times).abs() < 0.51, "{}", what());
                        doubtful += 1;
                    } else {
                        assert!(
                            times <= DOUBTFUL_MULTIPLE * (1.0 + 1e-9),
                            "{} {times}",
                            what()
                        );
                        sound += 1;
                    }
                }
            }
        }
    }
    assert!(sound > 0 && doubtful > 0, "{sound} {doubtful}");
}

#[test]
fn what_was_measured_balanced_is_priced_as_measured() {
    // DeepSeek-V3's layer over 8 GPUs of a node, and over 32 with DeepEP.
    let h200 = Catalog::builtin().device("h200").expect("a device");
    let time_ms = |engine, ways, arrival| {
        let database = SiliconDb::for_device(&h200, engine).expect("tables");
        let operator = Operator::MoeExperts {
            tokens: 16_384,
            hidden_size: 7168,
            intermediate_size: 2048,
            experts_per_token: 8,
            experts: 256,
            expert_tensor_parallel: 1,
            expert_parallel: ways,
            dtype: DType::Fp8Block,
            load: ExpertLoad::Balanced,
            arrival,
        };
        database.price(&operator).expect("a price").time_s * 1e3
    };
    let near = |time_ms: f64, measured_ms: f64| (time_ms / measured_ms - 1.0).abs() < 0.01;
    let gathered = |engine| time_ms(engine, 8, ExpertTokens::Gathered);
    assert!(near(gathered(None), 5.147));
    assert!(near(gathered(Some("trtllm")), 2.50));
    let sent = |engine| time_ms(engine, 32, ExpertTokens::Sent);
    assert!(near(sent(None), 0.575), "{}", sent(None));
    assert!(near(sent(Some("sglang")), 0.575));
    // Its own kernels, which handle fewer tokens where these are sent.
    let own = time_ms(Some("trtllm"), 32, ExpertTokens::Gathered);
    assert!(near(own, 0.74), "{own}");
    assert!(sent(Some("trtllm")) < own);
}

#[test]
fn a_step_grows_with_skew_in_every_backend_with_operators() {
    let catalog = Catalog::builtin();
    for (backend, device, model) in [
        (BackendKind::Silicon, "h200", "deepseek-671B"),
        (BackendKind::Silicon, "a100", "qwen3-moe-235b"),
        (BackendKind::Roofline, "h20", "deepseek-671B"),
        (BackendKind::Aicb, "h800", "deepseek-671B"),
    ] {
        let (model, device) = (
            catalog.model(model).expect("a model"),
            catalog.device(device).expect("a device"),
        );
        for (ways, prompts) in [(8, true), (32, true), (32, false)] {
            let step_s = |load| {
                let parallelism = Parallelism {
                    tensor_parallel: 1,
                    pipeline_parallel: 1,
                    expert_parallel: ways,
                    attention_data_parallel: ways,
                };
                let formats = Formats::of(&model, None, Some(DType::Bfloat16));
                let links = LinkOverrides::default();
                let cost = GraphCost::new(
                    &model,
                    &device,
                    backend,
                    None,
                    parallelism,
                    formats,
                    8,
                    &links,
                );
                let cost = cost.expect("prices").with_options(&StepOptions {
                    expert_load: Some(load),
                    ..StepOptions::default()
                });
                let prompt = PrefillChunk {
                    new_tokens: 4096,
                    context_tokens: 0,
                };
                let decodes = if prompts { 0 } else { 64 * ways };
                let shape = StepShape {
                    prefills: vec![prompt; if prompts { ways as usize } else { 0 }],
                    decode_requests: decodes,
                    decode_context_tokens: u64::from(decodes) * 2048,
                    sampled_tokens: if prompts { ways } else { decodes },
                };
                cost.stage_time(0, &shape).model_s
            };
            let balanced = step_s(ExpertLoad::Balanced);
            let mut last = balanced;
            for alpha in [0.2, 1.01, 1.2, 3.0, 10.0] {
                let time_s = step_s(ExpertLoad::PowerLaw { alpha });
                assert!(
                    at_most(last, time_s),
                    "{backend:?} EP {ways}, exponent {alpha}"
                );
                last = time_s;
            }
            assert!(last > balanced, "{backend:?} EP {ways}");
        }
    }
}
