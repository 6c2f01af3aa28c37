//! A decoder with a key/value cache from an ONNX file, on tract; no other module uses tract. The encoder, which has no
//! cache, is in `encoder`.
//!
//! Inputs and outputs are Hugging Face's: `input_ids` [1,S], optionally `attention_mask` [1,P+S], `position_ids` [1,S]
//! and `cache_position` [S], `past_key_values.N.key` and `.value` [1,H,P,D]; `logits` [1,S,V], `present.N.key` and
//! `.value` [1,H,P+S,D], and optionally `attention` [1,S,P+S]: S new tokens after P others. Inputs that choose between
//! ways of running are in `fixed`. 16-bit floats run as 32-bit ones, borders and cache included: tract's conversions cost
//! more time than they save, most of all on processors without 16-bit arithmetic.
//!
//! tract's own concatenation copies the cache at every step. Its output is kept as it is for the next step, so there is
//! no further copy, except once after a rollback.

mod attention;
mod encoder;
mod fixed;
mod matrices;
mod operators;
mod rotary;
mod signature;
mod skip_norm;
mod stored_matmul;
mod weights;
mod zeros;

use dunlin_lm::bundle::CacheShape;
use dunlin_lm::guard::no_panic;
use dunlin_lm::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::floats::FloatPrecisionTranslator;
use tract_onnx::tract_hir::infer::{InferenceFact, InferenceModel, InferenceModelExt};

pub(crate) use encoder::EncoderGraph;
use matrices::StoredMatrices;
use signature::{Input, Signature};
pub use weights::Warning;

const ENGINE: &str = "tract";

/// Receives the bytes of packed weights that are done, and all of them.
pub(crate) type LoadProgress<'a> = dyn FnMut(u64, u64) + 'a;

/// A decoder ready to run; it holds no context of its own.
pub(crate) struct Decoder {
    path: PathBuf,
    state: TypedSimpleState,
    signature: Signature,
    vocabulary: usize,
}

/// Keys and values of the tokens so far: two tensors per layer, [1,H,P,D]. They may also hold tokens that were rolled
/// back.
#[derive(Clone)]
pub(crate) struct Past {
    tensors: Vec<TValue>,
    length: usize,
}

/// The result of one run.
pub(crate) struct Step {
    /// [S × V].
    pub(crate) logits: Vec<f32>,
    /// [S × (P+S)], if the model outputs it.
    pub(crate) attention: Option<Vec<f32>>,
    /// The past including the new tokens.
    pub(crate) past: Past,
}

