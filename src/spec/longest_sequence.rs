//! How requests fit into the longest sequence of their model, told before they run.

use std::collections::BTreeMap;

use super::RunConfig;
use crate::catalog::{Catalog, ModelSpec};
use crate::workload::WorkloadSource;

/// Requests looked at: they are alike, and a workload may have millions.
const LOOKED_AT: u32 = 1000;

impl RunConfig {
    /// Tokens of the longest sequence an engine takes, prompt and output together; none:
    /// the originals know no limit.
    pub fn longest_sequence(&self, model: &ModelSpec) -> Option<u32> {
        let longest = self.max_model_len.unwrap_or(model.max_position_tokens);
        self.compat.is_none().then_some(longest)
    }
}

/// What configurations tried so far came to.
#[derive(Debug, Default)]
pub(super) struct LongestSequences {
    models: BTreeMap<String, Option<ModelSpec>>,
    /// By the longest sequence, the seed and the workload as JSON.
    notes: BTreeMap<(u32, u64, String), Option<String>>,
}

impl LongestSequences {
    /// What a person should know of `config` and its `requests` requests.
    pub(super) fn notes(
        &mut self,
        config: &RunConfig,
        requests: u32,
        workloads: &WorkloadSource,
    ) -> Vec<String> {
        let model = self.models.entry(config.model.clone());
        let model = model.or_insert_with(|| Catalog::builtin().model(&config.model).ok());
        let Some((model, longest)) =
            (model.as_ref()).and_then(|model| Some((model, config.longest_sequence(model)?)))
        else {
            return Vec::new();
        };
        let positions = model.max_position_tokens;
        let beyond = (longest > positions).then(|| {
            format!(
                "max_model_len {longest} is above the {positions} positions of {}: engines refuse \
                 that unless they are forced",
                model.name
            )
        });
        let workload = serde_json::to_string(&config.workload).unwrap_or_default();
        let fitting = self
            .notes
            .entry((longest, config.seed, workload))
            .or_insert_with(|| too_long(config, requests, longest, workloads));
        beyond.into_iter().chain(fitting.clone()).collect()
    }
}

/// How many of the first requests do not fit into `longest` tokens, if any.
fn too_long(
    config: &RunConfig,
    requests: u32,
    longest: u32,
    workloads: &WorkloadSource,
) -> Option<String> {
    let looked_at = requests.min(LOOKED_AT);
    let mut workload = config.workload.clone();
    workload.requests = Some(looked_at);
    let drawn = workloads.get(&workload, config.seed, config.replication);
    let (refused, capped) = drawn.ok()?.at_rate(config.qps).ok()?.beyond(longest);
    (refused + capped > 0).then(|| {
        format!(
            "max_model_len {longest}: of the first {looked_at} requests {refused} will be rejected \
             for their prompts and {capped} outputs cut short; `max_tokens` of the lengths shortens \
             requests instead"
        )
    })
}
