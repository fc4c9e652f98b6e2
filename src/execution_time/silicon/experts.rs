//! Prices of routed experts on the GPU with the most work.
//!
//! Only balanced work was taken over from the measurements. A GPU that gets more
//! than its share, or holds fewer experts than any that was measured, is priced by
//! what does at least as much as it: of all measured GPUs with no fewer experts, no
//! fewer tokens to handle and no fewer visits, the fastest; or, at the same tokens,
//! between the one with more visits and the one with fewer. So more work never costs
//! less, whatever the noise of the measurements, and more ways of expert parallelism
//! never cost a GPU more. Nothing is faster than peak arithmetic and memory
//! bandwidth allow, and what is far slower says so.

use super::curve::CurveSet;
use super::frame::Frame;
use super::speed_of_light::{ExpertLayer, Peaks};
use super::{Found, How, Missing, Reading, SiliconError, dtypes_like, parse_dtype};
use crate::execution_time::operator::ExpertTokens;
use crate::number::single;
use crate::units::DType;

/// Largest distance, octaves over all features of a layer together, over which
/// another layer may lend its times.
const REACH: f64 = 3.0;

/// Times the bound beyond which a price is doubtful.
pub const DOUBTFUL_MULTIPLE: f64 = 8.0;

/// What a curve over tokens is for. All ways of expert parallelism of a layer lie
/// side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    dtype: DType,
    layer: ExpertLayer,
}

impl Key {
    /// The same with the experts spread over `ways`.
    fn spread_over(self, ways: u32) -> Self {
        Self {
            layer: ExpertLayer {
                expert_parallel: ways,
                ..self.layer
            },
            ..self
        }
    }
}

/// Where a curve comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    /// What was measured, where it is not the engine's own on the device itself.
    substitute: Option<String>,
}

/// Routed experts of one layer by one kind of kernels; curves over all tokens of the
/// group.
#[derive(Debug)]
pub(super) struct ExpertsTable {
    curves: CurveSet<Key>,
    /// One per curve.
    origins: Vec<Origin>,
}

/// Time of a measured GPU, or of one between two.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    reading: Reading,
    /// Number of the curve it is read off, and of the other one.
    curve: usize,
    other_curve: Option<usize>,
}

impl Candidate {
    /// On the straight line to `other`.
    fn towards(self, other: Self, weight: f64) -> Self {
        if weight <= 0.0 {
            return self;
        }
        Self {
            reading: self.reading.towards(other.reading, weight),
            other_curve: Some(other.curve),
            ..self
        }
    }
}

/// Work of the busiest GPU of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct BusiestGpu {
    /// Tokens of the group.
    pub tokens: f64,
    /// Work over the mean of the group.
    pub factor: f64,
    /// How its tokens come to it.
    pub arrival: ExpertTokens,
    /// The layer, and how it is cut and spread.
    pub layer: ExpertLayer,
    /// Format of the experts.
    pub dtype: DType,
}

impl BusiestGpu {
    /// Its share of all visits.
    fn share(&self) -> f64 {
        self.factor / f64::from(self.layer.expert_parallel.max(1))
    }

    /// Visits of tokens to its experts.
    fn visits(&self) -> f64 {
        self.share() * self.tokens * f64::from(self.layer.experts_per_token)
    }

    /// Tokens it handles: all where they are gathered, or else those that visit it.
    fn handled(&self) -> f64 {
        match self.arrival {
            ExpertTokens::Gathered => self.tokens,
            ExpertTokens::Sent | ExpertTokens::SentLowLatency => self.visits().min(self.tokens),
        }
    }

    /// Tokens of a group of `ways` whose balanced GPUs have at least as many visits
    /// and tokens to handle.
    fn covered_by(&self, ways: u32) -> f64 {
        (self.share() * f64::from(ways) * self.tokens).max(self.handled())
    }

    /// The least time that arithmetic and the reading of visited experts take.
    pub(super) fn bound_ms(&self, peaks: &Peaks) -> f64 {
        peaks.busiest_experts_ms(self.dtype, self.layer, self.visits())
    }
}

impl ExpertsTable {
    /// The table of `device`, from one file; `usual` are engine and version of its
    /// first source.
    pub(super) fn build(
        frame: &Frame,
        device: &str,
        peaks: &Peaks,
        usual: &str,
    ) -> Result<Self, SiliconError> {
        let mut curves = measured(frame, device, peaks, usual)?;
        spread_further(peaks, &mut curves);
        curves.sort_by_key(|curve| curve.key);
        curves.iter_mut().for_each(MeasuredCurve::never_fall);
        let keyed = curves
            .iter()
            .map(|curve| (curve.key, curve.points.iter().copied()));
        Ok(Self {
            curves: CurveSet::of_curves(keyed),
            origins: curves.into_iter().map(|curve| curve.origin).collect(),
        })
    }

