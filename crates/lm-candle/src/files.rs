//! What tests of engines write model files with: candle's quantizers and its writer.

pub use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
pub use candle_core::{Device, Tensor};
