//! Orca (Yu et al., OSDI '22): iteration-level scheduling. Every batch holds all
//! running requests and as many whole new prompts as fit; a request reserves the
//! KV cache of the longest one allowed, so nothing is ever preempted.

use super::Forming;

pub(super) fn fill(forming: &mut Forming<'_>) {
    forming.take_ready();
    forming.take_reserved_prompts();
}
