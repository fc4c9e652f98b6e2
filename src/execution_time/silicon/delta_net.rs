//! Prices of gated delta net kernels: convolution and recurrence, summed.

use super::curve::CurveSet;
use super::frame::Frame;
use super::grid::GridSet;
use super::speed_of_light::{DeltaHeads, Peaks};
use super::{Found, Missing, SiliconError};

/// Largest distance, octaves of key and value heads together, over which other
/// numbers of heads may lend their utilisation.
const REACH: f64 = 3.0;

/// The two kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kernel {
    Convolution,
    Recurrence,
}

/// A kernel with its key and value heads.
type Key = (Kernel, [u32; 2]);

/// Kernels; prefill over batch and tokens, decode over batch.
#[derive(Debug)]
pub(super) struct DeltaNetTable {
    prefill: GridSet<Key>,
    decode: CurveSet<Key>,
}

/// A gated delta net operator on one GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaNet {
    pub prefill: bool,
    pub batch: u32,
    pub new_tokens: u32,
    /// Key and value heads.
    pub heads: [u32; 2],
    /// Widths of a key and of a value head.
    pub widths: [u32; 2],
}

impl DeltaNetTable {
    pub(super) fn build(frame: &Frame) -> Result<Self, SiliconError> {
        let phases = frame.texts("phase")?;
        let kernels = frame.texts("kernel")?;
        let key_heads = frame.numbers("key_heads")?;
        let value_heads = frame.numbers("value_heads")?;
        let batch = frame.numbers("batch")?;
        let tokens = frame.numbers("tokens")?;
        let latencies_ms = frame.latencies_ms()?;
        let (mut prefill, mut decode) = (Vec::new(), Vec::new());
        for row in 0..frame.rows() {
            let kernel = match kernels.value(row) {
                "convolution" => Kernel::Convolution,
                _ => Kernel::Recurrence,
            };
            let key = (kernel, [key_heads[row], value_heads[row]]);
            let latency_ms = latencies_ms[row];
            if phases.value(row) == "prefill" {
                prefill.push((key, [1, batch[row], tokens[row]], latency_ms));
            } else {
                decode.push((key, batch[row], latency_ms));
            }
        }
        Ok(Self {
            prefill: GridSet::build(prefill),
            decode: CurveSet::build(decode),
        })
    }

    /// Time of both kernels.
    pub(super) fn price(&self, peaks: &Peaks, net: DeltaNet) -> Result<Found, Missing> {
        if net
            .widths
            .iter()
            .any(|&width| f64::from(width) != DeltaHeads::WIDTH)
        {
            return Err(Missing::new("only heads of width 128 were measured"));
        }
        let convolution = self.kernel(peaks, net, Kernel::Convolution)?;
        Ok(convolution.plus(self.kernel(peaks, net, Kernel::Recurrence)?))
    }

    fn kernel(&self, peaks: &Peaks, net: DeltaNet, kernel: Kernel) -> Result<Found, Missing> {
        let keys = if net.prefill {
            self.prefill.keys()
        } else {
            self.decode.keys()
        };
        let octaves = |a: u32, b: u32| (f64::from(a) / f64::from(b)).log2();
        let distance = |heads: [u32; 2]| {
            octaves(heads[0], net.heads[0]).hypot(octaves(heads[1], net.heads[1]))
        };
        let (_, heads) = keys
            .iter()
            .filter(|key| key.0 == kernel)
            .map(|key| (distance(key.1), key.1))
            .filter(|&(distance, _)| distance <= REACH)
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .ok_or_else(|| {
                let what = if net.prefill { "prefill" } else { "decode" };
                let [key, value] = net.heads;
                Missing::new(format!(
                    "no {what} {kernel:?} near {key} key and {value} value heads measured"
                ))
            })?;
        let ideal = |heads: [u32; 2], batch: f64, tokens: f64| {
            let heads = DeltaHeads {
                key: f64::from(heads[0]),
                value: f64::from(heads[1]),
            };
            match kernel {
                Kernel::Convolution => {
                    peaks.convolution_ms(heads, if net.prefill { batch * tokens } else { batch })
                }
                Kernel::Recurrence => {
                    peaks.recurrence_ms(heads, batch, net.prefill.then_some(tokens))
                }
            }
        };
        let (batch, tokens) = (f64::from(net.batch), f64::from(net.new_tokens));
        let found = if net.prefill {
            let there = |at: [f64; 3]| ideal(heads, at[1], at[2]);
            self.prefill
                .get(&(kernel, heads))
                .and_then(|grid| grid.lookup([1.0, batch, tokens], None, there))
        } else {
            self.decode
                .get(&(kernel, heads))
                .and_then(|curve| curve.lookup(batch, 1, |batch| ideal(heads, batch, 1.0)))
        };
        let found = found.ok_or_else(|| Missing::new("nothing measured to hold on to"))?;
        if heads == net.heads {
            return Ok(found.into());
        }
        let carried = ideal(net.heads, batch, tokens) / ideal(heads, batch, tokens);
        let note = format!("{} key and {} value heads", heads[0], heads[1]);
        Ok(found.share(carried).substituted(Some(note)))
    }
}
