//! `SkipSimplifiedLayerNormalization`: the sum of a tensor, a residual and, where there is one, a bias, scaled by the
//! root of its mean square. tract's own leaves the bias out; onnxruntime adds it.

use tract_onnx::model::{ParsingContext, optional_outputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::math::{add, mul, rsqrt};
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

/// The operator of a node with inputs `input`, `skip`, `gamma` and optionally `bias`. The outputs for training, the
/// mean and its inverse, are refused; the last one is the sum.
pub(super) fn build(
    _: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let epsilon = node.get_attr_opt("epsilon")?.unwrap_or(1e-5f32);
    let is_used: Vec<bool> = optional_outputs(node).take(4).map(|output| output.is_some()).collect();
    ensure!(!is_used[1] && !is_used[2], "SkipSimplifiedLayerNormalization: outputs mean and inv_std_var");
    Ok((expand(SkipNorm { epsilon, sum: is_used[3] }), vec![]))
}

#[derive(Clone, Debug)]
struct SkipNorm {
    epsilon: f32,
    sum: bool,
}

impl Expansion for SkipNorm {
    fn name(&self) -> StaticName {
        "SkipNorm".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(1 + usize::from(self.sum))
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(matches!(inputs.len(), 3 | 4), "SkipSimplifiedLayerNormalization: 3 or 4 inputs");
        check_output_arity(outputs, self.nboutputs()?)?;
        for output in outputs {
            solver.equals(&inputs[0].datum_type, &output.datum_type)?;
            solver.equals(&inputs[0].shape, &output.shape)?;
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let TypedFact { datum_type, shape, .. } = model.outlet_fact(inputs[0])?;
        let (kind, last) = (*datum_type, shape.rank().saturating_sub(1));
        let epsilon = model.add_const(format!("{prefix}.epsilon"), tensor0(self.epsilon))?;
        let mut wire = |name: &str, op: Box<dyn TypedOp>, inputs: &[OutletId]| {
            Ok::<_, TractError>(wire_with_rank_broadcast(format!("{prefix}.{name}"), model, op, inputs)?[0])
        };
        let mut sum = wire("skip", Box::new(add()), &inputs[..2])?;
        if let Some(bias) = inputs.get(3) {
            sum = wire("bias", Box::new(add()), &[sum, *bias])?;
        }
        // The square of a 16-bit float may be none.
        let single = wire("single", Box::new(cast(DatumType::F32)), &[sum])?;
        let mean = Reduce { axes: tvec![last], reducer: Reducer::MeanOfSquares };
        let mean = wire("mean", Box::new(mean), &[single])?;
        let mean = wire("mean_epsilon", Box::new(add()), &[mean, epsilon])?;
        let scale = wire("rsqrt", Box::new(rsqrt()), &[mean])?;
        let unit = wire("unit", Box::new(mul()), &[single, scale])?;
        let unit = wire("unit_cast", Box::new(cast(kind)), &[unit])?;
        let output = wire("scaled", Box::new(mul()), &[unit, inputs[2]])?;
        Ok(if self.sum { tvec![output, sum] } else { tvec![output] })
    }
}
