//! `GroupQueryAttention` of com.microsoft, which tract's default build lacks, as an operator of our own.
//!
//! The past has exactly the tokens before the new ones, and the batch is one text without padding. So the inputs
//! `seqlens_k` and `total_sequence_length`, which say the same, are not read, and any number of new tokens may follow.

mod mix;

use dunlin_lm::{Error, Result};
use mix::{Rotary, Rows, Shape, attend, join};
use std::path::Path;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{AttributeProto, NodeProto};
use tract_onnx::tract_hir::internal::*;

const ADVICE: &str = "export it with no attribute or input of GroupQueryAttention but scale, softcap, \
                      local_window_size, do_rotary and rotary_interleaved, and with a past";

/// The names of a node's inputs, in order.
const INPUTS: [&str; 16] = [
    "query",
    "key",
    "value",
    "past_key",
    "past_value",
    "seqlens_k",
    "total_sequence_length",
    "cos_cache",
    "sin_cache",
    "position_ids",
    "attention_bias",
    "head_sink",
    "k_scale",
    "v_scale",
    "q_norm_weight",
    "k_norm_weight",
];

/// A node's attributes.
#[derive(Clone, Debug, PartialEq)]
struct Attention {
    heads: usize,
    kv_heads: usize,
    /// Of the products of queries and keys; `None` for one over the root of a head's size.
    scale: Option<f32>,
    /// The largest absolute score, approached by a tanh.
    softcap: Option<f32>,
    /// The number of last tokens that a token sees, itself included.
    window: Option<usize>,
    /// Query, key and value lie behind one another in the first input.
    packed: bool,
    rotary: Option<Interleaved>,
}

/// tract compares operators to merge equal ones; one with NaN in it is merged with none.
impl Eq for Attention {}

/// A rotation of neighbours instead of halves.
type Interleaved = bool;

/// Refuses an attribute or an input of a node that is not implemented here, by name.
pub(super) fn check(path: &Path, node: &NodeProto) -> Result<()> {
    match read(node) {
        Ok(_) => Ok(()),
        Err(what) => {
            let what = format!("GroupQueryAttention with {what} (node {})", node.name);
            Err(Error::unsupported(path, what, ADVICE))
        }
    }
}

/// The operator of a node that [`check`] let pass.
pub(super) fn build(
    _: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let attention = read(node).map_err(|what| format_err!("GroupQueryAttention with {what}"))?;
    let mut places = Vec::new();
    let mut place = 0;
    for (name, input) in INPUTS.iter().zip(&node.input) {
        let used = match *name {
            "seqlens_k" | "total_sequence_length" => false,
            "cos_cache" | "sin_cache" => attention.rotary.is_some(),
            _ => true,
        };
        places.extend((used && !input.is_empty()).then_some(place));
        place += usize::from(!input.is_empty());
    }
    Ok((expand(Node { attention, places }), vec![]))
}

/// A node's attributes, or the unimplemented one.
fn read(node: &NodeProto) -> std::result::Result<Attention, String> {
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let integer = |name: &str| attribute(name).map(|attribute| attribute.i);
    let float = |name: &str| attribute(name).map(|attribute| attribute.f).filter(|number| *number != 0.0);
    let is_given = |index: usize| node.input.get(index).is_some_and(|input| !input.is_empty());
    for (index, name) in INPUTS.iter().enumerate() {
        match *name {
            "query" | "past_key" | "past_value" if !is_given(index) => {
                return Err(format!("no input {name}"));
            }
            _ if index > 8 && is_given(index) => return Err(format!("input {name}")),
            _ => (),
        }
    }
    if let Some(other) = node.attribute.iter().find(|attribute| !is_known(attribute)) {
        return Err(format!("attribute {}", other.name));
    }
    let count = |name: &str| {
        let found = integer(name).unwrap_or(0);
        usize::try_from(found).ok().filter(|count| *count > 0).ok_or(format!("{name} of {found}"))
    };
    let (heads, kv_heads) = (count("num_heads")?, count("kv_num_heads")?);
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!("{heads} heads for {kv_heads} of keys"));
    }
    let rotary = integer("do_rotary").filter(|rotary| *rotary != 0).map(|_| integer("rotary_interleaved"));
    let rotary = rotary.map(|interleaved| interleaved.is_some_and(|interleaved| interleaved != 0));
    if rotary.is_some() && !(is_given(7) && is_given(8)) {
        return Err("do_rotary, but no cos_cache and sin_cache".into());
    }
    if is_given(1) != is_given(2) {
        return Err("only one of key and value".into());
    }
    let window = integer("local_window_size").filter(|size| *size != -1);
    let size = |size: i64| usize::try_from(size).ok().filter(|size| *size > 0);
    let window =
        window.map(|found| size(found).ok_or(format!("local_window_size of {found}"))).transpose()?;
    let (scale, softcap) = (float("scale"), float("softcap"));
    Ok(Attention { heads, kv_heads, scale, softcap, window, packed: !is_given(1), rotary })
}

