//! Prices of softmax attention with full causal masks.

use super::frame::Frame;
use super::grid::{AXES, Grid, GridSet};
use super::speed_of_light::{Kv, Peaks};
use super::{Found, How, Missing, Reading, SiliconError, kv_dtypes_like, parse_dtype};
use crate::catalog::LocalAttention;
use crate::number::single;
use crate::units::DType;

/// One family of kernels: cache format, head width, KV heads (0: as many as
/// query heads, whatever their number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slice {
    kv_dtype: DType,
    head_dim: u32,
    kv_heads: u32,
}

impl Slice {
    fn kv(self) -> Kv {
        Kv {
            dtype: self.kv_dtype,
            heads: (self.kv_heads > 0).then(|| f64::from(self.kv_heads)),
        }
    }
}

/// Heads of an attention operator on one GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub query: u32,
    pub kv: u32,
    pub width: u32,
    pub kv_dtype: DType,
}

/// Largest distance, octaves of KV heads and head width together, over which
/// another family of kernels may lend its utilisation.
const REACH: f64 = 1.5;

type Points = Vec<(Slice, [u32; AXES], f32)>;

fn points(frame: &Frame, axes: [&str; AXES]) -> Result<Points, SiliconError> {
    let kv_dtypes = frame.texts("kv_dtype")?.parsed(parse_dtype)?;
    let head_dims = frame.numbers("head_dim")?;
    let kv_heads = frame.numbers("kv_heads")?;
    let [a, b, c] = axes;
    let axes = [frame.numbers(a)?, frame.numbers(b)?, frame.numbers(c)?];
    let latencies_ms = frame.latencies_ms()?;
    let point = |row: usize| {
        let at = [axes[0][row], axes[1][row], axes[2][row]];
        let slice = Slice {
            kv_dtype: kv_dtypes.of(row),
            head_dim: head_dims[row],
            kv_heads: if kv_heads[row] == at[0] {
                0
            } else {
                kv_heads[row]
            },
        };
        (slice, at, latencies_ms[row])
    };
    Ok((0..frame.rows()).map(point).collect())
}

/// Kernels by family.
#[derive(Debug)]
struct Families {
    grids: GridSet<Slice>,
}

impl Families {
    /// The family for `heads`, with a note if it is not quite that family: a
    /// cache format without kernels of its own runs as another; other numbers
    /// of KV heads and other head widths lend their utilisation.
    fn find(&self, heads: Heads) -> Result<(Slice, &Grid, Option<String>), Missing> {
        let kv_heads = if heads.kv == heads.query { 0 } else { heads.kv };
        for &(kv_dtype, note) in kv_dtypes_like(heads.kv_dtype) {
            let own = Slice {
                kv_dtype,
                head_dim: heads.width,
                kv_heads,
            };
            if let Some(grid) = self.grids.get(&own) {
                return Ok((own, grid, note.map(str::to_owned)));
            }
            let distance = |slice: &Slice| {
                let kv = if slice.kv_heads == 0 {
                    heads.query
                } else {
                    slice.kv_heads
                };
                let octaves = |a: u32, b: u32| (f64::from(a) / f64::from(b)).log2();
                octaves(kv, heads.kv).hypot(octaves(slice.head_dim, heads.width))
            };
            let nearest = self
                .grids
                .keys()
                .iter()
                .filter(|slice| slice.kv_dtype == kv_dtype)
                .map(|slice| (distance(slice), *slice))
                .filter(|(distance, _)| *distance <= REACH)
                .min_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, slice)) = nearest
                && let Some(grid) = self.grids.get(&slice)
            {
                let kv = match slice.kv_heads {
                    0 => "as many KV as query heads".to_owned(),
                    n => format!("{n} KV heads"),
                };
                let mut text = format!("head width {}, {kv}", slice.head_dim);
                if let Some(note) = note {
                    text = format!("{text}, {note}");
                }
                return Ok((slice, grid, Some(text)));
            }
        }
        Err(Missing::new(format!(
            "no attention near head width {}, {} KV heads measured",
            heads.width, heads.kv
        )))
    }
}

/// How well prompt kernels use the device at a head width, relative to width
/// 128: ratios that AIConfigurator 0.12 states for vLLM's kernels, lines in
/// between. Decode is bound by memory, at any width alike.
fn prompt_utilisation(head_dim: u32) -> f64 {
    const RATIOS: [(f64, f64); 5] = [
        (64.0, 0.60),
        (128.0, 1.0),
        (192.0, 1.27),
        (256.0, 1.51),
        (512.0, 1.60),
    ];
    let width = f64::from(head_dim).clamp(RATIOS[0].0, RATIOS[RATIOS.len() - 1].0);
    let above = RATIOS.partition_point(|&(w, _)| w < width).max(1);
    let ((w0, r0), (w1, r1)) = (RATIOS[above - 1], RATIOS[above]);
    r0 + (r1 - r0) * (width / w0).log2() / (w1 / w0).log2()
}

/// Attention over prompts; axes heads, tokens, batch.
#[derive(Debug)]
pub(super) struct ContextAttentionTable {
    families: Families,
}

impl ContextAttentionTable {
    pub(super) fn build(frame: &Frame) -> Result<Self, SiliconError> {
        let points = points(frame, ["heads", "tokens", "batch"])?;
        let grids = GridSet::build(points);
        Ok(Self {
            families: Families { grids },
        })
    }

