//! Prices of the exchange of tokens between expert-parallel GPUs (DeepEP's
//! low-latency and throughput kernels).

use super::curve::CurveSet;
use super::frame::Frame;
use super::{Found, How, Missing, SiliconError};

/// Largest distance, octaves of payload width and experts together, over which
/// another model's exchange may stand in.
const REACH: f64 = 3.0;

/// Towards the experts, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Dispatch,
    Combine,
}

/// What a curve over tokens per GPU is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    low_latency: bool,
    direction: Direction,
    gpus: u32,
    model: Payload,
}

/// What is sent for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Payload {
    pub hidden_size: u32,
    pub experts_per_token: u32,
    pub experts: u32,
}

impl Payload {
    fn width(self) -> f64 {
        f64::from(self.hidden_size) * f64::from(self.experts_per_token)
    }

    fn distance(self, other: Self) -> f64 {
        let octaves = |a: f64, b: f64| (a / b).log2();
        let experts = octaves(f64::from(self.experts), f64::from(other.experts));
        octaves(self.width(), other.width()).hypot(experts)
    }
}

/// Exchange kernels; curves over tokens per GPU.
#[derive(Debug)]
pub(super) struct ExchangeTable {
    curves: CurveSet<Key>,
    gpus_per_node: u32,
}

impl ExchangeTable {
    /// Joins `frames`; of curves for the same exchange the first stays whole.
    pub(super) fn build(frames: &[Frame]) -> Result<Self, SiliconError> {
        /// GPUs per node of the machines measured.
        const GPUS_PER_NODE: u32 = 8;
        let mut joined: Vec<(Key, u32, f32)> = Vec::new();
        for frame in frames {
            let modes = frame.texts("mode")?;
            let phases = frame.texts("phase")?;
            let gpus = frame.numbers("gpus")?;
            let hidden_size = frame.numbers("hidden_size")?;
            let experts_per_token = frame.numbers("experts_per_token")?;
            let experts = frame.numbers("experts")?;
            let tokens = frame.numbers("tokens")?;
            let latencies_ms = frame.latencies_ms()?;
            let taken = CurveSet::build(joined.clone());
            for row in 0..frame.rows() {
                let key = Key {
                    low_latency: modes.value(row) == "low_latency",
                    direction: match phases.value(row) {
                        "dispatch" => Direction::Dispatch,
                        _ => Direction::Combine,
                    },
                    gpus: gpus[row],
                    model: Payload {
                        hidden_size: hidden_size[row],
                        experts_per_token: experts_per_token[row],
                        experts: experts[row],
                    },
                };
                if taken.get(&key).is_none() {
                    joined.push((key, tokens[row], latencies_ms[row]));
                }
            }
        }
        Ok(Self {
            curves: CurveSet::build(joined),
            gpus_per_node: GPUS_PER_NODE,
        })
    }

    /// Time when every one of `gpus` sends `tokens`. Groups within a node are
    /// priced as a whole node; groups over more nodes lie between measured
    /// ones; beyond the largest, its time stands.
    pub(super) fn price(
        &self,
        low_latency: bool,
        direction: Direction,
        gpus: u32,
        model: Payload,
        tokens: u32,
    ) -> Result<Found, Missing> {
        let mut measured: Vec<u32> = self
            .curves
            .keys()
            .iter()
            .filter(|key| key.low_latency == low_latency && key.direction == direction)
            .map(|key| key.gpus)
            .collect();
        measured.sort_unstable();
        measured.dedup();
        let at = |gpus| {
            let key = Key {
                low_latency,
                direction,
                gpus,
                model,
            };
            self.at(key, f64::from(tokens))
        };
        let above = measured.partition_point(|&n| n < gpus);
        let note = |n: u32| Some(format!("{n} GPUs"));
        match (
            above.checked_sub(1).map(|i| measured[i]),
            measured.get(above),
        ) {
            (_, Some(&same)) if same == gpus => at(gpus),
            (None, Some(&node)) if gpus < node => Ok(at(node)?.substituted(note(node))),
            (Some(low), Some(&high)) => {
                let weight = f64::from(gpus - low) / f64::from(high - low);
                let mut found = at(low)?.share(1.0 - weight).plus(at(high)?.share(weight));
                found.how = found.how.max(How::Interpolated);
                Ok(found)
            }
            (Some(most), None) if most > self.gpus_per_node => {
                Ok(at(most)?.substituted(note(most)))
            }
            _ => Err(Missing::new(format!(
                "no exchange among {gpus} GPUs measured"
            ))),
        }
    }

    /// Time from the model's own curve, or from the most similar model's when
    /// each of its GPUs sends as much.
    fn at(&self, key: Key, tokens: f64) -> Result<Found, Missing> {
        // Bytes grow with tokens, so tokens are the ideal time but for a factor.
        let ideal = |tokens| tokens;
        if let Some(curve) = self.curves.get(&key) {
            let found = curve.lookup(tokens, 1, ideal);
            return found
                .map(Found::from)
                .ok_or_else(|| Missing::new("nothing measured to hold on to"));
        }
        let like = |other: &&Key| {
            (other.low_latency, other.direction, other.gpus)
                == (key.low_latency, key.direction, key.gpus)
        };
        let nearest = self
            .curves
            .keys()
            .iter()
            .filter(like)
            .map(|other| (other.model.distance(key.model), *other))
            .filter(|&(distance, _)| distance <= REACH)
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let found = nearest.and_then(|(_, lender)| {
            let payload = tokens * key.model.width() / lender.model.width();
            let found = self.curves.get(&lender)?.lookup(payload, 1, ideal)?;
            let Payload {
                hidden_size,
                experts_per_token,
                experts,
            } = lender.model;
            let note = format!("{hidden_size} wide, {experts_per_token} of {experts} experts");
            Some(found.substituted(Some(note)))
        });
        found.ok_or_else(|| Missing::new("no exchange of a similar model measured"))
    }
}
