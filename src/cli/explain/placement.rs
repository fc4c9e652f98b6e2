//! Where the replicas of `explain` sit: which GPUs of which servers form their
//! stages and tensor groups.

use std::fmt::Write as _;

use super::deployment::Deployment;
use super::{CliError, Format};
use crate::network::{PlacedGroup, PlacedGroupKind};

/// The placement alone, in the format asked for.
pub(super) fn only(
    deployment: &Deployment,
    replicas: u32,
    format: Format,
) -> Result<String, CliError> {
    let groups = groups(deployment, replicas);
    match format {
        Format::Table => Ok(format!(
            "{}\n{}",
            deployment.title(),
            text(deployment, replicas)
        )),
        Format::Json => serde_json::to_string_pretty(&groups)
            .map_err(|error| CliError::Failure(error.to_string())),
        Format::Csv => Ok(csv(&groups)),
    }
}

fn groups(deployment: &Deployment, replicas: u32) -> Vec<PlacedGroup> {
    let placement = deployment.placement();
    (0..replicas)
        .flat_map(|replica| placement.groups(replica))
        .collect()
}

/// A section for people: a line per group. Tensor groups of one GPU are left
/// out.
pub(super) fn text(deployment: &Deployment, replicas: u32) -> String {
    let placement = deployment.placement();
    let mut text = format!(
        "placement on servers of {} GPUs ({})",
        placement.gpus_per_server,
        deployment.servers_of()
    );
    for placed in groups(deployment, replicas) {
        let place = place(&placed, placement.gpus_per_server);
        let PlacedGroup {
            replica,
            stage,
            attention_rank,
            ..
        } = placed;
        let _ = match (placed.group, stage, attention_rank) {
            (PlacedGroupKind::Stage, Some(stage), _) => {
                write!(text, "\n  stage {stage}: {place}{}", experts(deployment))
            }
            (PlacedGroupKind::Tensor, _, Some(rank)) if placement.tensor_parallel > 1 => {
                write!(text, "\n    tensor group {rank}: {place}")
            }
            (PlacedGroupKind::Replica, ..) => write!(text, "\nreplica {replica}: {place}"),
            _ => Ok(()),
        };
    }
    text
}

/// How the experts of a stage are spread over its GPUs.
fn experts(deployment: &Deployment) -> String {
    let parallelism = deployment.parallelism();
    if !deployment.has_experts() {
        return String::new();
    }
    let mut text = format!(
        ", its experts over all of them: {} ways by expert",
        parallelism.expert_parallel
    );
    if parallelism.expert_tensor_parallel() > 1 {
        let cuts = parallelism.expert_tensor_parallel();
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
fn csv(groups: &[PlacedGroup]) -> String {
    let list = |numbers: &[u32]| {
        let words: Vec<_> = numbers.iter().map(u32::to_string).collect();
        words.join(" ")
    };
    let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
    let mut text = String::from("replica,group,stage,attention_rank,servers,gpus");
    for placed in groups {
        let _ = write!(
            text,
            "\n{},{},{},{},{},{}",
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
