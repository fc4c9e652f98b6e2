//! Which of the package's measurements of routed experts are believed.
//!
//! The collectors made up the routing they measured, and some did so wrongly: in
//! several versions "balanced" rows of one GPU of an expert-parallel group hold far
//! more work than its share (they take as long as without expert parallelism, or
//! longer than under a power law). Only balanced rows are taken over, as other
//! loads follow from them ([`crate::execution_time::expert_load`]), and only where
//! they can be right; of several versions or engines the first that can.

use std::collections::{BTreeMap, BTreeSet};

/// Visits per expert from which arithmetic, not the reading of weights, decides.
const BUSY_VISITS: u64 = 16;
/// Most that balanced work may take over that of the busiest GPU under a power law.
const BALANCED_OVER_POWER_LAW: f64 = 1.1;
/// Most that one of eight GPUs may take of what one alone takes for all experts.
const EIGHTH_OF_EXPERTS: f64 = 0.6;
/// Tokens of an expert that one tile of DeepGEMM's contiguous kernel holds. Where
/// experts had fewer, the collector packed several into a tile, and the weights of
/// most were never read.
const TILE_TOKENS: u64 = 128;

/// One measured point.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExpertsRow {
    pub dtype: String,
    /// `balanced` or `uniform`, or a power law's name.
    pub load: String,
    /// Hidden and intermediate size, experts per token, experts.
    pub layer: [u32; 4],
    pub expert_tensor_parallel: u32,
    pub expert_parallel: u32,
    pub tokens: u32,
    pub latency_ms: f32,
}

impl ExpertsRow {
    fn is_balanced(&self) -> bool {
        matches!(self.load.as_str(), "balanced" | "uniform")
    }

    /// Visits of all tokens over all experts.
    fn visits(&self) -> u64 {
        u64::from(self.tokens) * u64::from(self.layer[2])
    }

    /// Whether every expert is visited at least so often.
    fn visits_each(&self, times: u64) -> bool {
        self.visits() >= times * u64::from(self.layer[3])
    }
}

/// A layer in one format, cut one way.
type Group = (String, [u32; 4], u32);

fn group(row: &ExpertsRow) -> Group {
    (row.dtype.clone(), row.layer, row.expert_tensor_parallel)
}

/// Rows of the engines' own kernels to believe, with the number of the source each
/// is from. Of every layer the first source that can be right in it; if none can,
/// what the first measured of GPUs that hold all experts.
pub(super) fn own_kernels(sources: &[Vec<ExpertsRow>]) -> Vec<(usize, ExpertsRow)> {
    let grouped: Vec<BTreeMap<Group, Vec<&ExpertsRow>>> =
        sources.iter().map(|rows| groups(rows)).collect();
    let all: BTreeSet<&Group> = grouped.iter().flat_map(BTreeMap::keys).collect();
    let mut believed = Vec::new();
    for group in all {
        let of_group = || {
            let sources = grouped.iter().enumerate();
            sources.filter_map(|(source, groups)| Some((source, groups.get(group)?)))
        };
        let sound = of_group().find(|(_, rows)| can_be_right(rows));
        let alone = || of_group().find(|(_, rows)| rows.iter().any(|row| is_whole(row)));
        let (chosen, all_ways) = match sound {
            Some(chosen) => (Some(chosen), true),
            None => (alone(), false),
        };
        let Some((source, rows)) = chosen else {
            continue;
        };
        let kept = rows.iter().filter(|row| match all_ways {
            true => row.is_balanced(),
            false => is_whole(row),
        });
        believed.extend(kept.map(|&row| (source, row.clone())));
    }
    believed
}

fn groups(rows: &[ExpertsRow]) -> BTreeMap<Group, Vec<&ExpertsRow>> {
    let mut groups: BTreeMap<Group, Vec<&ExpertsRow>> = BTreeMap::new();
    for row in rows {
        groups.entry(group(row)).or_default().push(row);
    }
    groups
}

/// A balanced row of a GPU that holds all experts.
fn is_whole(row: &ExpertsRow) -> bool {
    row.is_balanced() && row.expert_parallel == 1
}

