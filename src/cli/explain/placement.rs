//! Where the replicas of `explain` sit: which GPUs of which servers form their
//! stages and tensor groups.

use std::fmt::Write as _;

use serde::Serialize;

use super::{CliError, Format};
use crate::cli::output::output_width;
use crate::memory::Parallelism;
use crate::network::{PlacedGroup, PlacedGroupKind, Placement};
use crate::report::wrapped;
use crate::simulator::PoolRole;
use crate::spec::{Deployment, Pool, RunConfig};
use crate::units::BYTES_PER_S_PER_GBPS;

/// Prompt whose transfer is shown.
const EXAMPLE_TOKENS: u64 = 1000;

/// Replicas that are alike, and where they sit.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) role: PoolRole,
    /// How many are shown.
    pub(super) replicas: u32,
    pub(super) placement: Placement,
    /// What says how many GPUs a server has: a file, a flag or the device.
    pub(super) servers_of: String,
    /// How the experts of a stage are spread; empty without experts.
    pub(super) experts: String,
    /// What the memory of a GPU is used for, where it was planned.
    pub(super) memory: Option<String>,
}

/// A row of the machine-readable formats.
#[derive(Debug, Serialize)]
struct Row {
    pool: &'static str,
    #[serde(flatten)]
    placed: PlacedGroup,
}

/// The placement alone, in the format asked for; `transfer` is what there is to say of
/// KV caches on their way.
pub(super) fn only(
    title: &str,
    sites: &[Site],
    transfer: Option<&str>,
    format: Format,
) -> Result<String, CliError> {
    let rows = || -> Vec<Row> {
        let of_site = |site: &Site| {
            let pool = site.role.name();
            let rows = site.groups().map(move |placed| Row { pool, placed });
            rows.collect::<Vec<_>>()
        };
        sites.iter().flat_map(of_site).collect()
    };
    match format {
        Format::Table => {
            let sections: Vec<_> = sites
                .iter()
                .map(|site| site.text(sites.len() > 1))
                .collect();
            let transfer = transfer.map_or_else(String::new, |text| format!("\n{text}"));
            let text = format!("{title}\n{}{transfer}", sections.join("\n"));
            Ok(wrapped(&text, output_width()).trim_end().to_owned())
        }
        Format::Json => serde_json::to_string_pretty(&rows())
            .map_err(|error| CliError::Failure(error.to_string())),
        Format::Csv => Ok(csv(&rows())),
    }
}

/// How long a KV cache takes from the first prefill to the first decode replica, alone.
pub(super) fn transfer(deployment: &Deployment) -> Option<String> {
    let spec = deployment.cluster.kv_transfer?;
    let size_bytes = spec.size_bytes(EXAMPLE_TOKENS);
    let mut text = format!(
        "KV cache of {EXAMPLE_TOKENS} tokens ({:.1} MB), prefill replica 0 to decode replica 0: ",
        size_bytes * 1e-6
    );
    let (way, bytes_per_s, latency_s) = match &deployment.cluster.transfer_paths {
        None => {
            let least = spec.sender_bytes_per_s.min(spec.receiver_bytes_per_s);
            ("from NICs to NICs".to_owned(), least, spec.latency_s)
        }
        Some(paths) => {
            let alone = paths.alone(0, deployment.pools[0].replicas, size_bytes);
            let switches = match alone.most_switches {
                1 => "1 switch".to_owned(),
                several => format!("up to {several} switches"),
            };
            let way = match (alone.flows, alone.flows_over_nvlink) {
                (flows, inside) if flows == inside => format!("{flows} flows over NVLink"),
                (flows, 0) => format!("{flows} flows over NICs and {switches}"),
                (flows, inside) => {
                    format!("{flows} flows, {inside} over NVLink, others over NICs and {switches}")
                }
            };
            (way, alone.bytes_per_s, alone.latency_s)
        }
    };
    let time_s = size_bytes / bytes_per_s + latency_s;
    let _ = write!(
        text,
        "{way}; alone {:.3} ms ({:.1} Gb/s, {:.1} us of latency)",
        time_s * 1e3,
        bytes_per_s / BYTES_PER_S_PER_GBPS,
        latency_s * 1e6
    );
    Some(text)
}

