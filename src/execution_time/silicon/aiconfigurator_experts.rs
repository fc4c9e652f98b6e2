//! Prices of routed experts as AIConfigurator 0.12.0 looks them up, to be compared
//! with: the default tables of the engine, whatever they say, at the load nearest to
//! the one asked for.

use super::curve::CurveSet;
use super::experts::{layer_differences, layers, squared_distance, squared_octaves};
use super::frame::Frame;
use super::speed_of_light::{ExpertLayer, Peaks};
use super::{Found, Missing, Reading, SiliconError, dtypes_like, parse_dtype};
use crate::execution_time::operator::ExpertLoad;
use crate::number::whole_u32;
use crate::units::DType;

/// Largest distance, octaves over all features of a layer together, over which
/// another layer may lend its utilisation.
const REACH: f64 = 3.0;

/// What is said of a price from an earlier version's kernels.
const EARLIER: &str = "kernels of an earlier engine version";

/// Uneven load in thousandths of the power law's exponent; 0: balanced.
type Load = u32;

/// What a curve over tokens is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    dtype: DType,
    load: Load,
    layer: ExpertLayer,
}

/// Routed experts of one layer; curves over tokens of all attention ranks.
#[derive(Debug)]
pub(super) struct AiconfiguratorExperts {
    curves: CurveSet<Key>,
    /// Layers only measured in an earlier version of the engine.
    earlier: CurveSet<Key>,
}

impl AiconfiguratorExperts {
    pub(super) fn build(frame: &Frame, earlier: Option<&Frame>) -> Result<Self, SiliconError> {
        Ok(Self {
            curves: CurveSet::build(points(frame)?),
            earlier: CurveSet::build(earlier.map(points).transpose()?.unwrap_or_default()),
        })
    }

    /// Time on the GPU with the most work when `tokens` are routed in all.
    pub(super) fn price(
        &self,
        peaks: &Peaks,
        tokens: u32,
        layer: ExpertLayer,
        dtype: DType,
        load: ExpertLoad,
    ) -> Result<Found, Missing> {
        let load = thousandths(load);
        for &(dtype, note) in dtypes_like(dtype) {
            let own = Key { dtype, load, layer };
            if let Some(found) = at(peaks, &self.curves, own, f64::from(tokens)) {
                return Ok(found.noted(note));
            }
            if let Some(found) = at(peaks, &self.earlier, own, f64::from(tokens)) {
                return Ok(found.noted(Some(EARLIER)).noted(note));
            }
        }
        for &(dtype, note) in dtypes_like(dtype) {
            let own = Key { dtype, load, layer };
            if let Some(found) = self.borrow(peaks, own, f64::from(tokens)) {
                return Ok(found.noted(note));
            }
        }
        Err(Missing::new(format!(
            "no layer near {}x{}, {} of {} experts in {} measured",
            layer.hidden_size,
            layer.intermediate_size,
            layer.experts_per_token,
            layer.experts,
            dtype.name()
        )))
    }

    /// Time at the utilisation of the most similar layer when each of its
    /// experts sees as many tokens.
    fn borrow(&self, peaks: &Peaks, own: Key, tokens: f64) -> Option<Found> {
        let (_, lender) = self
            .curves
            .keys()
            .iter()
            .filter(|key| key.dtype == own.dtype)
            .map(|key| (distance(key, &own), *key))
            .filter(|&(distance, _)| distance <= REACH)
            .min_by(|a, b| a.0.total_cmp(&b.0))?;
        let busy =
            |layer: ExpertLayer| f64::from(layer.experts_per_token) / f64::from(layer.experts);
        let tokens_there = (tokens * busy(own.layer) / busy(lender.layer))
            .round()
            .max(1.0);
        let mut found = at(peaks, &self.curves, lender, tokens_there)?;
        let ideal = peaks.experts_ms(own.dtype, own.layer, tokens);
        let ideal_there = peaks.experts_ms(lender.dtype, lender.layer, tokens_there);
        if !(ideal > 0.0 && ideal_there > 0.0) {
            return None;
        }
        found.latency_ms *= ideal / ideal_there;
        Some(found.substituted(Some(difference(&lender, &own))))
    }
}

/// Time from the layer's own curve. A single point says nothing of fewer tokens
/// than its own.
fn at(peaks: &Peaks, curves: &CurveSet<Key>, key: Key, tokens: f64) -> Option<Reading> {
    let curve = curves.get(&key)?;
    if curve.coordinates.len() == 1 && tokens < f64::from(curve.coordinates[0]) {
        return None;
    }
    curve.lookup(tokens, 1, |tokens| {
        peaks.experts_ms(key.dtype, key.layer, tokens)
    })
}

fn points(frame: &Frame) -> Result<Vec<(Key, u32, f32)>, SiliconError> {
    let dtypes = frame.texts("dtype")?.parsed(parse_dtype)?;
    let loads = frame.texts("load")?.parsed(parse_load)?;
    let layers = layers(frame)?;
    let tokens = frame.numbers("tokens")?;
    let latencies_ms = frame.latencies_ms()?;
    let mut points = Vec::with_capacity(frame.rows());
    for row in 0..frame.rows() {
        let key = Key {
            dtype: dtypes.of(row),
            load: loads.of(row),
            layer: layers[row],
        };
        points.push((key, tokens[row], latencies_ms[row]));
    }
    Ok(points)
}

/// Octaves between two layers; a different load counts half an octave.
fn distance(key: &Key, own: &Key) -> f64 {
    let (a, b) = (&key.layer, &own.layer);
    let features = squared_distance(a, b) + squared_octaves(a.expert_parallel, b.expert_parallel);
    let load = match (key.load, own.load) {
        (a, b) if a == b => 0.0,
        (0, _) | (_, 0) => 0.5,
        (a, b) => 0.5 * (f64::from(a.abs_diff(b)) / 1e3),
    };
    features.sqrt() + load
}

/// Wherein `lender` differs from `own`.
fn difference(lender: &Key, own: &Key) -> String {
    let (there, here) = (&lender.layer, &own.layer);
    let mut parts = layer_differences(there, here);
    if there.expert_parallel != here.expert_parallel {
        parts.push(format!("expert parallel {}", there.expert_parallel));
    }
    if lender.load != own.load {
        parts.push(match lender.load {
            0 => "balanced load".into(),
            alpha => format!("power-law load {}", f64::from(alpha) / 1e3),
        });
    }
    parts.join(", ")
}

fn thousandths(load: ExpertLoad) -> Load {
    match load {
        ExpertLoad::Balanced | ExpertLoad::Uneven { .. } => 0,
        ExpertLoad::PowerLaw { alpha } => whole_u32((alpha * 1e3).round().clamp(0.0, 1e6)),
    }
}

fn parse_load(name: &str) -> Result<Load, SiliconError> {
    if name == "balanced" {
        return Ok(0);
    }
    name.strip_prefix("power_law_")
        .and_then(|alpha| alpha.parse().ok())
        .map(|alpha| thousandths(ExpertLoad::PowerLaw { alpha }))
        .ok_or_else(|| SiliconError::Malformed {
            file: "moe".into(),
            reason: format!("unknown load `{name}`"),
        })
}
