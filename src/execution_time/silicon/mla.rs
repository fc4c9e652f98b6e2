//! Prices of multi-head latent attention blocks with DeepSeek-V3's widths:
//! measured whole, or put together from their parts where only those were
//! measured.

use super::attention::unpaid_share;
use super::curve::CurveSet;
use super::frame::Frame;
use super::grid::GridSet;
use super::speed_of_light::Peaks;
use super::store::DeviceTables;
use super::{
    Found, How, Missing, Reading, SiliconError, Table, dtypes_like, kv_dtypes_like, parse_dtype,
};
use crate::units::DType;

/// Width of the residual stream.
const HIDDEN: u32 = 7168;
/// Query and KV down-projections side by side, with the rotary key.
const DOWN: u32 = 1536 + 512 + 64;
/// Rank of the compressed query.
const QUERY_RANK: u32 = 1536;
/// Rank of the compressed KV.
const KV_RANK: u32 = 512;
/// A query head (128 and 64 rotary), a key and value head pair, a value head.
const HEAD: [u32; 3] = [192, 256, 128];

/// An MLA operator on one GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct MlaBlock {
    pub batch: u32,
    pub heads: u32,
    /// Format of the projections.
    pub dtype: DType,
    pub kv_dtype: DType,
}

/// Formats of projections and cache.
type Formats = (DType, DType);

/// Whole blocks; axes heads, tokens, batch or heads, batch, tokens in the cache.
#[derive(Debug)]
pub(super) struct MlaModuleTable {
    grids: GridSet<Formats>,
}

impl MlaModuleTable {
    pub(super) fn build(frame: &Frame, table: Table) -> Result<Self, SiliconError> {
        let dtypes = frame.texts("dtype")?.parsed(parse_dtype)?;
        let key = |row, kv| (dtypes.of(row), kv);
        Ok(Self {
            grids: GridSet::build(mla_points(frame, table, key)?),
        })
    }

    fn price(
        &self,
        block: MlaBlock,
        at: [f64; 3],
        square_root_axis: Option<usize>,
        ideal: impl Fn(Formats, [f64; 3]) -> f64,
    ) -> Result<Found, Missing> {
        for &(kv_dtype, kv_note) in kv_dtypes_like(block.kv_dtype) {
            for &(dtype, note) in dtypes_like(block.dtype) {
                let Some(grid) = self.grids.get(&(dtype, kv_dtype)) else {
                    continue;
                };
                let found = grid
                    .lookup(at, square_root_axis, |at| ideal((dtype, kv_dtype), at))
                    .ok_or_else(|| Missing::new("nothing measured to hold on to"))?;
                return Ok(found.noted(note).noted(kv_note));
            }
        }
        Err(Missing::new(format!(
            "no block in {} with a {} cache measured",
            block.dtype.name(),
            block.kv_dtype.name()
        )))
    }
}

/// Attention alone; axes as for whole blocks.
#[derive(Debug)]
pub(super) struct MlaAttentionTable {
    grids: GridSet<DType>,
}

impl MlaAttentionTable {
    pub(super) fn build(frame: &Frame, table: Table) -> Result<Self, SiliconError> {
        Ok(Self {
            grids: GridSet::build(mla_points(frame, table, |_, kv| kv)?),
        })
    }

    fn price(
        &self,
        kv_dtype: DType,
        at: [f64; 3],
        square_root_axis: Option<usize>,
        ideal: impl Fn(DType, [f64; 3]) -> f64,
    ) -> Result<Found, Missing> {
        for &(kv_dtype, note) in kv_dtypes_like(kv_dtype) {
            if let Some(grid) = self.grids.get(&kv_dtype) {
                let found = grid
                    .lookup(at, square_root_axis, |at| ideal(kv_dtype, at))
                    .ok_or_else(|| Missing::new("nothing measured to hold on to"))?;
                return Ok(found.noted(note));
            }
        }
        Err(Missing::new(format!(
            "no {} cache measured",
            kv_dtype.name()
        )))
    }
}

type Points<K> = Vec<(K, [u32; 3], f32)>;

fn mla_points<K>(
    frame: &Frame,
    table: Table,
    key: impl Fn(usize, DType) -> K,
) -> Result<Points<K>, SiliconError> {
    let kv_dtypes = frame.texts("kv_dtype")?.parsed(parse_dtype)?;
    let axes: Vec<_> = table
        .number_columns()
        .iter()
        .map(|name| frame.numbers(name))
        .collect::<Result<_, SiliconError>>()?;
    let latencies_ms = frame.latencies_ms()?;
    let point = |row: usize| {
        let at = [axes[0][row], axes[1][row], axes[2][row]];
        (key(row, kv_dtypes.of(row)), at, latencies_ms[row])
    };
    Ok((0..frame.rows()).map(point).collect())
}

/// Which absorbing product: before or after the attention proper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Before,
    After,
}

/// Products that absorb the up-projections in decode; curves over tokens.
#[derive(Debug)]
pub(super) struct MlaBmmTable {
    curves: CurveSet<(DType, Side, u32)>,
}

