//! Prices of matrix products.

use super::frame::Frame;
use super::sites::Sites;
use super::speed_of_light::Peaks;
use super::table::LATENCY;
use super::{Found, Missing, SiliconError, dtypes_like, parse_dtype};
use crate::units::DType;

/// Products by format.
#[derive(Debug)]
pub(super) struct GemmTable {
    by_dtype: Vec<(DType, Sites)>,
}

impl GemmTable {
    pub(super) fn build(frame: &Frame, peaks: &Peaks) -> Result<Self, SiliconError> {
        let dtypes = frame.texts("dtype")?;
        let outputs = frame.numbers("out_features")?;
        let inputs = frame.numbers("in_features")?;
        let tokens = frame.numbers("tokens")?;
        let latencies_ms = frame.reals(LATENCY)?;
        let mut by_dtype = Vec::new();
        let mut start = 0;
        while start < frame.rows() {
            let name = dtypes.value(start);
            let end = (start..frame.rows())
                .find(|&row| dtypes.value(row) != name)
                .unwrap_or(frame.rows());
            let dtype = parse_dtype(name)?;
            let point = |row: usize| {
                (
                    [outputs[row], inputs[row]],
                    tokens[row],
                    latencies_ms[row] as f32,
                )
            };
            let mut sites = Sites::build((start..end).map(point));
            sites.floor(|rows, [n, k]| peaks.gemm_ms(dtype, rows, f64::from(n), f64::from(k)));
            by_dtype.push((dtype, sites));
            start = end;
        }
        Ok(Self { by_dtype })
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
            .find_map(|&(candidate, note)| {
                let (_, sites) = self.by_dtype.iter().find(|(d, _)| *d == candidate)?;
                Some((candidate, sites, note))
            })
            .ok_or_else(|| Missing::new(format!("no products in {} measured", dtype.name())))?;
        let found = sites.lookup(f64::from(tokens), [outputs, inputs], |rows, [n, k]| {
            peaks.gemm_ms(table_dtype, rows, f64::from(n), f64::from(k))
        });
        let found = found
            .ok_or_else(|| Missing::new(format!("no product near {outputs}x{inputs} measured")))?;
        Ok(found.noted(note))
    }
}
