//! Which GPUs form the groups of a parallel layout over a whole topology.

use crate::network::collective::GroupKind;

/// Sizes of a parallel layout: ranks are numbered tensor parallel first, then
/// expert, then data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// GPUs in all.
    pub gpus: u32,
    /// Ranks of a tensor parallel group.
    pub tensor_parallel: u32,
    /// Ranks of an expert parallel group.
    pub expert_parallel: u32,
}

/// A layout that does not fill the topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("groups of {size} ranks (tp {tensor} x ep {expert}) do not fill {gpus} GPUs")]
pub struct LayoutError {
    size: u32,
    tensor: u32,
    expert: u32,
    gpus: u32,
}

impl Layout {
    /// The groups of a kind, all of them: each GPU is in one.
    pub fn groups(&self, kind: GroupKind) -> Result<Vec<Vec<u32>>, LayoutError> {
        let Self {
            gpus,
            tensor_parallel: tensor,
            expert_parallel: expert,
        } = *self;
        // A group is `count` ranks a `stride` apart, within a block.
        let (stride, count) = match kind {
            GroupKind::Tensor => (1, Some(tensor)),
            GroupKind::Expert => (tensor, Some(expert)),
            GroupKind::Data => (tensor, gpus.checked_div(tensor)),
            GroupKind::DataExpert => {
                let block = tensor.saturating_mul(expert);
                (block, gpus.checked_div(block))
            }
        };
        let block = stride.saturating_mul(count.unwrap_or(0));
        if block == 0 || gpus == 0 || !gpus.is_multiple_of(block) {
            return Err(LayoutError {
                size: block,
                tensor,
                expert,
                gpus,
            });
        }
        let count = count.unwrap_or(0);
        let firsts = (0..gpus / block).flat_map(|b| (0..stride).map(move |k| b * block + k));
        let group = |first: u32| (0..count).map(|member| first + member * stride).collect();
        Ok(firsts.map(group).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_tile_the_gpus() {
        let layout = Layout {
            gpus: 8,
            tensor_parallel: 2,
            expert_parallel: 2,
        };
        let groups = |kind| layout.groups(kind).unwrap();
        assert_eq!(groups(GroupKind::Tensor), [[0, 1], [2, 3], [4, 5], [6, 7]]);
        assert_eq!(groups(GroupKind::Expert), [[0, 2], [1, 3], [4, 6], [5, 7]]);
        assert_eq!(groups(GroupKind::Data), [[0, 2, 4, 6], [1, 3, 5, 7]]);
        assert_eq!(
            groups(GroupKind::DataExpert),
            [[0, 4], [1, 5], [2, 6], [3, 7]]
        );
        let uneven = Layout {
            tensor_parallel: 3,
            ..layout
        };
        assert!(uneven.groups(GroupKind::Tensor).is_err());
    }
}
