//! The operators that a file may use: tract's, and own ones where tract lacks one or computes another result.

use super::signature::ADVICE;
use super::{attention, matrices, rotary, skip_norm, stored_matmul};
use dunlin_lm::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto};

const GROUP_QUERY_ATTENTION: &str = "GroupQueryAttention";

/// The reader of ONNX files with every operator, and those of stored matrices, which no file may use.
pub(super) fn framework() -> Onnx {
    let mut framework = known();
    framework.op_register.insert(matrices::MATMUL, stored_matmul::build);
    framework.op_register.insert(matrices::GATHER, stored_matmul::build_gather);
    framework
}

/// The reader of ONNX files with every operator, which ignores the shapes that a file declares inside.
fn known() -> Onnx {
    let mut framework = tract_onnx::onnx().with_ignore_value_info(true);
    let own = &mut framework.op_register;
    own.insert(GROUP_QUERY_ATTENTION, attention::build);
    own.insert("RotaryEmbedding", rotary::build);
    own.insert("SkipSimplifiedLayerNormalization", skip_norm::build);
    framework
}

/// Refuses operators that nothing here runs, with all their names, and forms of them that are not implemented.
pub(super) fn check(path: &Path, proto: &ModelProto) -> Result<()> {
    let known = known().op_register;
    let mut unknown = BTreeMap::new();
    if let Some(graph) = &proto.graph {
        for node in graph.node.iter().filter(|node| node.op_type == GROUP_QUERY_ATTENTION) {
            attention::check(path, node)?;
        }
        collect(graph, &|name| !known.0.contains_key(name), &mut unknown);
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let list: Vec<String> =
        unknown.iter().map(|(name, places)| format!("{name} ({places} places)")).collect();
    Err(Error::unsupported(path, format!("ONNX operator {}", list.join(", ")), ADVICE))
}

/// The error of a graph that can't be built, by a choice between branches if it has one: tract runs those of one shape.
pub(super) fn explain(path: &Path, proto: &ModelProto, error: Error) -> Error {
    let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    match nodes.into_iter().find(|node| node.op_type == "If") {
        Some(choice) => {
            tracing::warn!("{error}");
            Error::unsupported(path, format!("ONNX operator If (node {})", choice.name), ADVICE)
        }
        None => error,
    }
}

/// The error of a graph that was built and fails when it runs, with its file and a way on.
pub(super) fn explain_trial(path: &Path, error: Error) -> Error {
    match error {
        Error::Engine { engine, message } => {
            let what = format!("a graph that {engine} builds and can't run ({message})");
            Error::unsupported(path, what, "export the model in another way, or use `dunlin-agent import`")
        }
        other => other,
    }
}

fn collect(graph: &GraphProto, is_unknown: &impl Fn(&str) -> bool, unknown: &mut BTreeMap<String, usize>) {
    for node in &graph.node {
        if is_unknown(&node.op_type) {
            *unknown.entry(node.op_type.clone()).or_insert(0) += 1;
        }
        for branch in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            collect(branch, is_unknown, unknown);
        }
    }
}