    /// Time of the busiest GPU.
    pub(super) fn price(&self, peaks: &Peaks, gpu: &BusiestGpu) -> Result<Found, Missing> {
        let formats = dtypes_like(gpu.dtype);
        let own = formats.iter().find_map(|&(dtype, note)| {
            let found = self.at(
                peaks,
                Key {
                    dtype,
                    layer: gpu.layer,
                },
                gpu,
                1.0,
            )?;
            Some(found.noted(note))
        });
        let lent = || {
            formats.iter().find_map(|&(dtype, note)| {
                let key = Key {
                    dtype,
                    layer: gpu.layer,
                };
                Some(self.borrow(peaks, key, gpu)?.noted(note))
            })
        };
        own.or_else(lent).ok_or_else(|| {
            let layer = &gpu.layer;
            Missing::new(format!(
                "no layer near {}x{}, {} of {} experts in {} measured",
                layer.hidden_size,
                layer.intermediate_size,
                layer.experts_per_token,
                layer.experts,
                gpu.dtype.name()
            ))
        })
    }

    /// The fastest of measured GPUs that do at least as much as `gpu`, and of those
    /// between two such, of the layer of `key` spread at most as far. `tokens_there`:
    /// tokens there for one here at equally many visits of each expert.
    fn at(&self, peaks: &Peaks, key: Key, gpu: &BusiestGpu, tokens_there: f64) -> Option<Found> {
        let keys = self.curves.keys();
        let first = keys.partition_point(|other| *other < key.spread_over(0));
        let most = key.spread_over(gpu.layer.expert_parallel);
        let spread_less = (first..).zip(&keys[first..]);
        let spread_less = spread_less.take_while(|(_, other)| **other <= most);
        let share = gpu.share();
        let mut best: Option<Candidate> = None;
        // Of the fewest ways to the most: the fastest so far with all tokens here.
        let mut fewer: Option<(u32, Candidate)> = None;
        for (index, there) in spread_less {
            let ways = there.layer.expert_parallel;
            let even = self.priced(peaks, index, gpu, gpu.tokens * tokens_there);
            let even = even.map(|even| match fewer {
                Some((_, least)) if least.reading.latency_ms < even.reading.latency_ms => least,
                _ => even,
            });
            if let (Some((fewer_ways, more)), Some(less)) = (fewer, even) {
                let most = 1.0 / f64::from(fewer_ways);
                let least = 1.0 / f64::from(ways);
                if (least..most).contains(&share) {
                    let weight = (share - least) / (most - least);
                    keep_faster(&mut best, less.towards(more, weight));
                }
            }
            if let Some(even) = even {
                if share <= 1.0 / f64::from(ways) {
                    keep_faster(&mut best, even);
                }
                fewer = Some((ways, even));
            }
            // As many visits with other tokens, unless those are fewer than there are.
            let tokens = gpu.covered_by(ways);
            if (gpu.arrival != ExpertTokens::Gathered || share * f64::from(ways) >= 1.0)
                && let Some(as_busy) = self.priced(peaks, index, gpu, tokens * tokens_there)
            {
                keep_faster(&mut best, as_busy);
            }
        }
        best.map(|best| self.found(gpu, best))
    }

    /// Time of a measured GPU, by the number of its curve, with `tokens` in its group.
    fn priced(
        &self,
        peaks: &Peaks,
        index: usize,
        gpu: &BusiestGpu,
        tokens: f64,
    ) -> Option<Candidate> {
        let there = self.curves.keys()[index];
        let ideal = |tokens| balanced_ms(peaks, there, tokens);
        let mut reading = self.curves.at(index).lookup(tokens, 1, ideal)?;
        if there.layer.expert_parallel == gpu.layer.expert_parallel && gpu.factor > 1.0 {
            reading.how = reading.how.max(How::Interpolated);
        }
        Some(Candidate {
            reading,
            curve: index,
            other_curve: None,
        })
    }

    /// The time of `candidate` for `gpu`, and what was measured.
    fn found(&self, gpu: &BusiestGpu, candidate: Candidate) -> Found {
        let read_off = |curve: usize| {
            let ways = self.curves.keys()[curve].layer.expert_parallel;
            let other_ways = (ways != gpu.layer.expert_parallel).then_some(ways);
            (candidate.reading)
                .substituted(other_ways.map(|ways| format!("expert parallel {ways}")))
                .substituted(self.origins[curve].substitute.clone())
        };
        let mut found = read_off(candidate.curve);
        if let Some(other) = candidate.other_curve {
            found.add_other_note(read_off(other).from);
        }
        found
    }

