//! From words to a deployment, and from a step in words to operators. The deployment is
//! the one a run of the same configuration simulates: both are resolved by [`Resolver`].

use serde_json::{Map, Value, json};

use super::placement::{Site, sites};
use super::{OperatorLine, provenance_text};
use crate::execution_time::{PrefillChunk, PricedOperator, StepShape};
use crate::simulator::PoolRole;
use crate::spec::{self, EngineConfig, Pool, Problem, Resolver, RunConfig};
use crate::spelling::did_you_mean;
use crate::units::DType;

pub(super) const DTYPES: [DType; 9] = [
    DType::Float32,
    DType::Float16,
    DType::Bfloat16,
    DType::Fp8,
    DType::Fp8Block,
    DType::Int8,
    DType::Int4,
    DType::Nvfp4,
    DType::Mxfp4,
];

/// A configuration in the making: run keys and their values, given ones only.
#[derive(Debug, Default)]
pub(super) struct Request {
    keys: Map<String, Value>,
}

impl Request {
    /// Sets a key, if there is a value; keys of the network have a dot.
    pub(super) fn set<T: serde::Serialize>(&mut self, key: &str, value: Option<T>) {
        let Some(value) = value else {
            return;
        };
        let value = json!(value);
        match key.split_once('.') {
            None => {
                self.keys.insert(key.to_owned(), value);
            }
            Some((parent, key)) => {
                let parent = self.keys.entry(parent).or_insert_with(|| json!({}));
                parent[key] = value;
            }
        }
    }

    /// Sets the engine, in one text.
    pub(super) fn set_engine(&mut self, text: &str) -> Result<(), Problem> {
        let engine = EngineConfig::of_text(text).map_err(|reason| Problem {
            key: Some("engine"),
            reason,
        })?;
        self.set("engine", Some(engine));
        Ok(())
    }

