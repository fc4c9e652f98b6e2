//! `SimAI.conf`: what of it matters to a flow-level model.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::input_file::InputKind;
use crate::limits::PACKET_BYTES_MAX;
use crate::network::topology::TopologyError;
use crate::spelling;

/// Settings of a simulation, from `SimAI.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimaiConf {
    /// Payload of a packet (`PACKET_PAYLOAD_SIZE`).
    pub packet_payload_bytes: u64,
    /// Flows keep at most a window of unacknowledged bytes (`HAS_WIN`).
    pub windows: bool,
    /// Switches mark packets and senders slow down on marks (`ENABLE_QCN` with
    /// `CC_MODE` 1, DCQCN).
    pub congestion_control: bool,
    /// Queue above which a switch begins to mark, bytes, by the port's bandwidth
    /// in bits per second (`KMIN_MAP`, in kilobytes).
    pub marking_bytes: BTreeMap<u64, u64>,
    /// Keys of the file that SimAI does not know either, with their lines.
    pub unknown_keys: Vec<(usize, String)>,
}

impl Default for SimaiConf {
    fn default() -> Self {
        let kilobytes = [
            (25, 100),
            (50, 200),
            (100, 400),
            (200, 300),
            (400, 800),
            (1600, 600),
        ];
        Self {
            packet_payload_bytes: 9000,
            windows: true,
            congestion_control: true,
            marking_bytes: kilobytes
                .map(|(gbps, kb)| (gbps * 1_000_000_000, kb * 1000))
                .into(),
            unknown_keys: Vec::new(),
        }
    }
}

/// Keys that matter.
const WITH_EFFECT: [&str; 5] = [
    "PACKET_PAYLOAD_SIZE",
    "HAS_WIN",
    "ENABLE_QCN",
    "CC_MODE",
    "KMIN_MAP",
];

/// Keys that SimAI reads and that change nothing here: queues, congestion
/// control and traces are below the level of flows.
const WITHOUT_EFFECT: [&str; 49] = [
    "USE_DYNAMIC_PFC_THRESHOLD",
    "CLAMP_TARGET_RATE",
    "PAUSE_TIME",
    "DATA_RATE",
    "LINK_DELAY",
    "L2_CHUNK_SIZE",
    "L2_ACK_INTERVAL",
    "L2_BACK_TO_ZERO",
    "FLOW_FILE",
    "TRACE_FILE",
    "TRACE_OUTPUT_FILE",
    "SIMULATOR_STOP_TIME",
    "ALPHA_RESUME_INTERVAL",
    "RP_TIMER",
    "EWMA_GAIN",
    "FAST_RECOVERY_TIMES",
    "RATE_AI",
    "RATE_HAI",
    "ERROR_RATE_PER_LINK",
    "RATE_DECREASE_INTERVAL",
    "MIN_RATE",
    "FCT_OUTPUT_FILE",
    "GLOBAL_T",
    "MI_THRESH",
    "VAR_WIN",
    "FAST_REACT",
    "U_TARGET",
    "INT_MULTI",
    "RATE_BOUND",
    "ACK_HIGH_PRIO",
    "DCTCP_RATE_AI",
    "NIC_TOTAL_PAUSE_TIME",
    "PFC_OUTPUT_FILE",
    "LINK_DOWN",
    "ENABLE_TRACE",
    "KMAX_MAP",
    "PMAX_MAP",
    "BUFFER_SIZE",
    "QLEN_MON_FILE",
    "BW_MON_FILE",
    "RATE_MON_FILE",
    "CNP_MON_FILE",
    "MON_START",
    "MON_END",
    "QP_MON_INTERVAL",
    "BW_MON_INTERVAL",
    "QLEN_MON_INTERVAL",
    "MULTI_RATE",
    "SAMPLE_FEEDBACK",
];

impl SimaiConf {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, TopologyError> {
        Self::parse(
            &TopologyError::read(path, InputKind::SimaiConf)?,
            &path.display().to_string(),
        )
    }