    /// Time of the most similar layer with as many visits of each expert, scaled by
    /// the size of all experts, as both arithmetic and weights are.
    fn borrow(&self, peaks: &Peaks, own: Key, gpu: &BusiestGpu) -> Option<Found> {
        let lenders = self
            .curves
            .keys()
            .chunk_by(|a, b| a.dtype == b.dtype && a.layer.is_cut_like(&b.layer));
        let (_, lender) = lenders
            .map(|group| group[0])
            .filter(|key| key.dtype == own.dtype)
            .map(|key| (distance(&key.layer, &own.layer), key))
            .filter(|&(distance, _)| distance <= REACH)
            .min_by(|a, b| a.0.total_cmp(&b.0))?;
        let busy =
            |layer: ExpertLayer| f64::from(layer.experts_per_token) / f64::from(layer.experts);
        let tokens_there = busy(own.layer) / busy(lender.layer);
        let mut found = self.at(peaks, lender, gpu, tokens_there)?;
        found.latency_ms *= own.layer.all_elements() / lender.layer.all_elements();
        Some(found.substituted(difference(&lender.layer, &own.layer)))
    }
}

/// Keeps the faster of two, of equals the later.
fn keep_faster(best: &mut Option<Candidate>, other: Candidate) {
    if best.is_none_or(|least| other.reading.latency_ms <= least.reading.latency_ms) {
        *best = Some(other);
    }
}

/// Puts the floor under a price that no kernel beats, and says if it is far above.
pub(super) fn judged(mut found: Found, bound_ms: f64) -> Found {
    found.latency_ms = found.latency_ms.max(bound_ms);
    if found.latency_ms > DOUBTFUL_MULTIPLE * bound_ms {
        found.doubt = Some(found.latency_ms / bound_ms);
    }
    found
}

/// Whichever of two kernels is faster.
pub(super) fn faster(
    one: Result<Found, Missing>,
    other: Result<Found, Missing>,
) -> Result<Found, Missing> {
    match (one, other) {
        (Ok(one), Ok(other)) if other.latency_ms < one.latency_ms => Ok(other),
        (Err(_), Ok(other)) => Ok(other),
        (one, _) => one,
    }
}

/// A curve on its way into a table.
struct MeasuredCurve {
    key: Key,
    origin: Origin,
    /// Tokens of the group, ascending, and times.
    points: Vec<(u32, f32)>,
}

impl MeasuredCurve {
    /// More tokens are an upper bound of fewer.
    fn never_fall(&mut self) {
        let mut least_ms = f32::INFINITY;
        for (_, latency_ms) in self.points.iter_mut().rev() {
            least_ms = least_ms.min(*latency_ms);
            *latency_ms = least_ms;
        }
    }

    /// The same at the same utilisation with the experts spread as `key` says.
    fn spread_as(&self, key: Key, peaks: &Peaks) -> Self {
        let further = |&(tokens, latency_ms): &(u32, f32)| {
            let ideal = |key: Key| balanced_ms(peaks, key, f64::from(tokens));
            let scaled = f64::from(latency_ms) * ideal(key) / ideal(self.key);
            (tokens, single(scaled))
        };
        let from = format!("expert parallel {}", self.key.layer.expert_parallel);
        let substitute = match &self.origin.substitute {
            Some(other) => format!("{from}, {other}"),
            None => from,
        };
        Self {
            key,
            origin: Origin {
                substitute: Some(substitute),
            },
            points: self.points.iter().map(further).collect(),
        }
    }
}

/// The least time of a GPU that has its even share of `tokens`.
fn balanced_ms(peaks: &Peaks, key: Key, tokens: f64) -> f64 {
    let layer = key.layer;
    let visits = tokens * f64::from(layer.experts_per_token) / f64::from(layer.expert_parallel);
    peaks.busiest_experts_ms(key.dtype, layer, visits)
}

/// Adds curves for the ways of expert parallelism that nobody measured, powers of two,
/// from fewer ways at the same utilisation, to `curves` that stand in order.
fn spread_further(peaks: &Peaks, curves: &mut Vec<MeasuredCurve>) {
    let known = curves.len();
    for index in 0..known {
        let own = curves[index].key;
        let mut further = own;
        while let Some(ways) = further.layer.expert_parallel.checked_mul(2) {
            further = own.spread_over(ways);
            let is_known = curves[..known].binary_search_by_key(&further, |curve| curve.key);
            if ways > own.layer.experts || is_known.is_ok() {
                break;
            }
            curves.push(curves[index].spread_as(further, peaks));
        }
    }
}

/// The layer of each row.
pub(super) fn layers(frame: &Frame) -> Result<Vec<ExpertLayer>, SiliconError> {
    let hidden_size = frame.numbers("hidden_size")?;
    let intermediate_size = frame.numbers("intermediate_size")?;
    let experts_per_token = frame.numbers("experts_per_token")?;
    let experts = frame.numbers("experts")?;
    let expert_tensor_parallel = frame.numbers("expert_tensor_parallel")?;
    let expert_parallel = frame.numbers("expert_parallel")?;
    let layer = |row: usize| ExpertLayer {
        hidden_size: hidden_size[row],
        intermediate_size: intermediate_size[row],
        experts_per_token: experts_per_token[row],
        experts: experts[row],
        expert_tensor_parallel: expert_tensor_parallel[row],
        expert_parallel: expert_parallel[row],
    };
    Ok((0..frame.rows()).map(layer).collect())
}