    /// The configuration: one that is priced even if it does not fit, whatever
    /// requests come.
    fn config(&self) -> Result<RunConfig, Problem> {
        let mut keys = self.keys.clone();
        keys.insert("memory_check".to_owned(), json!("warn"));
        keys.insert(
            "workload".to_owned(),
            json!({
                "requests": 1,
                "lengths": {"type": "fixed", "prefill_tokens": 1, "decode_tokens": 1},
                "arrivals": {"type": "static"},
            }),
        );
        serde_json::from_value(Value::Object(keys)).map_err(|error| Problem::new(error.to_string()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Prefill,
    Decode,
}

/// One step: `batch_size` equal requests on every attention data-parallel rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepRequest {
    pub(super) phase: Phase,
    pub(super) batch_size: u32,
    pub(super) new_tokens: u32,
    pub(super) context_tokens: u32,
}

/// Most requests and tokens of a step; far beyond any engine's.
pub(super) const REQUESTS_MAX: u32 = 1 << 20;
pub(super) const TOKENS_MAX: u32 = 1 << 24;

impl StepRequest {
    /// Whether so many requests and tokens can be counted; if not, which of the step's
    /// figures to change and why.
    pub(super) fn check(&self, ranks: u32) -> Result<(), (&'static str, String)> {
        let Self {
            batch_size,
            new_tokens,
            ..
        } = *self;
        if batch_size.saturating_mul(ranks) > REQUESTS_MAX {
            let reason =
                format!("{batch_size} on each of {ranks} ranks; allowed: {REQUESTS_MAX} in all");
            return Err(("batch_size", reason));
        }
        if u64::from(batch_size) * u64::from(new_tokens) * u64::from(ranks) > u64::from(u32::MAX) {
            let reason = format!(
                "{new_tokens} for {batch_size} x {ranks} requests; allowed: 2^32 tokens in all"
            );
            return Err(("new_tokens", reason));
        }
        Ok(())
    }

    fn shape(&self, ranks: u32) -> StepShape {
        let requests = self.batch_size * ranks;
        let context = u64::from(self.context_tokens);
        match self.phase {
            Phase::Prefill => StepShape {
                prefills: vec![
                    PrefillChunk {
                        new_tokens: self.new_tokens,
                        context_tokens: self.context_tokens,
                    };
                    requests as usize
                ],
                sampled_tokens: requests,
                ..StepShape::default()
            },
            Phase::Decode => StepShape {
                decode_requests: requests,
                decode_context_tokens: context * u64::from(requests),
                sampled_tokens: requests,
                ..StepShape::default()
            },
        }
    }
}

/// A deployment that can be priced.
pub(super) struct Deployment {
    resolved: spec::Deployment,
    config: RunConfig,
}

impl Deployment {
    /// The deployment a request describes.
    pub(super) fn of_request(resolver: &Resolver, request: &Request) -> Result<Self, Problem> {
        let config = request.config()?;
        match config.problems().into_iter().next() {
            Some(problem) => Err(problem),
            None => Self::of_config(resolver, config),
        }
    }

    /// The deployment of a configuration.
    pub(super) fn of_config(resolver: &Resolver, config: RunConfig) -> Result<Self, Problem> {
        let resolved = resolver.resolve(&config);
        Ok(Self {
            resolved: resolved.map_err(|error| Problem::from(&error))?,
            config,
        })
    }

    /// Where the first `replicas` of each pool sit.
    pub(super) fn sites(&self, replicas: u32) -> Vec<Site> {
        sites(&self.config, &self.resolved, replicas)
    }

    pub(super) fn resolved(&self) -> &spec::Deployment {
        &self.resolved
    }

    pub(super) fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The pool that runs steps of a phase.
    pub(super) fn pool_of(&self, phase: Phase) -> &Pool {
        let role = match phase {
            Phase::Prefill => PoolRole::Prefill,
            Phase::Decode => PoolRole::Decode,
        };
        let pools = &self.resolved.pools;
        // A pool of another role than the two runs both.
        pools
            .iter()
            .find(|pool| pool.role == role)
            .unwrap_or(&pools[0])
    }

    /// Attention ranks of a replica that runs steps of a phase.
    pub(super) fn ranks(&self, phase: Phase) -> u32 {
        self.pool_of(phase).parallelism.attention_data_parallel
    }

    pub(super) fn title(&self, phase: Phase) -> String {
        let (pool, formats) = (self.pool_of(phase), &self.resolved.formats);
        format!(
            "{} on {} x {}, weights {}, KV cache {}",
            self.resolved.model.name,
            pool.parallelism.gpus(),
            pool.device.name,
            formats.weights_text(),
            formats.kv_cache.name()
        )
    }

    /// The step's operators in graph order, each with all its layers and stages.
    /// Host time only `with_host`.
    pub(super) fn price(&self, step: &StepRequest, with_host: bool) -> Vec<OperatorLine> {
        let pool = self.pool_of(step.phase);
        let shape = step.shape(pool.parallelism.attention_data_parallel);
        let mut priced = pool.step_cost().explain(&shape);
        priced.retain(|row| with_host || row.name != "host");
        merge(priced)
    }
}

/// Adds up rows of one name. The count is that of the name's first operator of
/// every stage: what is folded into it (kernels around attention) is no run of
/// its own.
fn merge(priced: Vec<PricedOperator>) -> Vec<OperatorLine> {
    let mut lines: Vec<(OperatorLine, u32)> = Vec::new();
    for row in priced {
        let provenance = provenance_text(&row.provenance);
        let time_ms = row.time_s * 1e3;
        match lines.iter_mut().find(|(line, _)| line.operator == row.name) {
            Some((line, stage)) => {
                line.time_ms += time_ms;
                if row.stage != *stage {
                    *stage = row.stage;
                    line.count += row.count;
                }
                if !line.provenance.split(" + ").any(|part| part == provenance) {
                    line.provenance = format!("{} + {provenance}", line.provenance);
                }
            }
            None => lines.push((
                OperatorLine {
                    operator: row.name,
                    count: row.count,
                    time_ms,
                    provenance,
                },
                row.stage,
            )),
        }
    }
    lines.into_iter().map(|(line, _)| line).collect()
}

/// The format called `name`.
pub(super) fn dtype_named(name: &str) -> Result<DType, String> {
    let names = DTYPES.map(DType::name);
    DTYPES
        .into_iter()
        .find(|dtype| dtype.name().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            format!(
                "`{name}` is not a format; allowed: {}{}",
                names.join(", "),
                did_you_mean(name, names)
            )
        })
}