/// True for an attribute that is implemented, or that has the value which changes nothing.
fn is_known(attribute: &AttributeProto) -> bool {
    match attribute.name.as_str() {
        "num_heads" | "kv_num_heads" | "scale" | "softcap" | "local_window_size" | "do_rotary"
        | "rotary_interleaved" => true,
        "causal" => attribute.i == 1,
        "smooth_softmax" => attribute.i <= 0,
        _ => {
            attribute.i == 0 && attribute.f == 0.0 && matches!(attribute.s[..], [] | [b'N', b'O', b'N', b'E'])
        }
    }
}

/// A node with the places of the inputs that are read among those that it has.
#[derive(Clone, Debug)]
struct Node {
    attention: Attention,
    places: Vec<usize>,
}

impl Node {
    /// The place of the past keys.
    fn past(&self) -> usize {
        self.places[self.attention.first_past()]
    }
}

impl Expansion for Node {
    fn name(&self) -> StaticName {
        "GroupQueryAttention".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(3)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 3)?;
        let (query, past) = (&inputs[0], &inputs[self.past()]);
        for output in outputs {
            solver.equals(&query.datum_type, &output.datum_type)?;
        }
        solver.equals(&query.rank, 3)?;
        solver.equals(&past.rank, 4)?;
        solver.given_2(&query.shape, &past.shape, move |solver, query, past| {
            let [mixed, present] = self.attention.shapes(&query, &past);
            solver.equals(&outputs[0].shape, mixed)?;
            solver.equals(&outputs[1].shape, present.clone())?;
            solver.equals(&outputs[2].shape, present)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let inputs: TVec<OutletId> = self.places.iter().map(|place| inputs[*place]).collect();
        model.wire_node(prefix, self.attention.clone(), &inputs)
    }
}

impl Attention {
    /// The place of the past keys among the inputs that are read.
    fn first_past(&self) -> usize {
        if self.packed { 1 } else { 3 }
    }

    /// Shapes of the result and of keys or values, for a query [1,S,…] and a past [1,H,P,D].
    fn shapes(&self, query: &[TDim], past: &[TDim]) -> [TVec<TDim>; 2] {
        let mixed = tvec![1.to_dim(), query[1].clone(), past[3].clone() * self.heads];
        let all = past[2].clone() + query[1].clone();
        [mixed, tvec![1.to_dim(), self.kv_heads.to_dim(), all, past[3].clone()]]
    }

    /// The sizes of one run, checked against the shapes of its inputs.
    fn shape(&self, inputs: &[TValue]) -> TractResult<Shape> {
        let first = self.first_past();
        let count = first + 2 + if self.rotary.is_some() { 2 } else { 0 };
        ensure!(inputs.len() == count, "{} inputs instead of {count}", inputs.len());
        let (query, past) = (inputs[0].shape(), inputs[first].shape());
        ensure!(query.len() == 3 && query[0] == 1, "query of {query:?} instead of one text's");
        ensure!(past.len() == 4 && past[..2] == [1, self.kv_heads], "past of {past:?}");
        ensure!(inputs[first + 1].shape() == past, "past values of {:?}", inputs[first + 1].shape());
        let shape = Shape { new: query[1], past: past[2], size: past[3] };
        let widths: TVec<usize> = if self.packed {
            tvec![self.heads + 2 * self.kv_heads]
        } else {
            tvec![self.heads, self.kv_heads, self.kv_heads]
        };
        for (input, heads) in inputs.iter().zip(widths) {
            let expected = [1, shape.new, heads * shape.size];
            ensure!(input.shape() == expected, "{:?} instead of {expected:?}", input.shape());
        }
        Ok(shape)
    }

