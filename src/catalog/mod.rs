//! What can be deployed and on what: models, devices and engines as data.
//!
//! `data/models/*.yaml`, `data/devices/*.yaml` and `data/engines/*.yaml` are
//! embedded in the binary at build time; a file of the same shape given by the
//! user, or a Hugging Face `config.json`, is read at run time. Knows nothing of
//! time or simulation.

mod device;
mod engine;
mod model;

pub use device::{DeviceSpec, PeakFlops};
pub use engine::EngineSpec;
pub use model::{Attention, LinearAttention, ModelSpec, Moe};
