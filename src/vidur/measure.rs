//! Before a simulation: an installed AICB measures what it needs.

use super::PrepareError;
use crate::execution_time::aicb::{AicbError, AicbProgram, Cut, Phase};
use crate::simulator::PoolRole;
use crate::spec::Deployment;
use crate::workload::Workload;

/// Has AICB write the files that `deployment` needs to serve `workload`; says how
/// many were missing.
pub(super) fn with_aicb(
    program: &AicbProgram,
    deployment: &Deployment,
    workload: &Workload,
) -> Result<String, PrepareError> {
    let told = |error: AicbError| PrepareError::Aicb {
        error,
        is_absent: false,
    };
    let requests = || workload.requests.iter();
    let prompt = requests().map(|r| u64::from(r.prefill_tokens)).max();
    let context = requests()
        .map(|r| u64::from(r.prefill_tokens) + u64::from(r.decode_tokens))
        .max();
    let (mut all, mut measured) = (0, 0);
    for pool in &deployment.pools {
        let cut = Cut::of(&deployment.model, *pool.graph.parallelism());
        let cut = cut.map_err(PrepareError::Flags)?;
        let phases: &[Phase] = match pool.role {
            PoolRole::Mixed => &[Phase::Prefill, Phase::Decode],
            PoolRole::Prefill => &[Phase::Prefill],
            PoolRole::Decode => &[Phase::Decode],
        };
        let batch_size = pool.scheduler.batch_size_cap();
        let tokens_in_step = u64::from(pool.scheduler.max_tokens_in_step());
        for &phase in phases {
            let longest = match phase {
                Phase::Prefill => prompt.unwrap_or(0).max(tokens_in_step),
                Phase::Decode => context.unwrap_or(0),
            };
            for key in cut.files_up_to(phase, longest, batch_size) {
                all += 1;
                measured += usize::from(program.measure(&key).map_err(told)?);
            }
        }
    }
    Ok(format!(
        "{}: {measured} of {all} files measured by AICB, the others were there",
        program.folder().display()
    ))
}
