//! The operators that multiply with a [stored matrix](super::matrices) or read its rows, and the packing of these matrices.
//!
//! The graph is simplified with matrices that have a shape and no numbers. Then each product is built by tract for itself,
//! with its numbers, and put into the graph in packed form, before the next one is read. So the graph that runs is the
//! one that tract builds of weights that it read itself, to the bit.

use super::LoadProgress;
use super::matrices::{COLUMNS, MatrixRows, NUMBER, ROWS, StoredMatrices};
use std::cmp::Reverse;
use std::collections::HashMap;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::array::Gather;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_onnx::tract_core::tract_linalg::block_quant::{
    BlockQuant, BlockQuantFact, BlockQuantStorage, Q4_0,
};
use tract_onnx::tract_hir::internal::*;

/// The operator of a product whose weights were taken.
pub(super) fn build(
    _: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(StoredProduct { weights: StoredWeights::of(node, true)? }), vec![]))
}

/// The operator of a table whose weights were taken.
pub(super) fn build_gather(
    _: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(StoredTable { weights: StoredWeights::of(node, false)? }), vec![]))
}

/// A product with a stored matrix.
#[derive(Clone, Debug)]
struct StoredProduct {
    weights: StoredWeights,
}

impl Expansion for StoredProduct {
    fn name(&self) -> StaticName {
        "StoredMatMul".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        solver.given(&inputs[0].shape, move |solver, mut shape| {
            ensure!(!shape.is_empty(), "MatMulNBits of a number");
            *shape.last_mut().context("a last axis")? = self.weights.rows().to_dim();
            solver.equals(&outputs[0].shape, ShapeFactoid::from(shape))
        })
    }

    /// The nodes that tract's own `MatMulNBits` becomes.
    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let TypedFact { datum_type, shape, .. } = model.outlet_fact(inputs[0])?;
        let (kind, rank) = (*datum_type, shape.rank());
        let input = model.wire_node(format!("{prefix}.cast_a"), cast(f32::datum_type()), inputs)?[0];
        let weights = model.wire_node(format!("{prefix}.weight_bq"), self.weights.clone(), &[])?[0];
        let lead: String = ('a'..'g').take(rank - 1).collect();
        let axes = AxesMapping::from_strs(&[format!("{lead}k"), "gnk".to_string()], &[format!("{lead}n")])?;
        let product = EinSum::new(axes, f32::datum_type());
        let product = model.wire_node(format!("{prefix}.matmul"), product, &[input, weights])?[0];
        model.wire_node(format!("{prefix}.cast_y"), cast(kind), &[product])
    }
}

/// Rows of a stored matrix by their number.
#[derive(Clone, Debug)]
struct StoredTable {
    weights: StoredWeights,
}

impl Expansion for StoredTable {
    fn name(&self) -> StaticName {
        "StoredGather".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.given(&inputs[0].shape, move |solver, mut shape| {
            shape.push(self.weights.columns().to_dim());
            solver.equals(&outputs[0].shape, ShapeFactoid::from(shape))
        })
    }

    /// The nodes that tract's own `GatherBlockQuantized` becomes.
    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let table = model.wire_node(format!("{prefix}.table"), self.weights.clone(), &[])?[0];
        let gather = Gather { axis: 0, output_type: Some(f32::datum_type()) };
        model.wire_node(format!("{prefix}.gather"), gather, &[table, inputs[0]])
    }
}

/// A matrix without its numbers: `[1, rows, columns]` in a product, and `[rows, columns]` in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredWeights {
    number: usize,
    shape: TVec<usize>,
}

impl StoredWeights {
    fn of(node: &NodeProto, is_product: bool) -> TractResult<Self> {
        let (number, rows, columns) = (node.get_attr(NUMBER)?, node.get_attr(ROWS)?, node.get_attr(COLUMNS)?);
        Ok(Self { number, shape: if is_product { tvec!(1, rows, columns) } else { tvec!(rows, columns) } })
    }

    fn rows(&self) -> usize {
        self.shape[self.shape.len() - 2]
    }

