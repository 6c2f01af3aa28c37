//! Other people's signatures and operators on the demo drafter's weights: the logits stay the demo drafter's.

use crate::onnx::{FLOAT, FLOAT16, INT64, node, tensor, value};
use crate::variants::{
    cast_input, cast_output, demo_graph, float, integers, is_equal, load_variant, prepend, rename, sort_nodes,
};
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

const INT32: i64 = 6;
const BOOL: i64 = 9;
const SINGLE: i64 = FLOAT as i64;
const HALF: i64 = FLOAT16 as i64;
const LONG: i64 = INT64 as i64;

/// Of logits between -25 and 25, whose 16-bit floats are at most 1/128 apart.
const HALF_BOUND: f32 = 0.01;
const BOUND: f32 = 1e-4;

fn changed(change: impl FnOnce(&mut GraphProto)) -> GraphProto {
    let mut graph = demo_graph();
    change(&mut graph);
    graph
}

/// A node of com.microsoft with an epsilon.
fn norm(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let mut node = node(op, inputs, outputs, &[]);
    node.attribute.push(float("epsilon", 1e-5));
    node
}

/// The last rows of the logits, as many as an input of the given name and shape says.
fn keep_rows(name: &str, kind: i32, dims: &[&str]) -> GraphProto {
    changed(|graph| {
        rename(graph, "logits", "all_logits");
        graph.input.insert(1, value(name, kind, dims));
        graph.initializer.extend([
            integers("axis", &[1]),
            integers("end", &[i64::MAX]),
            integers("shape", &[1]),
        ]);
        graph.node.extend([
            node("Cast", &[name], &["kept64"], &[("to", LONG)]),
            node("Reshape", &["kept64", "shape"], &["kept"], &[]),
            node("Neg", &["kept"], &["from"], &[]),
            node("Slice", &["all_logits", "from", "end", "axis"], &["logits"], &[]),
        ]);
    })
}

#[test]
fn a_count_of_rows_keeps_all() {
    is_equal("num_logits_to_keep", keep_rows("num_logits_to_keep", INT64, &[]), BOUND);
    is_equal("logits_to_keep", keep_rows("logits_to_keep", INT64, &["1"]), BOUND);
    is_equal("32-bit count", keep_rows("num_logits_to_keep", INT32 as i32, &[]), BOUND);
}

fn branch(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: name.into(), g: Some(graph), r#type: 5, ..AttributeProto::default() }
}

