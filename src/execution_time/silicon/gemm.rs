//! Prices of matrix products.

use std::ops::Range;
use std::sync::OnceLock;

use arrow_buffer::ScalarBuffer;

use super::frame::Frame;
use super::sites::Sites;
use super::speed_of_light::Peaks;
use super::{Found, Missing, SiliconError, dtypes_like, parse_dtype};
use crate::units::DType;

/// Products by format.
#[derive(Debug)]
pub(super) struct GemmTable {
    /// Formats, their rows, and those as they are looked up, once they are.
    by_dtype: Vec<(DType, Range<usize>, OnceLock<Sites>)>,
    outputs: ScalarBuffer<u32>,
    inputs: ScalarBuffer<u32>,
    tokens: ScalarBuffer<u32>,
    latencies_ms: ScalarBuffer<f32>,
}

impl GemmTable {
    pub(super) fn build(frame: &Frame) -> Result<Self, SiliconError> {
        let dtypes = frame.texts("dtype")?.parsed(parse_dtype)?;
        let rows: Vec<DType> = (0..frame.rows()).map(|row| dtypes.of(row)).collect();
        let mut start = 0;
        let by_dtype = rows.chunk_by(|a, b| a == b).map(|alike| {
            let range = start..start + alike.len();
            start = range.end;
            (alike[0], range, OnceLock::new())
        });
        Ok(Self {
            by_dtype: by_dtype.collect(),
            outputs: frame.numbers("out_features")?,
            inputs: frame.numbers("in_features")?,
            tokens: frame.numbers("tokens")?,
            latencies_ms: frame.latencies_ms()?,
        })
    }

    /// The products in a format, none faster than the device could be.
    fn sites(&self, dtype: DType, peaks: &Peaks) -> Option<&Sites> {
        let (_, rows, sites) = self.by_dtype.iter().find(|(d, ..)| *d == dtype)?;
        Some(sites.get_or_init(|| {
            let point = |row: usize| {
                let shape = [self.outputs[row], self.inputs[row]];
                (shape, self.tokens[row], self.latencies_ms[row])
            };
            let mut sites = Sites::build(rows.clone().map(point));
            sites.floor(|rows, [n, k]| peaks.gemm_ms(dtype, rows, f64::from(n), f64::from(k)));
            sites
        }))
    }

    /// Time of `tokens x inputs` times `inputs x outputs`.
    pub(super) fn price(
        &self,
        peaks: &Peaks,
        tokens: u32,
        [outputs, inputs]: [u32; 2],
        dtype: DType,
    ) -> Result<Found, Missing> {
        let (table_dtype, sites, note) = dtypes_like(dtype)
            .iter()
            .find_map(|&(candidate, note)| Some((candidate, self.sites(candidate, peaks)?, note)))
            .ok_or_else(|| Missing::new(format!("no products in {} measured", dtype.name())))?;
        let found = sites.lookup(f64::from(tokens), [outputs, inputs], |rows, [n, k]| {
            peaks.gemm_ms(table_dtype, rows, f64::from(n), f64::from(k))
        });
        let found = found
            .ok_or_else(|| Missing::new(format!("no product near {outputs}x{inputs} measured")))?;
        Ok(found.noted(note))
    }
}