    fn columns(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    fn fact(&self) -> BlockQuantFact {
        BlockQuantFact::new(Box::new(Q4_0), self.shape.clone())
    }

    /// The constant with the numbers.
    fn read(&self, matrices: &StoredMatrices) -> TractResult<Const> {
        let (rows, columns) = (self.rows(), self.columns());
        // Q4_0 packs row after row, so pieces of rows lie one after the other.
        let mut packed = Vec::with_capacity(matrices.blocks(self.number) * Q4_0.block_bytes());
        matrices.read(self.number, |piece: &MatrixRows| {
            packed.extend_from_slice(&Q4_0.pack_prequantized_nibbles(
                &piece.codes,
                &piece.scales,
                piece.rows,
                columns,
            )?);
            Ok::<_, TractError>(())
        })?;
        let packed = Blob::from_bytes(&packed)?;
        let storage = BlockQuantStorage::new(Box::new(Q4_0), rows, columns, Arc::new(packed))?;
        let tensor = storage.into_tensor_with_shape(f32::datum_type(), &self.shape);
        Const::new_with_exotic_fact(Arc::new(tensor), Box::new(self.fact()))
    }
}

impl Op for StoredWeights {
    fn name(&self) -> StaticName {
        "StoredWeights".into()
    }

    op_as_typed_op!();
}

impl EvalOp for StoredWeights {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
        bail!("weights that were not read")
    }
}

impl TypedOp for StoredWeights {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape).with_exotic_fact(self.fact())))
    }

    as_op!();
}

/// Reads and packs every stored matrix of a simplified graph, one after the other.
pub(super) fn pack(
    model: &mut TypedModel,
    matrices: &StoredMatrices,
    progress: &mut LoadProgress<'_>,
) -> TractResult<()> {
    let size = |node: &TypedNode| Some((matrices.blocks(node.op_as::<StoredWeights>()?.number), node.id));
    let mut stored: Vec<(usize, usize)> = model.nodes().iter().filter_map(size).collect();
    // While a matrix is packed, it is there twice: the largest comes first, when there is nothing else.
    stored.sort_by_key(|(blocks, id)| (Reverse(*blocks), *id));
    let bytes = |blocks: usize| (blocks * Q4_0.block_bytes()) as u64;
    let (mut done, total) = (0, stored.iter().map(|(blocks, _)| bytes(*blocks)).sum());
    for (blocks, id) in stored {
        let Some(weights) = model.node(id).op_as::<StoredWeights>() else { continue };
        let weights = weights.read(matrices)?;
        let patch = match model.single_succ(id)? {
            Some(product) if product.op_is::<EinSum>() => packed_product(model, id, product, weights)?,
            _ => TypedModelPatch::replace_single_op(model, model.node(id), &[], weights)?,
        };
        patch.apply(model)?;
        done += bytes(blocks);
        progress(done, total);
    }
    model.compact()
}

/// A patch that puts a product as tract packs it in the place of one with stored weights.
fn packed_product(
    model: &TypedModel,
    weights: usize,
    product: &TypedNode,
    read: Const,
) -> TractResult<TypedModelPatch> {
    let mut alone = TypedModel { symbols: model.symbols.clone(), ..TypedModel::default() };
    let mut taps = HashMap::new();
    let mut patch = TypedModelPatch::new("weights that are packed");
    let mut inputs = tvec![];
    for (index, input) in product.inputs.iter().enumerate() {
        inputs.push(if input.node == weights {
            let name = model.node(weights).name.clone();
            alone.wire_node(name, read.clone(), &[])?[0]
        } else {
            let name = format!("{}.input.{index}", product.name);
            let source = alone.add_source(name.clone(), model.outlet_fact(*input)?.clone())?;
            taps.insert(name, patch.tap_model(model, *input)?);
            source
        });
    }
    drop(read);
    let outputs = alone.wire_node(&product.name, product.op.clone(), &inputs)?;
    alone.select_output_outlets(&outputs)?;
    let alone = alone.into_optimized()?;
    let mut outlets: HashMap<OutletId, OutletId> = HashMap::new();
    for id in alone.eval_order()? {
        let node = alone.node(id);
        if node.op_is::<TypedSource>() {
            outlets.insert(id.into(), *taps.get(&node.name).context("an input of the product")?);
            continue;
        }
        let inputs: TVec<OutletId> = node.inputs.iter().map(|input| outlets[input]).collect();
        for (slot, outlet) in patch.wire_node(&node.name, node.op.clone(), &inputs)?.iter().enumerate() {
            outlets.insert(OutletId::new(id, slot), *outlet);
        }
    }
    let output = *alone.output_outlets()?.first().context("a product")?;
    patch.shunt_outside(model, product.id.into(), outlets[&output])?;
    Ok(patch)
}
