//! Parameters of the vision towers of checkpoints that have one, and of what projects their
//! output to the width of the language model. Text does not visit them, but engines load
//! them. Counted from `vision_config`, tensor by tensor; of other towers than the three there
//! are nothing is counted.

use serde::Deserialize;
use serde_json::Value;

use crate::yaml::Document;

/// The keys read of `vision_config`.
#[derive(Debug, Deserialize)]
struct Tower {
    model_type: String,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    patch_size: u32,
    image_size: u32,
    #[serde(default = "three")]
    num_channels: u32,
    // Llama 4.
    pixel_shuffle_ratio: Option<f64>,
    projector_input_dim: Option<u32>,
    projector_output_dim: Option<u32>,
}

fn three() -> u32 {
    3
}

/// Parameters of the vision tower of `whole` and its projector to `text_width`; none of a
/// checkpoint that has none, or one that is not known.
pub(super) fn parameters(whole: &Document, text_width: u32) -> Option<f64> {
    let tower: Tower = serde_json::from_value(whole.get("vision_config")?.clone()).ok()?;
    let text_width = f64::from(text_width);
    let of = whole.get("model_type").and_then(Value::as_str)?;
    match (of, tower.model_type.as_str()) {
        ("gemma3", "siglip_vision_model") => Some(tower.siglip(text_width)),
        ("llama4", "llama4_vision_model") => tower.llama4(text_width),
        ("mistral3", "pixtral") => tower.pixtral(whole, text_width),
        _ => None,
    }
}

impl Tower {
    fn width(&self) -> f64 {
        f64::from(self.hidden_size)
    }

    /// Weights that turn a patch into a vector.
    fn patches(&self) -> f64 {
        let side = f64::from(self.patch_size);
        f64::from(self.num_channels) * side * side * self.width()
    }

    /// Places of patches in an image.
    fn places(&self) -> f64 {
        let side = f64::from(self.image_size / self.patch_size.max(1));
        side * side
    }

    /// Attention, an MLP without a gate and two norms, all with biases, in every layer.
    fn biased_layers(&self) -> f64 {
        let (width, inner) = (self.width(), f64::from(self.intermediate_size));
        let attention = 4.0 * (width * width + width);
        let mlp = 2.0 * width * inner + inner + width;
        f64::from(self.num_hidden_layers) * (attention + mlp + 4.0 * width)
    }

    /// Gemma 3: a bias of patches, a last norm; a matrix and a norm project.
    fn siglip(&self, text_width: f64) -> f64 {
        let width = self.width();
        let embeddings = self.patches() + width + self.places() * width;
        let projector = width * text_width + width;
        embeddings + self.biased_layers() + 2.0 * width + projector
    }

    /// Llama 4: a class token with its place, norms before and after; neighbouring patches
    /// are put together and go through two matrices; a third one projects.
    fn llama4(&self, text_width: f64) -> Option<f64> {
        let width = self.width();
        let embeddings = self.patches() + width + (self.places() + 1.0) * width;
        let ratio = self.pixel_shuffle_ratio?;
        let (input, output) = (self.projector_input_dim?, self.projector_output_dim?);
        let (input, output) = (f64::from(input), f64::from(output));
        let together = width / (ratio * ratio);
        let adapter = together * input + input * output;
        let projector = output * text_width;
        Some(embeddings + self.biased_layers() + 4.0 * width + adapter + projector)
    }

    /// Mistral 3: rotary places, gated MLPs, no biases; patches are merged, and two matrices
    /// project.
    fn pixtral(&self, whole: &Document, text_width: f64) -> Option<f64> {
        let (width, inner) = (self.width(), f64::from(self.intermediate_size));
        let layer = 4.0 * width * width + 3.0 * width * inner + 2.0 * width;
        let layers = f64::from(self.num_hidden_layers) * layer;
        let merged = whole.get("spatial_merge_size").and_then(Value::as_f64)?;
        let merger = merged * merged * width * width + width;
        let projector = width * text_width + text_width * text_width;
        Some(self.patches() + width + layers + merger + projector)
    }
}
