//! vLLM's first scheduler (Kwon et al., SOSP '23): waiting prompts go first, in
//! batches of their own, and stall the decodes; otherwise every running request
//! decodes one token.

use super::Forming;

pub(super) fn fill(forming: &mut Forming<'_>) {
    forming.prompts_or_decodes();
}