/// What was measured for `device`, or for another one and scaled, in order. Of equal
/// points the first counts.
fn measured(
    frame: &Frame,
    device: &str,
    peaks: &Peaks,
    usual: &str,
) -> Result<Vec<MeasuredCurve>, SiliconError> {
    let dtypes = frame.texts("dtype")?.parsed(parse_dtype)?;
    let devices = frame.texts("device")?;
    let kernels = frame.texts("kernels")?;
    let layers = layers(frame)?;
    let tokens = frame.numbers("tokens")?;
    let latencies_ms = frame.latencies_ms()?;
    let mut rows: Vec<(Key, u32, usize)> = (0..frame.rows())
        .map(|row| {
            let layer = ExpertLayer {
                expert_parallel: layers[row].expert_parallel.max(1),
                ..layers[row]
            };
            let dtype = dtypes.of(row);
            (Key { dtype, layer }, tokens[row], row)
        })
        .collect();
    // Tables stand nearly in this order.
    rows.sort();
    rows.dedup_by_key(|&mut (key, tokens, _)| (key, tokens));
    let latency_ms = |key: Key, row: usize| -> Result<f32, SiliconError> {
        let measured = devices.value(row);
        if measured == device {
            return Ok(latencies_ms[row]);
        }
        let there = Peaks::of(measured).ok_or_else(|| SiliconError::Malformed {
            file: "experts".into(),
            reason: format!("unknown device `{measured}`"),
        })?;
        let ideal = |peaks| balanced_ms(peaks, key, f64::from(tokens[row]));
        let scaled = f64::from(latencies_ms[row]) * ideal(peaks) / ideal(&there);
        Ok(single(scaled))
    };
    let substitute = |row: usize| match (devices.value(row), kernels.value(row)) {
        (measured, kernels) if measured != device => Some(format!("{measured}, {kernels}")),
        (_, kernels) => (kernels != usual).then(|| kernels.to_owned()),
    };
    let curve = |rows: &[(Key, u32, usize)]| {
        let (key, _, first) = rows[0];
        let point = |&(key, tokens, row): &(Key, u32, usize)| Ok((tokens, latency_ms(key, row)?));
        Ok(MeasuredCurve {
            key,
            origin: Origin {
                substitute: substitute(first),
            },
            points: rows
                .iter()
                .map(point)
                .collect::<Result<_, SiliconError>>()?,
        })
    };
    rows.chunk_by(|a, b| a.0 == b.0).map(curve).collect()
}

/// Octaves between two layers, however far their experts are spread.
fn distance(a: &ExpertLayer, b: &ExpertLayer) -> f64 {
    squared_distance(a, b).sqrt()
}

/// Ratio of two sizes in octaves, squared.
pub(super) fn squared_octaves(a: u32, b: u32) -> f64 {
    (f64::from(a) / f64::from(b)).log2().powi(2)
}

/// Squared octaves between two layers, however far their experts are spread.
pub(super) fn squared_distance(a: &ExpertLayer, b: &ExpertLayer) -> f64 {
    squared_octaves(a.hidden_size, b.hidden_size)
        + squared_octaves(a.intermediate_size, b.intermediate_size)
        + squared_octaves(a.experts_per_token, b.experts_per_token)
        + squared_octaves(a.experts, b.experts)
        + squared_octaves(a.expert_tensor_parallel, b.expert_tensor_parallel)
}

/// Wherein the layer of `there` differs from `here`.
fn difference(there: &ExpertLayer, here: &ExpertLayer) -> Option<String> {
    let parts = layer_differences(there, here);
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Wherein the layer of `there` differs from `here`, one phrase each.
pub(super) fn layer_differences(there: &ExpertLayer, here: &ExpertLayer) -> Vec<String> {
    let mut parts = Vec::new();
    if (there.hidden_size, there.intermediate_size) != (here.hidden_size, here.intermediate_size) {
        parts.push(format!(
            "experts {}x{}",
            there.hidden_size, there.intermediate_size
        ));
    }
    if (there.experts_per_token, there.experts) != (here.experts_per_token, here.experts) {
        parts.push(format!(
            "{} of {} experts",
            there.experts_per_token, there.experts
        ));
    }
    if there.expert_tensor_parallel != here.expert_tensor_parallel {
        parts.push(format!(
            "expert tensor parallel {}",
            there.expert_tensor_parallel
        ));
    }
    parts
}