/// Whether the balanced rows of a layer cost no more than uneven ones, and expert
/// parallelism divides them. Neither can be judged where only one GPU was measured.
fn can_be_right(rows: &[&ExpertsRow]) -> bool {
    if !rows.iter().any(|row| row.is_balanced()) {
        return false;
    }
    let mut at: BTreeMap<(u32, u32), [Option<f64>; 2]> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.visits_each(BUSY_VISITS)) {
        let point = at.entry((row.expert_parallel, row.tokens)).or_default();
        let uneven = usize::from(!row.is_balanced());
        let own = f64::from(row.latency_ms);
        let slowest = point[uneven].map_or(own, |other| own.max(other));
        point[uneven] = Some(slowest);
    }
    let spread = at.iter().filter(|((ways, _), _)| *ways > 1);
    let mut over: Vec<f64> = spread
        .filter_map(|(_, [even, uneven])| Some((*even)? / (*uneven)?))
        .collect();
    over.sort_by(f64::total_cmp);
    let even_is_no_dearer =
        (over.get(over.len() / 2)).is_none_or(|&median| median <= BALANCED_OVER_POWER_LAW);
    let most = at.keys().map(|&(_, tokens)| tokens).max().unwrap_or(0);
    let even = |ways: u32| at.get(&(ways, most)).and_then(|[even, _]| *even);
    let divided = match (even(1), even(8)) {
        (Some(alone), Some(eighth)) => eighth <= EIGHTH_OF_EXPERTS * alone,
        _ => true,
    };
    even_is_no_dearer && divided
}

/// Rows of DeepGEMM behind DeepEP to believe, with the number of the source each is
/// from. Of every curve the first source that has one; prompts only from whole
/// tiles, decodes only where every expert has a token, as with fewer the collector
/// gave one GPU the work of several.
pub(super) fn deepgemm(sources: &[Vec<ExpertsRow>], prompts: bool) -> Vec<(usize, ExpertsRow)> {
    let least = if prompts { TILE_TOKENS } else { 1 };
    let mut taken: BTreeSet<(Group, u32)> = BTreeSet::new();
    let mut believed = Vec::new();
    for (source, rows) in sources.iter().enumerate() {
        let sound: Vec<&ExpertsRow> = rows
            .iter()
            .filter(|row| row.is_balanced() && row.visits_each(least))
            .collect();
        let curves: BTreeSet<(Group, u32)> = sound
            .iter()
            .map(|row| (group(row), row.expert_parallel))
            .collect();
        let new = sound
            .into_iter()
            .filter(|row| !taken.contains(&(group(row), row.expert_parallel)));
        believed.extend(new.map(|row| (source, row.clone())));
        taken.extend(curves);
    }
    believed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(load: &str, ways: u32, tokens: u32, latency_ms: f32) -> ExpertsRow {
        ExpertsRow {
            dtype: "fp8".into(),
            load: load.into(),
            layer: [7168, 2048, 8, 256],
            expert_tensor_parallel: 1,
            expert_parallel: ways,
            tokens,
            latency_ms,
        }
    }

    #[test]
    fn passes_over_versions_whose_even_work_is_dearer_or_undivided() {
        let dearer = vec![
            row("balanced", 1, 16384, 18.6),
            row("balanced", 8, 16384, 12.06),
            row("power_law_1.01", 8, 16384, 7.04),
        ];
        let undivided = vec![
            row("balanced", 1, 16384, 18.6),
            row("balanced", 8, 16384, 18.5),
            row("power_law_1.01", 8, 16384, 19.0),
        ];
        let sound = vec![
            row("balanced", 1, 16384, 22.0),
            row("balanced", 8, 16384, 5.1),
            row("power_law_1.01", 8, 16384, 6.1),
        ];
        let kept = own_kernels(&[dearer.clone(), undivided.clone(), sound]);
        assert_eq!(kept.len(), 2);
        assert!(
            kept.iter()
                .all(|(source, row)| *source == 2 && row.is_balanced())
        );
        // Nobody can be right: what a single GPU took is all that is left.
        let kept = own_kernels(&[undivided, dearer]);
        assert_eq!(kept, [(0, row("balanced", 1, 16384, 18.6))]);
    }

    #[test]
    fn takes_whole_tiles_and_the_first_version_that_has_some() {
        let newer = vec![row("uniform", 2, 1024, 0.7), row("uniform", 4, 8192, 1.5)];
        let older = vec![row("uniform", 2, 4096, 2.1), row("uniform", 4, 8192, 1.4)];
        let kept = deepgemm(&[newer.clone(), older], true);
        let times: Vec<f32> = kept.iter().map(|(_, row)| row.latency_ms).collect();
        assert_eq!(times, [1.5, 2.1]);
        assert_eq!(deepgemm(&[newer], false).len(), 2);
    }
}