impl Decoder {
    /// Loads a file whose vocabulary has `vocabulary` tokens and runs one token, and then two more, through it.
    /// `summed` are the files beside it whose checksums were compared, if there are checksums.
    pub(crate) fn load(
        path: &Path,
        vocabulary: u32,
        shape: Option<CacheShape>,
        summed: Option<&[PathBuf]>,
        progress: &mut LoadProgress<'_>,
    ) -> Result<(Self, Vec<Warning>)> {
        let vocabulary = vocabulary as usize;
        let mut proto = read(path)?;
        fixed::fix(path, &mut proto)?;
        let signature = Signature::read(path, &proto, shape)?;
        operators::check(path, &proto)?;
        let mut warnings = weights::check(path, &proto)?;
        warnings.extend(summed.and_then(|summed| weights::unsummed(path, &proto, summed)));
        warnings.extend(zeros::search(path, &proto, summed)?);
        let matrices = StoredMatrices::take(path, &mut proto);
        let state = spawn(path, || build(path, &proto, &signature, &matrices, progress));
        let state = state.map_err(|error| operators::explain(path, &proto, error))?;
        drop((proto, matrices));
        let mut decoder = Self { path: path.into(), state, signature, vocabulary };
        let nothing = decoder.nothing()?;
        let mut trial = |tokens: &[u32], past: &Past| {
            decoder.run(tokens, past).map_err(|error| operators::explain_trial(path, error))
        };
        let first = trial(&[0], &nothing)?;
        let more = trial(&[0, 0], &first.past)?;
        if more.logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::value(path, "output logits", "numbers", "NaN"));
        }
        Ok((decoder, warnings))
    }

    /// Bytes of keys and values of a token: while a run makes the new cache, the old one is there, too.
    pub(crate) fn cache_bytes_per_token(&self) -> u64 {
        let CacheShape { layers, kv_heads, head_dim } = self.signature.shape;
        (2 * 2 * layers * kv_heads * head_dim * size_of::<f32>()) as u64
    }

    /// The empty past.
    pub(crate) fn nothing(&self) -> Result<Past> {
        let CacheShape { layers, kv_heads, head_dim } = self.signature.shape;
        let empty = Tensor::zero::<f32>(&[1, kv_heads, 0, head_dim]).map_err(engine)?;
        Ok(Past { tensors: vec![TValue::from(empty); 2 * layers], length: 0 })
    }

    /// Runs `tokens` after `past`.
    pub(crate) fn run(&mut self, tokens: &[u32], past: &Past) -> Result<Step> {
        let inputs = self.inputs(tokens, past).map_err(engine)?;
        let outputs = run(&mut self.state, inputs)?;
        self.step(tokens.len(), past.length, outputs)
    }

    fn inputs(&self, tokens: &[u32], past: &Past) -> TractResult<TVec<TValue>> {
        let (begin, end) = (past.length, past.length + tokens.len());
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let positions: Vec<i64> = (begin..end).map(|position| position as i64).collect();
        let feed = |(input, kind): &(Input, DatumType)| match input {
            Input::Ids => integers(&[1, ids.len()], &ids, *kind),
            Input::Positions => integers(&[1, positions.len()], &positions, *kind),
            Input::FlatPositions => integers(&[positions.len()], &positions, *kind),
            Input::Mask => integers(&[1, end], &vec![1; end], *kind),
            Input::Past(index) => past.tensor(*index),
        };
        self.signature.inputs.iter().map(feed).collect()
    }

    /// Checks the outputs' shapes and splits them.
    fn step(&self, new: usize, past: usize, outputs: TVec<TValue>) -> Result<Step> {
        let CacheShape { layers, kv_heads, head_dim } = self.signature.shape;
        let all = past + new;
        let names = &self.signature.outputs;
        let (logits, rest) = outputs.split_first().ok_or_else(|| Error::engine(ENGINE, "no output"))?;
        self.check_width(logits, new)?;
        let logits = self.numbers("logits", logits, &[1, new, self.vocabulary])?;
        for (name, present) in names.iter().skip(1).zip(&rest[..2 * layers]) {
            self.numbers_view(name, present, &[1, kv_heads, all, head_dim])?;
        }
        let attention = rest.get(2 * layers);
        let attention = attention.map(|a| self.numbers("attention", a, &[1, new, all])).transpose()?;
        let past = Past { tensors: rest[..2 * layers].to_vec(), length: all };
        Ok(Step { logits, attention, past })
    }

    /// Says how to name a vocabulary's size if nothing did.
    fn check_width(&self, logits: &Tensor, new: usize) -> Result<()> {
        match *logits.shape() {
            [1, rows, width] if rows == new && width != self.vocabulary => {
                let expected = format!("rows of {} numbers, one for each token", self.vocabulary);
                let found = format!(
                    "{width}; the vocab_size of config.json or the vocabulary.size of model.toml says how many"
                );
                Err(Error::value(&self.path, "output logits", expected, found))
            }
            _ => Ok(()),
        }
    }

    fn numbers(&self, name: &str, tensor: &Tensor, shape: &[usize]) -> Result<Vec<f32>> {
        let view = self.numbers_view(name, tensor, shape)?;
        Ok(view.as_slice::<f32>().map_err(engine)?.to_vec())
    }

    fn numbers_view<'t>(
        &self,
        name: &str,
        tensor: &'t Tensor,
        shape: &[usize],
    ) -> Result<tract_onnx::tract_core::internal::PlainView<'t>> {
        if tensor.shape() != shape || tensor.datum_type() != f32::datum_type() {
            let found = format!("{:?} of {:?}", tensor.datum_type(), tensor.shape());
            return Err(Error::value(
                &self.path,
                format!("output {name}"),
                format!("F32 of {shape:?}"),
                found,
            ));
        }
        tensor.try_as_plain_ram().map_err(engine)
    }
}

impl Past {
    /// The number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Keeps the first `length` tokens.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Tensor `index` without the tokens that were rolled back.
    fn tensor(&self, index: usize) -> TractResult<TValue> {
        let tensor = &self.tensors[index];
        if tensor.shape()[2] == self.length {
            return Ok(tensor.clone());
        }
        if self.length == 0 {
            // tract fails to slice to an empty tensor.
            let mut shape = tensor.shape().to_vec();
            shape[2] = 0;
            return Ok(Tensor::zero::<f32>(&shape)?.into());
        }
        Ok(tensor.slice(2, 0, self.length)?.into())
    }
}

