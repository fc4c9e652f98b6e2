//! FasterTransformer: static batching. A batch of whole prompts is formed once
//! and decodes until its last member ends; its KV cache is free only then.

use super::Forming;

pub(super) fn fill(forming: &mut Forming<'_>) {
    let Some(mut group) = forming.queues.groups.pop_front() else {
        // Requests that arrived with their KV cache form a batch of their own.
        forming.take_ready();
        if forming.batch.decodes.is_empty() {
            forming.take_reserved_prompts();
        }
        return;
    };
    std::mem::swap(&mut forming.batch.decodes, &mut group.decodes);
    forming.batch.held_blocks = group.held_blocks;
    forming.batch.held_requests = group.held_requests;
    forming.queues.ready.keep_spare(group.decodes);
}
