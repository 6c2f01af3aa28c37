//! An encoder from an ONNX file: `input_ids` [1,S], optionally `attention_mask`, `token_type_ids` and
//! `position_ids` of the same shape; `last_hidden_state`, else the first output, [1,S,H].

use super::signature::{is_weight, tensor_type};
use super::{ENGINE, engine, integers, parse, read, run, spawn, weights};
use dunlin_lm::{Error, Result};
use std::path::{Path, PathBuf};
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{InferenceFact, InferenceModelExt};

const OUTPUT: &str = "last_hidden_state";
const ADVICE: &str =
    "export an encoder from token ids to its last hidden state as 32-bit floats, without a cache or a head";

/// The meaning of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EncoderInput {
    Ids,
    Mask,
    Types,
    Positions,
}

/// An encoder ready to run.
pub(crate) struct EncoderGraph {
    path: PathBuf,
    state: TypedSimpleState,
    inputs: Vec<(EncoderInput, DatumType)>,
    output: String,
    width: usize,
}

impl EncoderGraph {
    /// Loads a file whose vocabulary has at least `vocabulary` tokens, and runs the first and last through it.
    pub(crate) fn load(path: &Path, vocabulary: u32) -> Result<Self> {
        let proto = read(path)?;
        let graph = proto.graph.as_ref().ok_or_else(|| Error::format(path, "ONNX", "it holds no graph"))?;
        let inputs = known_inputs(path, graph)?;
        let (output, index) = hidden_output(path, graph)?;
        for warning in weights::check(path, &proto)? {
            tracing::warn!(path = %path.display(), "{warning}");
        }
        let state = spawn(path, || build(path, &proto, &inputs, index))?;
        let mut encoder = Self { path: path.into(), state, inputs, output, width: 0 };
        encoder.width = encoder.measure()?;
        let last = vocabulary.saturating_sub(1);
        encoder.run(&[last]).map_err(|error| {
            let expected = format!("an embedding of the tokenizer's token {last}");
            Error::value(path, "vocabulary", expected, error)
        })?;
        Ok(encoder)
    }

    /// Numbers in each row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Runs `tokens`, at least one: `[S × H]`, all finite.
    pub(crate) fn run(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let hidden = self.hidden(tokens)?;
        let expected = [1, tokens.len(), self.width];
        if hidden.shape() != expected {
            return Err(self.wrong(format!("F32 of {expected:?}"), describe(&hidden)));
        }
        let numbers = hidden.try_as_plain_ram().map_err(engine)?.as_slice::<f32>().map_err(engine)?.to_vec();
        match numbers.iter().find(|number| !number.is_finite()) {
            Some(number) => Err(self.wrong("finite numbers".into(), number.to_string())),
            None => Ok(numbers),
        }
    }

    /// The rows' width, from a run.
    fn measure(&mut self) -> Result<usize> {
        let hidden = self.hidden(&[0, 0])?;
        match *hidden.shape() {
            [1, 2, width] if width > 0 => Ok(width),
            _ => Err(self.wrong("F32 of [1, tokens, width]".into(), describe(&hidden) + " for 2 tokens")),
        }
    }

    fn hidden(&mut self, tokens: &[u32]) -> Result<TValue> {
        let inputs = self.inputs.iter().map(|(input, kind)| feed(*input, tokens, *kind));
        let inputs = inputs.collect::<TractResult<_>>().map_err(engine)?;
        let outputs = run(&mut self.state, inputs)?;
        let hidden = outputs.into_iter().next().ok_or_else(|| Error::engine(ENGINE, "no output"))?;
        if hidden.datum_type() != f32::datum_type() {
            return Err(self.wrong("F32".into(), describe(&hidden)));
        }
        Ok(hidden)
    }

    fn wrong(&self, expected: String, found: String) -> Error {
        Error::value(&self.path, format!("output {}", self.output), expected, found)
    }
}

fn describe(tensor: &Tensor) -> String {
    format!("{:?} of {:?}", tensor.datum_type(), tensor.shape())
}

fn feed(input: EncoderInput, tokens: &[u32], kind: DatumType) -> TractResult<TValue> {
    let numbers: Vec<i64> = match input {
        EncoderInput::Ids => tokens.iter().map(|token| i64::from(*token)).collect(),
        EncoderInput::Mask => vec![1; tokens.len()],
        EncoderInput::Types => vec![0; tokens.len()],
        EncoderInput::Positions => (0..tokens.len() as i64).collect(),
    };
    integers(&[1, numbers.len()], &numbers, kind)
}

fn known_inputs(path: &Path, graph: &GraphProto) -> Result<Vec<(EncoderInput, DatumType)>> {
    let declared = graph.input.iter().filter(|input| !is_weight(graph, &input.name));
    let inputs = declared.map(|input| known_input(path, input)).collect::<Result<Vec<_>>>()?;
    if !inputs.iter().any(|(input, _)| *input == EncoderInput::Ids) {
        return Err(Error::value(path, "input input_ids", "a tensor", "nothing"));
    }
    Ok(inputs)
}

fn known_input(path: &Path, input: &ValueInfoProto) -> Result<(EncoderInput, DatumType)> {
    let kind = match input.name.as_str() {
        "input_ids" => EncoderInput::Ids,
        "attention_mask" => EncoderInput::Mask,
        "token_type_ids" => EncoderInput::Types,
        "position_ids" => EncoderInput::Positions,
        name => return Err(Error::unsupported(path, format!("input {name}"), ADVICE)),
    };
    match tensor_type(input).map(|tensor| tensor.elem_type) {
        Some(7) => Ok((kind, i64::datum_type())),
        Some(6) => Ok((kind, i32::datum_type())),
        found => {
            let what = format!("input {} of ONNX element type {}", input.name, found.unwrap_or(0));
            Err(Error::unsupported(path, what, ADVICE))
        }
    }
}

/// Name and index of the output with the hidden states.
fn hidden_output(path: &Path, graph: &GraphProto) -> Result<(String, usize)> {
    let index = graph.output.iter().position(|output| output.name == OUTPUT).unwrap_or(0);
    match graph.output.get(index).map(|output| output.name.as_str()) {
        // A language model's logits have the same rank and would be mistaken for hidden states.
        Some("logits") => Err(Error::unsupported(path, "output logits", ADVICE)),
        Some(name) => Ok((name.into(), index)),
        None => Err(Error::value(path, format!("output {OUTPUT}"), "a tensor", "nothing")),
    }
}

fn build(
    path: &Path,
    proto: &ModelProto,
    inputs: &[(EncoderInput, DatumType)],
    output: usize,
) -> TractResult<TypedSimpleState> {
    let mut model = parse(path, proto, &[output])?;
    let tokens = model.symbols.sym("S").to_dim();
    for (index, (_, kind)) in inputs.iter().enumerate() {
        let shape = tvec![1.to_dim(), tokens.clone()];
        model.set_input_fact(index, InferenceFact::dt_shape(*kind, shape))?;
    }
    model.into_optimized()?.into_runnable()?.spawn()
}