impl MlaBmmTable {
    pub(super) fn build(frame: &Frame) -> Result<Self, SiliconError> {
        let dtypes = frame.texts("dtype")?.parsed(parse_dtype)?;
        let sides = frame.texts("side")?;
        let heads = frame.numbers("heads")?;
        let tokens = frame.numbers("tokens")?;
        let latencies_ms = frame.latencies_ms()?;
        let mut points = Vec::with_capacity(frame.rows());
        for row in 0..frame.rows() {
            let side = match sides.value(row) {
                "before" => Side::Before,
                _ => Side::After,
            };
            let key = (dtypes.of(row), side, heads[row]);
            points.push((key, tokens[row], latencies_ms[row]));
        }
        Ok(Self {
            curves: CurveSet::build(points),
        })
    }

    /// Heads between powers of two share the time of the next power.
    fn price(&self, peaks: &Peaks, side: Side, block: MlaBlock) -> Result<Found, Missing> {
        let heads = block.heads;
        let missing = || Missing::new(format!("no absorbing product of {heads} heads measured"));
        // Engines keep the absorbed matrices in 8 or 16 bits, as the projections.
        let dtypes: &[DType] = match block.dtype {
            DType::Bfloat16 | DType::Float16 => &[DType::Bfloat16],
            _ => &[DType::Fp8, DType::Bfloat16],
        };
        let (key, curve) = dtypes
            .iter()
            .flat_map(|&dtype| [heads, heads.next_power_of_two()].map(|heads| (dtype, side, heads)))
            .find_map(|key| Some((key, self.curves.get(&key)?)))
            .ok_or_else(missing)?;
        let (dtype, _, measured) = key;
        let ideal = |tokens| peaks.mla_bmm_ms(dtype, f64::from(measured), tokens);
        let found = curve
            .lookup(f64::from(block.batch), 1, ideal)
            .ok_or_else(missing)?;
        let note = (measured != heads).then(|| format!("{measured} heads"));
        Ok(found
            .share(f64::from(heads) / f64::from(measured))
            .substituted(note))
    }
}

/// Prompt chunks of `new_tokens` after `prefix_tokens` through a whole block.
pub(super) fn price_context(
    tables: &DeviceTables,
    block: MlaBlock,
    [new_tokens, prefix_tokens]: [u32; 2],
) -> Result<Found, Missing> {
    let whole = f64::from(new_tokens) + f64::from(prefix_tokens);
    let at = [f64::from(block.heads), whole, f64::from(block.batch)];
    let peaks = &tables.peaks;
    let share = unpaid_share(new_tokens, prefix_tokens);
    let mut found = match tables.mla_context_module() {
        Ok(module) if !tables.is_engines_own(Table::ContextMla) => {
            let ideal = |(_, kv): Formats, at| peaks.context_mla_ms(kv, at);
            module.price(block, at, Some(1), ideal)?.share(share)
        }
        _ => {
            let ideal = |kv, at| peaks.context_mla_ms(kv, at);
            let attention = tables.context_mla()?;
            let attention = attention.price(block.kv_dtype, at, Some(1), ideal)?;
            let tokens = block.batch.saturating_mul(new_tokens);
            let widths = [
                [DOWN, HIDDEN],
                [block.heads * HEAD[0], QUERY_RANK],
                [block.heads * HEAD[1], KV_RANK],
                [HIDDEN, block.heads * HEAD[2]],
            ];
            projections(tables, block, tokens, &widths)?.plus(attention.share(share))
        }
    };
    if prefix_tokens > 0 {
        found.how = found.how.max(How::Interpolated);
    }
    Ok(found)
}

/// One token each for `block.batch` sequences through a whole block.
pub(super) fn price_generation(
    tables: &DeviceTables,
    block: MlaBlock,
    kv_tokens: f64,
) -> Result<Found, Missing> {
    let at = [f64::from(block.heads), f64::from(block.batch), kv_tokens];
    let peaks = &tables.peaks;
    if !tables.is_engines_own(Table::GenerationMla)
        && let Ok(module) = tables.mla_generation_module()
    {
        let ideal = |(dtype, kv): Formats, at| peaks.generation_mla_ms(kv, Some(dtype), at);
        return module.price(block, at, None, ideal);
    }
    let ideal = |kv, at| peaks.generation_mla_ms(kv, None, at);
    let attention = tables
        .generation_mla()?
        .price(block.kv_dtype, at, None, ideal)?;
    let absorbing = tables.mla_bmm()?;
    let before = absorbing.price(peaks, Side::Before, block)?;
    let after = absorbing.price(peaks, Side::After, block)?;
    let widths = [
        [DOWN, HIDDEN],
        [block.heads * HEAD[0], QUERY_RANK],
        [HIDDEN, block.heads * HEAD[2]],
    ];
    let projections = projections(tables, block, block.batch, &widths)?;
    Ok(projections.plus(before).plus(attention).plus(after))
}

fn projections(
    tables: &DeviceTables,
    block: MlaBlock,
    tokens: u32,
    widths: &[[u32; 2]],
) -> Result<Found, Missing> {
    let gemm = tables.gemm()?;
    let mut sum = Found::from(Reading::new(0.0, How::Measured));
    for &shape in widths {
        sum = sum.plus(gemm.price(&tables.peaks, tokens, shape, block.dtype)?);
    }
    Ok(sum)
}