/// A merged export: one branch without a cache, whose present is not the past and the new, and one with it.
fn merged(inner: &str) -> GraphProto {
    changed(|graph| {
        graph.input.push(value("use_cache_branch", BOOL as i32, &["1"]));
        let mut with =
            GraphProto { name: "with".into(), node: graph.node.split_off(0), ..GraphProto::default() };
        let mut without = GraphProto { name: "without".into(), ..GraphProto::default() };
        let names: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
        for name in &names {
            let (used, unused) = (format!("{name}{inner}"), format!("{name}.unused"));
            if !inner.is_empty() {
                with.node.push(node("Identity", &[name.as_str()], &[&used], &[]));
                rename(&mut with, name, &format!("{name}.computed"));
            }
            with.output.push(value(&used, FLOAT, &[]));
            without.node.push(node("Identity", &["past_key_values.0.key"], &[&unused], &[]));
            without.output.push(value(&unused, FLOAT, &[]));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut choice = node("If", &["use_cache_branch"], &names, &[]);
        choice.attribute = vec![branch("then_branch", with), branch("else_branch", without)];
        graph.node.push(choice);
    })
}

#[test]
fn a_merged_export_runs_its_branch_with_a_cache() {
    let unused = changed(|graph| graph.input.push(value("use_cache_branch", BOOL as i32, &["1"])));
    is_equal("use_cache_branch", unused, BOUND);
    is_equal("If", merged(""), BOUND);
    is_equal("If with names of its own", merged(".then"), BOUND);
}

/// A choice by the length of the text, as exports with two kinds of positions have it.
fn choice(else_shape: &[usize]) -> GraphProto {
    changed(|graph| {
        let part = |name: &str, dims: &[usize]| GraphProto {
            name: name.into(),
            output: vec![value(name, FLOAT, &[])],
            initializer: vec![tensor(name, FLOAT, dims, vec![0; 4 * dims.iter().product::<usize>()])],
            ..GraphProto::default()
        };
        graph.initializer.extend([integers("long", &[500]), integers("places", &[1])]);
        let mut choice = node("If", &["is_long"], &["shift"], &[]);
        choice.attribute =
            vec![branch("then_branch", part("a", &[192])), branch("else_branch", part("b", else_shape))];
        rename(graph, "embed_tokens", "shifted");
        graph.node.iter_mut().find(|node| node.op_type == "Gather").unwrap().output[0] =
            "embed_tokens".into();
        graph.node.extend([
            node("Shape", &["attention_mask"], &["lengths"], &[]),
            node("Gather", &["lengths", "places"], &["length"], &[]),
            node("Greater", &["length", "long"], &["is_long"], &[]),
            choice,
            node("Add", &["embed_tokens", "shift"], &["shifted"], &[]),
        ]);
        sort_nodes(graph);
    })
}

#[test]
fn another_choice_is_refused_by_name() {
    let refused = load_variant(choice(&[1, 192])).err().unwrap();
    assert!(refused.contains("ONNX operator If (node the_shift) is not supported: export"), "{refused}");
}

#[test]
fn positions_come_in_each_form() {
    let flat = changed(|graph| graph.input.push(value("cache_position", INT64, &["S"])));
    is_equal("cache_position beside position_ids", flat, BOUND);
    let only = changed(|graph| {
        graph.input.retain(|input| input.name != "position_ids");
        graph.input.push(value("cache_position", INT64, &["S"]));
        graph.initializer.push(integers("batch", &[0]));
        prepend(graph, vec![node("Unsqueeze", &["cache_position", "batch"], &["position_ids"], &[])]);
    });
    is_equal("cache_position alone", only, BOUND);
    let none = changed(|graph| {
        graph.input.retain(|input| input.name != "position_ids");
        graph.initializer.extend([integers("last", &[i64::MAX]), integers("one_", &[1])]);
        graph.initializer.push(tensor("along", INT64, &[], 1i64.to_le_bytes().into()));
        let nodes = vec![
            node("CumSum", &["attention_mask", "along"], &["counted"], &[]),
            node("Sub", &["counted", "one_"], &["counted_from_0"], &[]),
            node("Shape", &["input_ids"], &["ids_shape"], &[]),
            node("Gather", &["ids_shape", "one_"], &["ids_count"], &[]),
            node("Neg", &["ids_count"], &["ids_before_end"], &[]),
            node("Slice", &["counted_from_0", "ids_before_end", "last", "one_"], &["position_ids"], &[]),
        ];
        prepend(graph, nodes);
    });
    is_equal("from the mask", none, BOUND);
}

#[test]
fn integers_may_have_32_bits_and_a_mask_one() {
    let names = ["input_ids", "attention_mask", "position_ids"];
    let narrow = changed(|graph| names.iter().for_each(|name| cast_input(graph, name, INT32, LONG)));
    is_equal("32-bit integers", narrow, BOUND);
    let mask = changed(|graph| cast_input(graph, "attention_mask", BOOL, LONG));
    is_equal("a mask of booleans", mask, BOUND);
}

fn half_cache(graph: &mut GraphProto) {
    let past: Vec<String> = graph
        .input
        .iter()
        .filter(|input| input.name.starts_with("past"))
        .map(|input| input.name.clone())
        .collect();
    for name in past {
        cast_input(graph, &name, HALF, SINGLE);
        cast_output(graph, &name.replace("past_key_values", "present"), HALF);
    }
}

#[test]
fn a_cache_and_logits_of_16_bits_run_as_floats() {
    is_equal("cache", changed(half_cache), BOUND);
    is_equal("logits", changed(|graph| cast_output(graph, "logits", HALF)), BOUND);
    is_equal("attention", changed(|graph| cast_output(graph, "attention", HALF)), BOUND);
    let keys = changed(|graph| {
        cast_input(graph, "past_key_values.2.key", HALF, SINGLE);
        cast_output(graph, "present.2.key", HALF);
    });
    is_equal("keys of one layer", keys, BOUND);
}

/// Every weight, input and cast of 32-bit floats becomes one of 16.
fn halve(graph: &mut GraphProto) {
    for weight in graph.initializer.iter_mut().filter(|weight| weight.data_type == FLOAT) {
        let numbers =
            weight.raw_data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        // A mask's -1e9 becomes the lowest number, as converters do.
        let half = |number: f32| tract_onnx::prelude::f16::from_f32(number.clamp(-65504.0, 65504.0));
        weight.raw_data = numbers.flat_map(|number| half(number).to_le_bytes()).collect();
        weight.data_type = FLOAT16;
    }
    for node in graph.node.iter_mut().filter(|node| node.op_type == "Cast") {
        node.attribute.iter_mut().filter(|to| to.i == SINGLE).for_each(|to| to.i = HALF);
    }
}

#[test]
fn floats_inside_may_have_16_bits() {
    let borders = changed(|graph| {
        halve(graph);
        let past = graph.input.clone().into_iter().filter(|input| input.name.starts_with("past"));
        past.for_each(|input| cast_input(graph, &input.name, SINGLE, HALF));
        let outputs: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
        outputs.iter().for_each(|name| cast_output(graph, name, SINGLE));
    });
    is_equal("32-bit borders", borders, HALF_BOUND);
    let all = changed(|graph| {
        halve(graph);
        half_cache(graph);
        for node in graph.node.iter_mut().filter(|node| node.op_type == "Cast") {
            node.attribute.iter_mut().filter(|to| to.i == SINGLE).for_each(|to| to.i = HALF);
        }
    });
    is_equal("all of 16 bits", all, HALF_BOUND);
}

/// Replaces each norm by the nodes that `make` gives for its input, weight and name.
fn with_norms(graph: &mut GraphProto, make: impl Fn(&str, &str, &str) -> Vec<NodeProto>) {
    let parts = ["square", "mean", "add", "root", "unit"];
    let mut nodes = Vec::new();
    for node in graph.node.split_off(0) {
        let output = node.output[0].clone();
        match output.rsplit_once('.') {
            Some((name, "square")) => nodes.extend(make(&node.input[0], &format!("{name}.weight"), name)),
            Some((name, part)) if parts.contains(&part) && name.ends_with("norm") => (),
            _ if output.ends_with("norm") => (),
            _ => nodes.push(node),
        }
    }
    graph.node = nodes;
}

#[test]
fn norms_may_be_single_operators() {
    let simplified = |input: &str, weight: &str, name: &str| {
        vec![norm("SimplifiedLayerNormalization", &[input, weight], &[name])]
    };
    is_equal("SimplifiedLayerNormalization", changed(|graph| with_norms(graph, simplified)), BOUND);
    let op = "SkipSimplifiedLayerNormalization";
    // A residual of a quarter of the norm's input, a bias of an eighth, and an input that makes up for both.
    let skip = |input: &str, weight: &str, name: &str| {
        let [less, quarter, sum] = ["less", "quarter", "sum"].map(|part| format!("{name}.{part}"));
        vec![
            node("Mul", &[input, "three_quarters"], &[&less], &[]),
            node("Mul", &[input, "one_quarter"], &[&quarter], &[]),
            node("Sub", &[&less, "norm_bias"], &[&format!("{less}.bias")], &[]),
            norm(op, &[&format!("{less}.bias"), &quarter, weight, "norm_bias"], &[name, "", "", &sum]),
        ]
    };
    let with_bias = changed(|graph| {
        let floats = |name: &str, number: f32, count: usize| {
            tensor(name, FLOAT, &[count], number.to_le_bytes().repeat(count))
        };
        let weights = [("three_quarters", 0.75, 1), ("one_quarter", 0.25, 1), ("norm_bias", 0.125, 192)];
        graph.initializer.extend(weights.map(|(name, number, count)| floats(name, number, count)));
        with_norms(graph, skip);
        // The residual goes on from the operator's sum, as exports write it.
        rename(graph, "layers.0.after_attention", "first_sum");
        for node in &mut graph.node {
            let is_last = node.output.first().is_some_and(|name| name == "layers.0.out");
            node.input.iter_mut().filter(|_| is_last).for_each(|name| {
                if name == "first_sum" {
                    *name = "layers.0.mlp_norm.sum".into();
                }
            });
        }
        sort_nodes(graph);
    });
    is_equal(op, with_bias, BOUND);
}

#[test]
fn nodes_may_have_no_name_or_share_one() {
    let nameless = changed(|graph| graph.node.iter_mut().for_each(|node| node.name.clear()));
    is_equal("no names", nameless, BOUND);
    let same = changed(|graph| graph.node.iter_mut().for_each(|node| node.name = "input_ids".into()));
    is_equal("one name", same, BOUND);
}

#[test]
fn unknown_operators_are_named() {
    let odd = changed(|graph| {
        for node in graph.node.iter_mut().filter(|node| node.op_type == "Sigmoid") {
            node.op_type = "NoOperator".into();
        }
    });
    let refused = load_variant(odd).err().unwrap();
    assert!(refused.contains("ONNX operator NoOperator (4 places) is not supported"), "{refused}");
}