/// Where the pools of a run sit: one after the other, at most `replicas` of each.
pub(super) fn sites(config: &RunConfig, deployment: &Deployment, replicas: u32) -> Vec<Site> {
    let site = |pool: &Pool| Site {
        role: pool.role,
        replicas: replicas.min(pool.replicas),
        placement: pool.placement,
        servers_of: match (&config.network.topology, config.gpus_per_node) {
            (Some(file), _) if config.places_pools() => file.display().to_string(),
            (_, Some(_)) => "gpus_per_node".to_owned(),
            (_, None) => pool.device.name.clone(),
        },
        experts: match &deployment.model.moe {
            Some(_) => experts(&pool.parallelism, pool.peers),
            None => String::new(),
        },
        memory: Some(memory_text(pool)),
    };
    deployment.pools.iter().map(site).collect()
}

/// The parts of a GPU's memory, and the KV cache blocks that a rank gets.
fn memory_text(pool: &Pool) -> String {
    let (parts, size) = (pool.memory.parts(), pool.block_size);
    match pool.num_blocks {
        Some(blocks) => format!("{parts}; {blocks} blocks of {size} tokens, as given"),
        None => format!(
            "{parts}, {} blocks of {size} tokens",
            pool.memory.blocks_per_rank
        ),
    }
}

impl Site {
    fn groups(&self) -> impl Iterator<Item = PlacedGroup> {
        (0..self.replicas).flat_map(|replica| self.placement.groups(replica))
    }

    /// A section for people: a line per group. Tensor groups of one GPU are left
    /// out. The pool is named only where there are several.
    pub(super) fn text(&self, several_pools: bool) -> String {
        let gpus_per_server = self.placement.gpus_per_server;
        let mut text = if several_pools {
            format!("{} ", self.role.name())
        } else {
            String::new()
        };
        let _ = write!(
            text,
            "placement on servers of {gpus_per_server} GPUs ({})",
            self.servers_of
        );
        for placed in self.groups() {
            let place = place(&placed, gpus_per_server);
            let _ = match (placed.group, placed.stage, placed.attention_rank) {
                (PlacedGroupKind::Replica, ..) => {
                    write!(text, "\nreplica {}: {place}", placed.replica)
                }
                (PlacedGroupKind::Stage, Some(stage), _) => {
                    write!(text, "\n  stage {stage}: {place}{}", self.experts)
                }
                (_, _, Some(rank)) if self.placement.tensor_parallel > 1 => {
                    write!(text, "\n    tensor group {rank}: {place}")
                }
                _ => Ok(()),
            };
        }
        if let Some(memory) = &self.memory {
            let _ = write!(text, "\nmemory: {memory}");
        }
        text
    }
}

/// How experts are spread over the GPUs of a stage, or of that stage in all
/// replicas that share them.
fn experts(parallelism: &Parallelism, peers: u32) -> String {
    let over = match peers {
        1 => "all of them".to_owned(),
        peers => format!("this stage of {peers} replicas"),
    };
    let ways = parallelism.expert_parallel;
    let mut text = format!(", its experts over {over}: {ways} ways by expert");
    let cuts = parallelism.gpus_per_stage() * peers / ways.max(1);
    if cuts > 1 {
        let _ = write!(text, ", each expert cut {cuts} ways");
    }
    text
}

/// GPUs, numbered over all servers, and the servers; inside one server also its
/// own numbers.
fn place(placed: &PlacedGroup, gpus_per_server: u32) -> String {
    let own: Vec<u32> = placed
        .gpus
        .iter()
        .map(|gpu| gpu % gpus_per_server)
        .collect();
    match placed.servers.as_slice() {
        [server] => format!(
            "{} (server {server}: {})",
            plural("GPU", &placed.gpus),
            span(&own)
        ),
        servers => format!(
            "{} ({})",
            plural("GPU", &placed.gpus),
            plural("server", servers)
        ),
    }
}

fn plural(what: &str, numbers: &[u32]) -> String {
    let ending = if numbers.len() == 1 { "" } else { "s" };
    format!("{what}{ending} {}", span(numbers))
}

/// Consecutive numbers as `first-last`.
fn span(numbers: &[u32]) -> String {
    match numbers {
        [] => String::new(),
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
    }
}

/// A row per group; lists of numbers are separated by spaces.
fn csv(rows: &[Row]) -> String {
    let list = |numbers: &[u32]| {
        let words: Vec<_> = numbers.iter().map(u32::to_string).collect();
        words.join(" ")
    };
    let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
    let mut text = String::from("pool,replica,group,stage,attention_rank,servers,gpus");
    for Row { pool, placed } in rows {
        let _ = write!(
            text,
            "\n{pool},{},{},{},{},{},{}",
            placed.replica,
            placed.group.name(),
            number(placed.stage),
            number(placed.attention_rank),
            list(&placed.servers),
            list(&placed.gpus)
        );
    }
    text
}