    /// Reads the text of a file: a key and its values on every line.
    pub fn parse(text: &str, file: &str) -> Result<Self, TopologyError> {
        let mut conf = Self::default();
        let (mut marks, mut slows_down) = (true, true);
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            let Some(key) = words.next() else { continue };
            let value = words.next().unwrap_or_default();
            let number = |allowed: RangeInclusive<u64>| {
                let number = value.parse().ok().filter(|number| allowed.contains(number));
                number.ok_or_else(|| TopologyError {
                    file: file.to_owned(),
                    position: Some((index + 1, line.rfind(value).map_or(1, |at| at + 1))),
                    message: format!(
                        "{key}: value `{value}` is not allowed; allowed is a whole number from \
                         {} to {}",
                        allowed.start(),
                        allowed.end()
                    ),
                })
            };
            match key {
                "PACKET_PAYLOAD_SIZE" => conf.packet_payload_bytes = number(1..=PACKET_BYTES_MAX)?,
                "HAS_WIN" => conf.windows = number(0..=u64::from(u32::MAX))? != 0,
                "ENABLE_QCN" => marks = number(0..=u64::from(u32::MAX))? != 0,
                "CC_MODE" => slows_down = number(0..=u64::from(u32::MAX))? == 1,
                "KMIN_MAP" => conf.marking_bytes = rate_map(line, index + 1, file)?,
                // PINT is a variant of congestion control.
                _ if WITHOUT_EFFECT.contains(&key) || key.starts_with("PINT_") => {}
                _ => conf.unknown_keys.push((index + 1, key.to_owned())),
            }
        }
        conf.congestion_control = marks && slows_down;
        Ok(conf)
    }

    /// A sentence per unknown key.
    pub fn warnings(&self, file: &str) -> Vec<String> {
        let known = || WITH_EFFECT.into_iter().chain(WITHOUT_EFFECT);
        let warn = |(line, key): &(usize, String)| {
            let hint = spelling::nearest(key, known())
                .map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
            format!("{file}:{line}:1: SimAI has no setting `{key}`{hint}; ignored")
        };
        self.unknown_keys.iter().map(warn).collect()
    }
}

/// `KMIN_MAP count rate kilobytes rate kilobytes ...`.
fn rate_map(line: &str, number: usize, file: &str) -> Result<BTreeMap<u64, u64>, TopologyError> {
    let words: Vec<Option<u64>> = line
        .split_whitespace()
        .skip(1)
        .map(|word| word.parse().ok())
        .collect();
    let pairs = match words.split_first() {
        Some((Some(count), rest)) if Some(rest.len() as u64) == count.checked_mul(2) => {
            rest.chunks_exact(2)
        }
        _ => {
            return Err(TopologyError {
                file: file.to_owned(),
                position: Some((number, 1)),
                message: "KMIN_MAP must be a count and as many pairs of rate and kilobytes".into(),
            });
        }
    };
    let pairs = pairs.filter_map(|pair| Some((pair[0]?, pair[1]?.saturating_mul(1000))));
    Ok(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_and_windows_are_read_the_rest_is_known() {
        let text = "ENABLE_QCN 1\n\nPACKET_PAYLOAD_SIZE 4096\nHAS_WIN 0\nKMIN_MAP 1 100000000000 400\nHAS_WON 1\n";
        let conf = SimaiConf::parse(text, "c").unwrap();
        assert_eq!((conf.packet_payload_bytes, conf.windows), (4096, false));
        assert_eq!(conf.marking_bytes[&100_000_000_000], 400_000);
        assert!(conf.congestion_control);
        assert_eq!(
            conf.warnings("c"),
            ["c:6:1: SimAI has no setting `HAS_WON` (did you mean `HAS_WIN`?); ignored"]
        );
        let wrong = SimaiConf::parse("PACKET_PAYLOAD_SIZE no", "c").unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "c:1:21: PACKET_PAYLOAD_SIZE: value `no` is not allowed; allowed is a whole number from \
             1 to 1073741824"
        );
    }
}
