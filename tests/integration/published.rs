//! Published throughputs of DeepSeek-V3 and Qwen3 on H800 and H20, none of which
//! was fitted to. `docs/validation-moe.md` discusses every row; run with
//! `--nocapture` for the figures.

use vidur_sweep::catalog::Catalog;
use vidur_sweep::execution_time::operator::ExpertLoad;
use vidur_sweep::execution_time::step_cost::GraphCost;
use vidur_sweep::execution_time::{BackendKind, PrefillChunk, StepCost, StepOptions, StepShape};
use vidur_sweep::memory::{Formats, Parallelism};
use vidur_sweep::network::LinkOverrides;
use vidur_sweep::units::DType;

/// One published point.
struct Point {
    name: &'static str,
    model: &'static str,
    device: &'static str,
    kv_cache: DType,
    /// GPUs, each an attention rank; experts are spread over all.
    gpus: u32,
    two_batch_overlap: bool,
    balanced: bool,
    /// Per GPU: prompts of 4,096 tokens, or decodes and their mean context.
    prompts: u32,
    decodes: (u32, u32),
    /// Tokens per second and GPU, and what InferSim computes.
    published: f64,
    infersim: f64,
}

const POINTS: [Point; 6] = [
    Point {
        name: "DeepSeek-V3 H800 EP32 prefill",
        model: "deepseek-671B",
        device: "h800",
        kv_cache: DType::Bfloat16,
        gpus: 32,
        two_batch_overlap: true,
        balanced: true,
        prompts: 4,
        decodes: (0, 0),
        published: 7839.0,
        infersim: 9034.0,
    },
    Point {
        name: "DeepSeek-V3 H800 EP128 decode",
        model: "deepseek-671B",
        device: "h800",
        kv_cache: DType::Bfloat16,
        gpus: 128,
        two_batch_overlap: true,
        balanced: true,
        prompts: 0,
        decodes: (128, 4096 + 1786 / 2),
        published: 2324.0,
        infersim: 2675.0,
    },
    Point {
        name: "Qwen3-30B-A3B H20 prefill",
        model: "Qwen/Qwen3-30B-A3B",
        device: "h20",
        kv_cache: DType::Bfloat16,
        gpus: 1,
        two_batch_overlap: false,
        balanced: false,
        prompts: 4,
        decodes: (0, 0),
        published: 16594.0,
        infersim: 17350.0,
    },
    Point {
        name: "Qwen3-30B-A3B H20 EP4 decode",
        model: "Qwen/Qwen3-30B-A3B",
        device: "h20",
        kv_cache: DType::Bfloat16,
        gpus: 4,
        two_batch_overlap: false,
        balanced: false,
        prompts: 0,
        decodes: (100, 4096 + 2048 / 2),
        published: 2749.0,
        infersim: 2632.0,
    },
    Point {
        name: "Qwen3-8B-FP8 H20 prefill",
        model: "Qwen/Qwen3-8B-FP8",
        device: "h20",
        kv_cache: DType::Bfloat16,
        gpus: 1,
        two_batch_overlap: false,
        balanced: false,
        prompts: 4,
        decodes: (0, 0),
        published: 15061.0,
        infersim: 16328.0,
    },
    Point {
        name: "Qwen3-8B-FP8 H20 decode",
        model: "Qwen/Qwen3-8B-FP8",
        device: "h20",
        kv_cache: DType::Bfloat16,
        gpus: 1,
        two_batch_overlap: false,
        balanced: false,
        prompts: 0,
        decodes: (64, 4096 + 2048 / 2),
        published: 2682.0,
        infersim: 2581.0,
    },
];

impl Point {
    fn cost(&self, backend: BackendKind) -> GraphCost {
        let catalog = Catalog::builtin();
        let model = catalog.model(self.model).unwrap();
        let experts = model.moe.is_some();
        let parallelism = Parallelism {
            tensor_parallel: 1,
            pipeline_parallel: 1,
            expert_parallel: if experts { self.gpus } else { 1 },
            attention_data_parallel: self.gpus,
        };
        let formats = Formats::of(&model, None, Some(self.kv_cache));
        let device = catalog.device(self.device).unwrap();
        let cost = GraphCost::new(
            &model,
            &device,
            backend,
            None,
            parallelism,
            formats,
            8,
            &LinkOverrides::default(),
        );
        cost.unwrap().with_options(&StepOptions {
            // DeepSeek states a balanced load for its profile. The Qwen runs say
            // nothing: the router's usual unevenness.
            expert_load: self.balanced.then_some(ExpertLoad::Balanced),
            two_batch_overlap: self.two_batch_overlap,
            speculation: None,
        })
    }

    fn shape(&self) -> StepShape {
        let prompt = PrefillChunk {
            new_tokens: 4096,
            context_tokens: 0,
        };
        let (decodes, context) = self.decodes;
        StepShape {
            prefills: vec![prompt; (self.prompts * self.gpus) as usize],
            decode_requests: decodes * self.gpus,
            decode_context_tokens: u64::from(context) * u64::from(decodes * self.gpus),
            sampled_tokens: (self.prompts + decodes) * self.gpus,
        }
    }

    /// Tokens per second and GPU of one step after the other.
    fn throughput(&self, backend: BackendKind) -> f64 {
        let shape = self.shape();
        let step_s = self.cost(backend).stage_time(0, &shape).total_s();
        f64::from(shape.new_tokens()) / f64::from(self.gpus) / step_s
    }
}

#[test]
fn published_throughputs() {
    for point in &POINTS {
        let ours = point.throughput(BackendKind::Aicb);
        let percent = |value: f64| (value / point.published - 1.0) * 100.0;
        println!(
            "{}: published {:.0}, ours {ours:.0} ({:+.1} %), InferSim {:.0} ({:+.1} %)",
            point.name,
            point.published,
            percent(ours),
            point.infersim,
            percent(point.infersim),
        );
        assert!(percent(ours).abs() < 15.0, "{}", point.name);
    }
}

/// The two of a device that has measured tables. Experts are DeepGEMM's behind DeepEP;
/// nothing is fitted to either figure.
#[test]
fn published_throughputs_from_measured_tables() {
    let measured = POINTS.iter().filter(|point| point.device == "h800");
    let mut compared = 0;
    for point in measured {
        let ours = point.throughput(BackendKind::Silicon);
        let percent = (ours / point.published - 1.0) * 100.0;
        println!(
            "{}: published {:.0}, silicon {ours:.0} ({percent:+.1} %), as AIConfigurator prices \
             experts {:.0}",
            point.name,
            point.published,
            point.throughput(BackendKind::Aiconfigurator),
        );
        assert!(percent.abs() < 25.0, "{}: {percent:+.1} %", point.name);
        compared += 1;
    }
    assert_eq!(compared, 2);
}
