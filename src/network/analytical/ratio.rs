//! Efficiency of a collective by size and number of nodes: the three tables
//! that ship with SimAI, as recorded.
use crate::number::single;

/// Message sizes of the rows, 16 MiB to 16 GiB, bytes.
const SIZES: [f64; ROWS] = [
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
    134_217_728.0,
    268_435_456.0,
    536_870_912.0,
    1_073_741_824.0,
    2_147_483_648.0,
    4_294_967_296.0,
    8_589_934_592.0,
    17_179_869_184.0,
];
const ROWS: usize = 11;

type Column = [f64; ROWS];

/// Largest size the tables know, bytes.
pub(super) const LARGEST_BYTES: u64 = 1 << 34;

/// Which table applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RatioTable {
    /// All-gather and reduce-scatter bound by NVLink.
    NvLink,
    /// All-gather and reduce-scatter bound by NICs.
    Nic,
    /// All-to-all.
    AllToAll,
}

/// Column for groups of a number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeColumn(usize);

impl NodeColumn {
    /// Column of `nodes`: sizes that have none use that of 16 nodes, and nine
    /// names the column "multiple groups on 16 nodes".
    pub(super) fn of_nodes(nodes: u32) -> Self {
        Self(match nodes {
            1 => 0,
            2 => 1,
            4 => 2,
            8 => 3,
            32 => 5,
            64 => 6,
            128 => 7,
            9 => 8,
            _ => 4,
        })
    }
}

/// What a cell without a figure counts as.
const EMPTY: Column = [1.0; ROWS];
const SEVERAL_GROUPS: Column = [
    0.86, 0.92, 0.94, 0.94, 0.94, 0.95, 0.96, 0.96, 0.96, 0.96, 0.96,
];
const RING_ONE_NODE: Column = [
    0.45, 0.55, 0.65, 0.69, 0.73, 0.76, 0.77, 0.78, 0.79, 0.80, 0.81,
];

const NVLINK: [Column; 9] = [
    RING_ONE_NODE,
    [
        0.55, 0.68, 0.74, 0.80, 0.84, 0.86, 0.87, 0.87, 0.88, 0.88, 0.88,
    ],
    [
        0.34, 0.60, 0.71, 0.74, 0.79, 0.86, 0.87, 0.87, 0.88, 0.88, 0.88,
    ],
    [
        0.16, 0.34, 0.62, 0.70, 0.78, 0.82, 0.86, 0.87, 0.88, 0.88, 0.88,
    ],
    [
        0.08, 0.16, 0.33, 0.65, 0.72, 0.75, 0.83, 0.86, 0.87, 0.88, 0.88,
    ],
    EMPTY,
    EMPTY,
    EMPTY,
    SEVERAL_GROUPS,
];

const NIC: [Column; 9] = [
    RING_ONE_NODE,
    [
        0.32, 0.47, 0.50, 0.67, 0.85, 0.89, 0.92, 0.94, 0.95, 0.95, 0.96,
    ],
    [
        0.24, 0.38, 0.53, 0.67, 0.77, 0.85, 0.93, 0.94, 0.95, 0.96, 0.96,
    ],
    [
        0.13, 0.24, 0.39, 0.54, 0.69, 0.78, 0.90, 0.94, 0.95, 0.96, 0.96,
    ],
    [
        0.05, 0.11, 0.21, 0.38, 0.57, 0.73, 0.76, 0.92, 0.95, 0.96, 0.96,
    ],
    [
        0.044, 0.052, 0.106, 0.205, 0.387, 0.562, 0.74, 0.758, 0.923, 0.953, 0.957,
    ],
    [
        0.021, 0.042, 0.051, 0.107, 0.209, 0.384, 0.563, 0.745, 0.755, 0.914, 0.958,
    ],
    [
        0.0087, 0.021225, 0.04405, 0.0533, 0.1027, 0.1902, 0.314575, 0.553525, 0.740175, 0.7648,
        0.919175,
    ],
    SEVERAL_GROUPS,
];

const ALL_TO_ALL: [Column; 9] = [
    [
        0.44, 0.51, 0.60, 0.65, 0.70, 0.71, 0.74, 0.76, 0.77, 0.78, 0.78,
    ],
    [
        0.52, 0.63, 0.72, 0.76, 0.79, 0.80, 0.81, 0.81, 0.80, 0.80, 0.80,
    ],
    [
        0.67, 0.68, 0.83, 0.90, 0.92, 0.94, 0.94, 0.95, 0.95, 0.95, 0.95,
    ],
    [
        0.64, 0.67, 0.82, 0.85, 0.87, 0.89, 0.92, 0.93, 0.94, 0.94, 0.94,
    ],
    [
        0.62, 0.66, 0.66, 0.72, 0.75, 0.81, 0.85, 0.88, 0.89, 0.90, 0.90,
    ],
    EMPTY,
    EMPTY,
    EMPTY,
    SEVERAL_GROUPS,
];

/// Efficiency at `bytes` relative to that of the largest size: straight lines
/// between rows, the first row below them. `None` above the largest.
pub(super) fn ratio(table: RatioTable, column: NodeColumn, bytes: u64) -> Option<f32> {
    let columns = match table {
        RatioTable::NvLink => &NVLINK,
        RatioTable::Nic => &NIC,
        RatioTable::AllToAll => &ALL_TO_ALL,
    };
    let values = &columns[column.0];
    if bytes == 0 {
        return Some(1.0);
    }
    if bytes > LARGEST_BYTES {
        return None;
    }
    let size = bytes as f64;
    let above = SIZES.partition_point(|&row| row < size);
    let value = if above == 0 {
        values[0]
    } else {
        let (low, high) = (SIZES[above - 1], SIZES[above]);
        values[above - 1] + (values[above] - values[above - 1]) * (size - low) / (high - low)
    };
    Some(single(value / values[ROWS - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_met_and_lines_join_them() {
        let two_nodes = NodeColumn::of_nodes(2);
        let at = |bytes| ratio(RatioTable::Nic, two_nodes, bytes).unwrap();
        assert!((at(1 << 24) - 0.32 / 0.96).abs() < 1e-6);
        assert!((at(3 << 23) - 0.395 / 0.96).abs() < 1e-6, "half way up");
        assert_eq!(at(1 << 20), at(1 << 24), "flat below the first row");
        assert_eq!(at(1 << 34), 1.0);
        assert_eq!(ratio(RatioTable::Nic, two_nodes, (1 << 34) + 1), None);
    }

    #[test]
    fn node_counts_without_a_column_use_sixteen() {
        assert_eq!(NodeColumn::of_nodes(3), NodeColumn::of_nodes(16));
        assert_ne!(NodeColumn::of_nodes(9), NodeColumn::of_nodes(16));
    }
}
