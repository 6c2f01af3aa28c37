//! `RotaryEmbedding`, by tract's own operator. That takes positions as 64-bit integers alone, while tract makes
//! dimensions of those that are computed from shapes or from other integers.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::internal::*;

/// The operator of a node.
pub(super) fn build(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let register = tract_onnx::onnx().op_register;
    let build = register.0.get("RotaryEmbedding").context("tract has no RotaryEmbedding")?;
    let (op, closures) = build(context, node)?;
    let inner =
        op.as_op().downcast_ref::<Box<dyn Expansion>>().context("tract's RotaryEmbedding is no expansion")?;
    let inner = inner.clone();
    let positions = if node.domain == "com.microsoft" { 1 } else { 3 };
    Ok((expand(RotaryEmbedding { inner, positions }), closures))
}

#[derive(Clone, Debug)]
struct RotaryEmbedding {
    inner: Box<dyn Expansion>,
    /// The input with the positions, if the node has that many.
    positions: usize,
}

impl Expansion for RotaryEmbedding {
    fn name(&self) -> StaticName {
        self.inner.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.inner.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let mut inputs: TVec<OutletId> = inputs.into();
        if let Some(positions) = inputs.get_mut(self.positions) {
            let shape = model.outlet_fact(*positions)?.shape.to_tvec();
            ensure!(shape.len() == 2, "RotaryEmbedding: position_ids of {shape:?} instead of [1, tokens]");
            let name = format!("{prefix}.positions");
            *positions = model.wire_node(name, cast(DatumType::I64), &[*positions])?[0];
        }
        self.inner.wire(prefix, model, &inputs)
    }
}