    /// Query, key and value of the new tokens.
    fn rows<'a>(&self, inputs: &'a [PlainView<'a>], shape: Shape) -> TractResult<[Rows<'a>; 3]> {
        let (heads, kv_heads, size) = (self.heads, self.kv_heads, shape.size);
        let rows = |input: usize, width: usize, skipped: usize| -> TractResult<Rows<'a>> {
            let numbers = inputs[input].as_slice::<f32>()?;
            Ok(Rows { numbers, stride: width * size, skipped: skipped * size, size })
        };
        if self.packed {
            let width = heads + 2 * kv_heads;
            return Ok([rows(0, width, 0)?, rows(0, width, heads)?, rows(0, width, heads + kv_heads)?]);
        }
        Ok([rows(0, heads, 0)?, rows(1, kv_heads, 0)?, rows(2, kv_heads, 0)?])
    }

    /// The rotation by the last two inputs, [positions, half the rotated numbers of a head].
    fn rotary<'a>(
        &self,
        inputs: &'a [TValue],
        views: &'a [PlainView<'a>],
        shape: Shape,
    ) -> TractResult<Option<Rotary<'a>>> {
        let Some(interleaved) = self.rotary else { return Ok(None) };
        let [.., cos, sin] = inputs else { bail!("no cos_cache and sin_cache") };
        let &[positions, half] = cos.shape() else { bail!("cos_cache of {:?}", cos.shape()) };
        ensure!(sin.shape() == cos.shape(), "sin_cache of {:?}, cos_cache of {:?}", sin.shape(), cos.shape());
        ensure!(2 * half <= shape.size, "cos_cache of {half} numbers for heads of {}", shape.size);
        let end = shape.past + shape.new;
        ensure!(
            end <= positions,
            "the model has cosines of {positions} positions, and the text {end} tokens"
        );
        let [.., cos, sin] = views else { bail!("no cos_cache and sin_cache") };
        Ok(Some(Rotary { cos: cos.as_slice()?, sin: sin.as_slice()?, half, interleaved }))
    }
}

impl Op for Attention {
    fn name(&self) -> StaticName {
        "GroupQueryAttention".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Attention {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (query, past) = (inputs[0], inputs[self.first_past()]);
        ensure!(query.rank() == 3 && past.rank() == 4, "query of {query:?}, past of {past:?}");
        let [mixed, present] = self.shapes(&query.shape, &past.shape);
        let kind = query.datum_type;
        Ok(tvec![kind.fact(mixed), kind.fact(present.clone()), kind.fact(present)])
    }

    as_op!();
}

impl EvalOp for Attention {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let shape = self.shape(&inputs)?;
        let views = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<TVec<_>>>()?;
        let [query, key, value] = self.rows(&views, shape)?;
        let rotary = self.rotary(&inputs, &views, shape)?;
        let first = self.first_past();
        let present = [1, self.kv_heads, shape.past + shape.new, shape.size];
        let mut keys = Tensor::zero::<f32>(&present)?;
        let mut values = Tensor::zero::<f32>(&present)?;
        let mut mixed = Tensor::zero::<f32>(&[1, shape.new, self.heads * shape.size])?;
        {
            let mut keys = keys.try_as_plain_ram_mut()?;
            let mut values = values.try_as_plain_ram_mut()?;
            let mut mixed = mixed.try_as_plain_ram_mut()?;
            let (keys, values) = (keys.as_slice_mut::<f32>()?, values.as_slice_mut::<f32>()?);
            join(keys, views[first].as_slice()?, key, rotary, shape);
            join(values, views[first + 1].as_slice()?, value, None, shape);
            attend(self, query, rotary, (keys, values), mixed.as_slice_mut()?, shape);
        }
        Ok(tvec![mixed.into(), keys.into(), values.into()])
    }
}