    /// Time of prompt chunks of `new_tokens` after `prefix_tokens`, for a
    /// whole batch of equals: the time of the whole sequence, less the share
    /// of the triangle of scores that the prefix has already paid.
    pub(super) fn price(
        &self,
        peaks: &Peaks,
        batch: u32,
        [new_tokens, prefix_tokens]: [u32; 2],
        heads: Heads,
    ) -> Result<Found, Missing> {
        let (slice, grid, note) = self.families.find(heads)?;
        let whole = f64::from(new_tokens) + f64::from(prefix_tokens);
        let at = [f64::from(heads.query), whole, f64::from(batch)];
        let ideal = |at| peaks.context_attention_ms(slice.kv(), f64::from(slice.head_dim), at);
        let mut found = grid
            .lookup(at, Some(1), ideal)
            .ok_or_else(|| Missing::new("nothing measured to hold on to"))?;
        if note.is_some() {
            let kv = Kv {
                dtype: slice.kv_dtype,
                heads: Some(f64::from(heads.kv)),
            };
            let own = peaks.context_attention_ms(kv, f64::from(heads.width), at);
            let gain = prompt_utilisation(heads.width) / prompt_utilisation(slice.head_dim);
            found.latency_ms *= own / ideal(at) / gain;
        }
        if prefix_tokens > 0 {
            found.how = found.how.max(How::Interpolated);
        }
        Ok(found
            .share(unpaid_share(new_tokens, prefix_tokens))
            .substituted(note))
    }
}

impl ContextAttentionTable {
    /// Time of prompt chunks whose tokens do not look back to the start: of what
    /// they take with full attention, the share of the query-key pairs, but no less
    /// than a whole prompt as long as a token looks back.
    pub(super) fn price_local(
        &self,
        peaks: &Peaks,
        batch: u32,
        [new_tokens, prefix_tokens]: [u32; 2],
        heads: Heads,
        local: &LocalAttention,
    ) -> Result<Found, Missing> {
        let full = self.price(peaks, batch, [new_tokens, prefix_tokens], heads)?;
        let new = f64::from(new_tokens);
        let all = new * f64::from(prefix_tokens) + new * (new + 1.0) / 2.0;
        let share = local.attended_pairs(new_tokens, prefix_tokens) / all;
        if share >= 1.0 {
            return Ok(full);
        }
        let least = [new_tokens.min(local.tokens), 0];
        let least_ms = self.price(peaks, batch, least, heads)?.latency_ms;
        let mut found = full.share(share);
        found.latency_ms = found.latency_ms.max(least_ms);
        let note = format!("full attention, pairs within {} tokens", local.tokens);
        Ok(found.substituted(Some(note)))
    }
}

/// Share of the time of a whole prompt that falls to the chunk after a prefix.
pub fn unpaid_share(new_tokens: u32, prefix_tokens: u32) -> f64 {
    let whole = f64::from(new_tokens) + f64::from(prefix_tokens);
    let prefix = f64::from(prefix_tokens);
    (whole * whole - prefix * prefix) / (whole * whole)
}

/// Attention of one token per sequence; axes heads, batch, tokens in the cache.
#[derive(Debug)]
pub(super) struct GenerationAttentionTable {
    families: Families,
}

impl GenerationAttentionTable {
    pub(super) fn build(frame: &Frame, peaks: &Peaks) -> Result<Self, SiliconError> {
        let mut points = points(frame, ["heads", "batch", "kv_tokens"])?;
        for (slice, at, latency_ms) in &mut points {
            let head_dim = f64::from(slice.head_dim);
            let ideal = peaks.generation_attention_ms(slice.kv(), head_dim, at.map(f64::from));
            *latency_ms = latency_ms.max(single(ideal));
        }
        let grids = GridSet::build(points);
        Ok(Self {
            families: Families { grids },
        })
    }

    /// Time of one token each for `batch` sequences whose caches hold
    /// `kv_tokens` on average. Sequences of a batch differ in length, so this
    /// is the mean over five lengths within a tenth of that.
    pub(super) fn price(
        &self,
        peaks: &Peaks,
        batch: u32,
        kv_tokens: f64,
        heads: Heads,
    ) -> Result<Found, Missing> {
        /// Lengths averaged over.
        const SAMPLES: u32 = 5;
        let (slice, grid, note) = self.families.find(heads)?;
        let ideal = |at| peaks.generation_attention_ms(slice.kv(), f64::from(slice.head_dim), at);
        let shortest = (kv_tokens * 0.9).floor().max(1.0);
        let longest = (kv_tokens * 1.1).floor().max(shortest);
        let mut mean: Option<Reading> = None;
        for sample in 0..SAMPLES {
            let step = (longest - shortest) * f64::from(sample) / f64::from(SAMPLES - 1);
            let at = [
                f64::from(heads.query),
                f64::from(batch),
                shortest + step.floor(),
            ];
            let mut found = grid
                .lookup(at, None, ideal)
                .ok_or_else(|| Missing::new("nothing measured to hold on to"))?;
            if note.is_some() {
                let kv = Kv {
                    dtype: slice.kv_dtype,
                    heads: Some(f64::from(heads.kv)),
                };
                let own = peaks.generation_attention_ms(kv, f64::from(heads.width), at);
                let carried = own / ideal(at);
                found.latency_ms *= if carried.is_finite() { carried } else { 1.0 };
            }
            let part = found.share(1.0 / f64::from(SAMPLES));
            mean = Some(mean.map_or(part, |sum| sum.plus(part)));
        }
        let mean = mean.ok_or_else(|| Missing::new("nothing averaged"))?;
        Ok(mean.substituted(note))
    }
}
