//! Inputs that choose between ways of running a decoder. They always get the same value, so they become constants, and
//! tract removes what they switch off.
//!
//! `num_logits_to_keep` and `logits_to_keep` get 0, which keeps every row of logits. `use_cache_branch` gets true: a
//! merged export then runs its branch with a cache, whose past may be empty. That branch takes the place of its `If`.
//! Nodes get names of their own here, too: ONNX lets nodes share one or have none, tract does not.

use super::signature::{ADVICE, dimensions, is_weight, tensor_type, unsupported_type};
use dunlin_lm::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

const CACHE_BRANCH: &str = "use_cache_branch";

/// Makes constants of the inputs that are known here, and takes the branch with a cache.
pub(super) fn fix(path: &Path, proto: &mut ModelProto) -> Result<()> {
    let Some(graph) = &mut proto.graph else { return Ok(()) };
    for input in std::mem::take(&mut graph.input) {
        match constant(path, &input)? {
            Some(tensor) if !is_weight(graph, &input.name) => graph.initializer.push(tensor),
            _ => graph.input.push(input),
        }
    }
    take_branches(graph);
    name_nodes(graph);
    Ok(())
}

/// The value of an input with a fixed meaning.
fn constant(path: &Path, input: &ValueInfoProto) -> Result<Option<TensorProto>> {
    let element = tensor_type(input).and_then(|tensor| DataType::try_from(tensor.elem_type).ok());
    let raw_data = match (input.name.as_str(), element) {
        ("num_logits_to_keep" | "logits_to_keep", Some(DataType::Int64)) => 0i64.to_le_bytes().to_vec(),
        ("num_logits_to_keep" | "logits_to_keep", Some(DataType::Int32)) => 0i32.to_le_bytes().to_vec(),
        (CACHE_BRANCH, Some(DataType::Bool)) => vec![1],
        ("num_logits_to_keep" | "logits_to_keep" | CACHE_BRANCH, _) => {
            return Err(unsupported_type(path, input));
        }
        _ => return Ok(None),
    };
    let dims = dimensions(input);
    // A list of rows instead of a count of them has a dimension without a number.
    let is_one = dims.iter().all(|dim| *dim == Some(1)) || input.name == CACHE_BRANCH;
    if dims.len() > 1 || !is_one {
        let what = format!("input {} of shape {dims:?} instead of one number", input.name);
        return Err(Error::unsupported(path, what, ADVICE));
    }
    let data_type = element.map_or(0, |element| element as i32);
    let dims = vec![1; dims.len()];
    Ok(Some(TensorProto { name: input.name.clone(), data_type, dims, raw_data, ..TensorProto::default() }))
}

/// Puts the nodes of each branch with a cache in the place of their `If`.
fn take_branches(graph: &mut GraphProto) {
    for mut node in std::mem::take(&mut graph.node) {
        match branch_with_cache(&mut node) {
            Some(branch) => inline(graph, branch, &node.output),
            None => graph.node.push(node),
        }
    }
}

fn branch_with_cache(node: &mut NodeProto) -> Option<GraphProto> {
    let is_choice = node.op_type == "If" && node.input.first().is_some_and(|name| name == CACHE_BRANCH);
    let attributes = node.attribute.iter_mut().filter(|_| is_choice);
    attributes.filter(|attribute| attribute.name == "then_branch").find_map(|branch| branch.g.take())
}

/// Appends a branch's nodes and weights. ONNX lets no name of a branch be one of the graph around it.
fn inline(graph: &mut GraphProto, branch: GraphProto, outputs: &[String]) {
    graph.initializer.extend(branch.initializer);
    graph.node.extend(branch.node);
    for (inner, outer) in branch.output.into_iter().zip(outputs) {
        if inner.name != *outer && !outer.is_empty() {
            graph.node.push(NodeProto {
                op_type: "Identity".into(),
                name: format!("{outer}.branch"),
                input: vec![inner.name],
                output: vec![outer.clone()],
                ..NodeProto::default()
            });
        }
    }
}

/// Gives every node a name that neither another node nor a tensor without one has.
fn name_nodes(graph: &mut GraphProto) {
    let tensors = graph.initializer.iter().map(|tensor| &tensor.name);
    let sources = graph.input.iter().map(|input| &input.name);
    let mut used: BTreeSet<String> = tensors.chain(sources).cloned().collect();
    for (index, node) in graph.node.iter_mut().enumerate() {
        if node.name.is_empty() {
            node.name = node.output.iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        }
        while !used.insert(node.name.clone()) {
            node.name = format!("{}.{index}", node.name);
        }
    }
}