/// The first bytes of a GGUF file, the format of a target's weights.
const GGUF: &[u8] = b"GGUF";

/// Reads a file without parsing its graph.
fn read(path: &Path) -> Result<ModelProto> {
    let mut first = Vec::new();
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    file.take(GGUF.len() as u64).read_to_end(&mut first).map_err(|error| Error::io(path, error))?;
    if first == GGUF {
        let advice = "it is a GGUF file, as a target has; make a drafter of it with `dunlin-agent import`";
        return Err(Error::format(path, "ONNX", advice));
    }
    if first.is_empty() {
        return Err(Error::format(path, "ONNX", "it is empty"));
    }
    let read = || tract_onnx::onnx().proto_model_for_path(path).map_err(|e| format!("{e:#}"));
    let cut = |message| format!("it is cut off, damaged or of another format: {message}");
    no_panic(read).map_err(|message| Error::format(path, "ONNX", cut(message)))
}

/// Runs `build`; a failure or panic becomes an error that names the file.
fn spawn(path: &Path, build: impl FnOnce() -> TractResult<TypedSimpleState>) -> Result<TypedSimpleState> {
    let build = || build().map_err(|e| format!("{e:#}"));
    no_panic(build).map_err(|message| Error::format(path, "ONNX", message))
}

/// Runs a model; after a failure it can run again.
fn run(state: &mut TypedSimpleState, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
    match no_panic(|| state.run(inputs).map_err(|e| format!("{e:#}"))) {
        Ok(outputs) => Ok(outputs),
        Err(error) => {
            state.reset_turn().map_err(engine)?;
            Err(Error::engine(ENGINE, error))
        }
    }
}

fn build(
    path: &Path,
    proto: &ModelProto,
    signature: &Signature,
    matrices: &StoredMatrices,
    progress: &mut LoadProgress<'_>,
) -> TractResult<TypedSimpleState> {
    let mut model = parse(path, proto, &signature.output_indices)?;
    let (new, past) = (model.symbols.sym("S").to_dim(), model.symbols.sym("P").to_dim());
    let CacheShape { kv_heads, head_dim, .. } = signature.shape;
    for (index, (input, kind)) in signature.inputs.iter().enumerate() {
        let shape = match input {
            Input::Ids | Input::Positions => tvec![1.to_dim(), new.clone()],
            Input::FlatPositions => tvec![new.clone()],
            Input::Mask => tvec![1.to_dim(), past.clone() + new.clone()],
            Input::Past(_) => tvec![1.to_dim(), kv_heads.to_dim(), past.clone(), head_dim.to_dim()],
        };
        model.set_input_fact(index, InferenceFact::dt_shape(*kind, shape))?;
    }
    let mut model = model.into_typed()?;
    let is_half =
        |node: &TypedNode| node.outputs.iter().any(|output| output.fact.datum_type == DatumType::F16);
    if model.nodes().iter().any(is_half) {
        model.transform(&FloatPrecisionTranslator::new(DatumType::F16, DatumType::F32))?;
    }
    model.declutter()?;
    stored_matmul::pack(&mut model, matrices, progress)?;
    model.optimize()?;
    model.into_runnable()?.spawn()
}

/// The graph with the file's outputs at `output_indices`, ignoring the shapes that the file declares for them.
fn parse(path: &Path, proto: &ModelProto, output_indices: &[usize]) -> TractResult<InferenceModel> {
    let directory = path.parent().and_then(Path::to_str);
    let parsed = operators::framework().parse(proto, directory)?;
    if let Some(name) = parsed.unresolved_inputs.first() {
        return Err(TractError::msg(format!("nothing computes {name:?}")));
    }
    let mut model = parsed.model;
    let outputs: Vec<OutletId> = output_indices.iter().map(|index| model.outputs[*index]).collect();
    model.select_output_outlets(&outputs)?;
    for index in 0..outputs.len() {
        model.set_output_fact(index, InferenceFact::default())?;
    }
    Ok(model)
}

fn integers(shape: &[usize], numbers: &[i64], kind: DatumType) -> TractResult<TValue> {
    let tensor = Tensor::from_shape(shape, numbers)?;
    Ok(tensor.cast_to_dt(kind)?.into_owned().into())
}

fn engine(error: TractError) -> Error {
    Error::engine(ENGINE, format!("{error:#}"))
}
