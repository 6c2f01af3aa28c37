//! The drafter's graph, in the form of `models/train/export_onnx.py`.
//!
//! Inputs are `input_ids`, `attention_mask` and `position_ids` `[1,S]`, and for each layer `past_key_values.N.key` and
//! `.value` `[1,KV,P,D]`. Outputs are `logits` `[1,S,V]`, `present.N.key` and `.value` `[1,KV,P+S,D]`, and `attention`
//! `[1,S,P+S]`, that of the last layer averaged over the heads.
//!
//! With fewer key heads than query heads, the queries of one key head have an axis of their own, `[1,KV,H/KV,S,D]`, and
//! the keys are broadcast over it, `[1,KV,1,D,P+S]`: the cache is not copied for them.

use crate::config::Decoder;
use crate::convert::Quantized;
use crate::quantize::BLOCK;
use dunlin_lm_tract::graph::{Attribute, Dim, Element, GraphWriter, Place};

/// A matrix with its bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Quantized,
    pub(crate) bias: Option<(Place, usize)>,
}

/// A layer's tensors in the data file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) input_norm: Place,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    /// Norms of the heads of queries and keys.
    pub(crate) head_norms: Option<(Place, Place)>,
    pub(crate) output: Linear,
    pub(crate) mlp_norm: Place,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// The embedding in the data file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Embedding {
    Floats(Place),
    Quantized(Quantized),
}

/// All tensors in the data file.
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Place,
    pub(crate) head: Quantized,
    /// The remainder of the head beyond its 4 bits, in 4 bits more.
    pub(crate) head_remainder: Option<Quantized>,
}

/// A graph under construction.
struct Builder<'d> {
    decoder: &'d Decoder,
    graph: GraphWriter,
}

/// Nodes of the rotary angles, which all layers use.
struct Angles {
    cos: String,
    sin: String,
}

/// The bytes of the ONNX file whose tensors lie in the file `data` beside it.
pub(crate) fn encoded(decoder: &Decoder, tensors: &Tensors, data: &str) -> Vec<u8> {
    let mut builder = Builder { decoder, graph: GraphWriter::new("dunlin-drafter", data) };
    builder.signature(tensors.layers.len());
    let angles = builder.angles();
    let mut hidden = builder.embed(tensors.embedding);
    let (mut mask, mut probabilities) = (None, String::new());
    for (index, layer) in tensors.layers.iter().enumerate() {
        (hidden, probabilities) = builder.layer(index, layer, &hidden, &angles, &mut mask);
    }
    let hidden = builder.rms_norm(&hidden, tensors.norm, decoder.hidden, "norm");
    builder.logits(&hidden, tensors);
    let heads = if decoder.heads == decoder.kv_heads { vec![1] } else { vec![1, 2] };
    let mean = [("axes", Attribute::Ints(heads)), ("keepdims", Attribute::Int(0))];
    builder.graph.node("ReduceMean", &[&probabilities], "attention", &mean);
    builder.graph.encode()
}

impl Builder<'_> {
    fn signature(&mut self, layers: usize) {
        let Decoder { kv_heads, head_dim, vocabulary, .. } = *self.decoder;
        let (new, all) = (Dim::Symbol("S"), Dim::Symbol("P+S"));
        let one = Dim::Size(1);
        let cache = |length| [one, Dim::Size(kv_heads), length, Dim::Size(head_dim)];
        self.graph.input("input_ids", Element::Integer, &[one, new]);
        self.graph.input("attention_mask", Element::Integer, &[one, all]);
        self.graph.input("position_ids", Element::Integer, &[one, new]);
        self.graph.output("logits", Element::Float, &[one, new, Dim::Size(vocabulary)]);
        for layer in 0..layers {
            for part in ["key", "value"] {
                let past = format!("past_key_values.{layer}.{part}");
                self.graph.input(&past, Element::Float, &cache(Dim::Symbol("P")));
                self.graph.output(&format!("present.{layer}.{part}"), Element::Float, &cache(all));
            }
        }
        self.graph.output("attention", Element::Float, &[one, new, all]);
    }

    /// The product with the head. tract multiplies no 8-bit weights, so a head of 8 bits is the sum of two of 4.
    fn logits(&mut self, hidden: &str, tensors: &Tensors) {
        let stored = ("head.codes", "head.scales");
        let Some(remainder) = &tensors.head_remainder else {
            self.product(hidden, &tensors.head, "logits", stored);
            return;
        };
        let first = self.product(hidden, &tensors.head, "head", stored);
        let stored = ("head_remainder.codes", "head_remainder.scales");
        let rest = self.product(hidden, remainder, "head_remainder", stored);
        self.plain("Add", &[&first, &rest], "logits");
    }

    /// cos and sin of position × frequency, each `[1,1,S,D/2]`.
    fn angles(&mut self) -> Angles {
        let frequencies: Vec<f32> = self.decoder.frequencies.iter().map(|f| *f as f32).collect();
        let frequency = self.graph.floats("rope_frequency", &[1, 1, 1, frequencies.len()], &frequencies);
        let to_float = [("to", Attribute::Int(Element::Float.number().into()))];
        let position = self.graph.node("Cast", &["position_ids"], "rope.position", &to_float);
        let axes = self.ints(&[1, 3]);
        let position = self.plain("Unsqueeze", &[&position, &axes], "rope.position4");
        let angle = self.plain("Mul", &[&position, &frequency], "rope.angle");
        Angles {
            cos: self.plain("Cos", &[&angle], "rope.cos"),
            sin: self.plain("Sin", &[&angle], "rope.sin"),
        }
    }

    fn embed(&mut self, embedding: Embedding) -> String {
        let (vocabulary, hidden) = (self.decoder.vocabulary, self.decoder.hidden);
        match embedding {
            Embedding::Floats(place) => {
                let table =
                    self.graph.stored("embed_tokens.weight", Element::Float, &[vocabulary, hidden], place);
                self.plain("Gather", &[&table, "input_ids"], "embed_tokens")
            }
            Embedding::Quantized(Quantized { codes, scales, .. }) => {
                let codes =
                    self.graph.stored("embed_tokens.codes", Element::Byte, &[vocabulary, hidden / 2], codes);
                let shape = [vocabulary, hidden / BLOCK];
                let scales = self.scales("embed_tokens.scales", &shape, scales);
                let attributes = [
                    ("bits", Attribute::Int(4)),
                    ("block_size", Attribute::Int(BLOCK as i64)),
                    ("gather_axis", Attribute::Int(0)),
                    ("quantize_axis", Attribute::Int(1)),
                ];
                let inputs = [codes.as_str(), "input_ids", &scales];
                self.graph.contrib_node("GatherBlockQuantized", &inputs, "embed_tokens", &attributes)
            }
        }
    }

    /// One layer: its output, and the attention probabilities of all heads.
    fn layer(
        &mut self,
        index: usize,
        layer: &Layer,
        hidden: &str,
        angles: &Angles,
        mask: &mut Option<String>,
    ) -> (String, String) {
        let at = format!("layers.{index}");
        let (mixed, probabilities) = self.attention(index, layer, hidden, angles, mask);
        let after = self.linear(&mixed, &layer.output, &format!("{at}.o"));
        let hidden = self.plain("Add", &[hidden, &after], &format!("{at}.after_attention"));
        let input = self.rms_norm(&hidden, layer.mlp_norm, self.decoder.hidden, &format!("{at}.mlp_norm"));
        let gate = self.linear(&input, &layer.gate, &format!("{at}.gate"));
        let sigmoid = self.plain("Sigmoid", &[&gate], &format!("{at}.sigmoid"));
        let silu = self.plain("Mul", &[&gate, &sigmoid], &format!("{at}.silu"));
        let up = self.linear(&input, &layer.up, &format!("{at}.up"));
        let gated = self.plain("Mul", &[&silu, &up], &format!("{at}.gated"));
        let down = self.linear(&gated, &layer.down, &format!("{at}.down"));
        (self.plain("Add", &[&hidden, &down], &format!("{at}.out")), probabilities)
    }

    /// The mixed values `[1,S,H·D]`, and the probabilities.
    fn attention(
        &mut self,
        index: usize,
        layer: &Layer,
        hidden: &str,
        angles: &Angles,
        mask: &mut Option<String>,
    ) -> (String, String) {
        let Decoder { hidden: width, heads, kv_heads, head_dim, .. } = *self.decoder;
        let at = format!("layers.{index}");
        let is_grouped = heads != kv_heads;
        let input = self.rms_norm(hidden, layer.input_norm, width, &format!("{at}.input_norm"));
        let (query_norm, key_norm) = layer.head_norms.unzip();
        let grouping: &[usize] = &[kv_heads, heads / kv_heads];
        let queries = if is_grouped { grouping } else { &[heads] };
        let q = self.heads(&input, &layer.query, query_norm, queries, &format!("{at}.q"));
        let q = self.rotate(&q, angles, &format!("{at}.q"), queries.len() + 2);
        let k = self.heads(&input, &layer.key, key_norm, &[kv_heads], &format!("{at}.k"));
        let k = self.rotate(&k, angles, &format!("{at}.k"), 3);
        let v = self.heads(&input, &layer.value, None, &[kv_heads], &format!("{at}.v"));
        let mut keys = self.joined(index, "key", &k);
        let mut values = self.joined(index, "value", &v);
        let mask = mask.get_or_insert_with(|| self.causal_mask(&keys)).clone();
        let mut turned = vec![0, 1, 3, 2];
        if is_grouped {
            let axis = self.ints(&[2]);
            keys = self.plain("Unsqueeze", &[&keys, &axis], &format!("{at}.keys_grouped"));
            values = self.plain("Unsqueeze", &[&values, &axis], &format!("{at}.values_grouped"));
            turned = vec![0, 1, 2, 4, 3];
        }
        let keys = self.transposed(&keys, turned, &format!("{at}.keys_t"));
        let scale = self.graph.floats("attention_scale", &[], &[(head_dim as f32).sqrt().recip()]);
        let q = self.plain("Mul", &[&q, &scale], &format!("{at}.q_scaled"));
        let scores = self.plain("MatMul", &[&q, &keys], &format!("{at}.scores"));
        let scores = self.plain("Add", &[&scores, &mask], &format!("{at}.scores_masked"));
        let last = [("axis", Attribute::Int(-1))];
        let probabilities = self.graph.node("Softmax", &[&scores], &format!("{at}.probabilities"), &last);
        let mixed = self.plain("MatMul", &[&probabilities, &values], &format!("{at}.mixed"));
        let order = if is_grouped { vec![0, 3, 1, 2, 4] } else { vec![0, 2, 1, 3] };
        let mixed = self.transposed(&mixed, order, &format!("{at}.mixed_t"));
        let flat = self.ints(&[1, -1, (heads * head_dim) as i64]);
        (self.plain("Reshape", &[&mixed, &flat], &format!("{at}.mixed_flat")), probabilities)
    }

    /// The heads of a product, `[1,…,S,D]` with the axes of `heads`, normalized if there is a norm.
    fn heads(
        &mut self,
        input: &str,
        linear: &Linear,
        norm: Option<Place>,
        heads: &[usize],
        name: &str,
    ) -> String {
        let dim = self.decoder.head_dim;
        let flat = self.linear(input, linear, name);
        let mut shape = vec![1, -1];
        shape.extend(heads.iter().map(|heads| *heads as i64));
        shape.push(dim as i64);
        let shape = self.ints(&shape);
        let split = self.plain("Reshape", &[&flat, &shape], &format!("{name}.heads"));
        let last = heads.len() as i64 + 2;
        let mut order = vec![0];
        order.extend(2..last);
        order.extend([1, last]);
        let split = self.transposed(&split, order, &format!("{name}.heads_t"));
        match norm {
            Some(norm) => self.rms_norm(&split, norm, dim, &format!("{name}.norm")),
            None => split,
        }
    }

    /// The cache with the new keys or values.
    fn joined(&mut self, index: usize, part: &str, new: &str) -> String {
        let past = format!("past_key_values.{index}.{part}");
        let axis = [("axis", Attribute::Int(2))];
        self.graph.node("Concat", &[&past, new], &format!("present.{index}.{part}"), &axis)
    }

    /// Rotary positions on the pairs (i, i + D/2) along the last axis, which has this index.
    fn rotate(&mut self, x: &str, angles: &Angles, name: &str, axis: usize) -> String {
        let dim = self.decoder.head_dim as i64;
        let [zero, half, end, last] = [0, dim / 2, dim, axis as i64].map(|number| self.ints(&[number]));
        let a = self.plain("Slice", &[x, &zero, &half, &last], &format!("{name}.a"));
        let b = self.plain("Slice", &[x, &half, &end, &last], &format!("{name}.b"));
        let mut product =
            |u: &str, w: &str, part: &str| self.plain("Mul", &[u, w], &format!("{name}.{part}"));
        let (ac, bs) = (product(&a, &angles.cos, "ac"), product(&b, &angles.sin, "bs"));
        let (bc, sa) = (product(&b, &angles.cos, "bc"), product(&a, &angles.sin, "as"));
        let first = self.plain("Sub", &[&ac, &bs], &format!("{name}.first"));
        let second = self.plain("Add", &[&bc, &sa], &format!("{name}.second"));
        let attribute = [("axis", Attribute::Int(axis as i64))];
        self.graph.node("Concat", &[&first, &second], &format!("{name}.rotated"), &attribute)
    }

    /// 0 where a query may look and −1e9 elsewhere, `[1,1,S,P+S]`.
    fn causal_mask(&mut self, keys: &str) -> String {
        let [zero, one, two] =
            [0, 1, 2].map(|number| self.graph.integers(&format!("int_{number}"), &[], &[number]));
        let to_float = [("to", Attribute::Int(Element::Float.number().into()))];
        let shape = self.plain("Shape", &[keys], "mask.shape");
        let first = [("axis", Attribute::Int(0))];
        let count = self.graph.node("Gather", &[&shape, &two], "mask.count", &first);
        let key = self.plain("Range", &[&zero, &count, &one], "mask.key");
        let (inner, around) = (self.ints(&[1, 2]), self.ints(&[1, 3]));
        let query = self.plain("Unsqueeze", &["position_ids", &around], "mask.query");
        let after = self.plain("Greater", &[&key, &query], "mask.after");
        let after = self.graph.node("Cast", &[&after], "mask.after_f32", &to_float);
        let given = self.graph.node("Cast", &["attention_mask"], "mask.given", &to_float);
        let one = self.graph.floats("one", &[], &[1.0]);
        let hidden = self.plain("Sub", &[&one, &given], "mask.hidden");
        let hidden = self.plain("Unsqueeze", &[&hidden, &inner], "mask.hidden4");
        let both = self.plain("Add", &[&after, &hidden], "mask.both");
        let value = self.graph.floats("mask_value", &[], &[-1e9]);
        self.plain("Mul", &[&both, &value], "mask")
    }

    fn rms_norm(&mut self, x: &str, weight: Place, width: usize, name: &str) -> String {
        let square = self.plain("Mul", &[x, x], &format!("{name}.square"));
        let mean = [("axes", Attribute::Ints(vec![-1])), ("keepdims", Attribute::Int(1))];
        let mean = self.graph.node("ReduceMean", &[&square], &format!("{name}.mean"), &mean);
        let epsilon = self.graph.floats("norm_eps", &[1], &[self.decoder.epsilon]);
        let sum = self.plain("Add", &[&mean, &epsilon], &format!("{name}.add"));
        let root = self.plain("Sqrt", &[&sum], &format!("{name}.root"));
        let unit = self.plain("Div", &[x, &root], &format!("{name}.unit"));
        let weight = self.graph.stored(&format!("{name}.weight"), Element::Float, &[width], weight);
        self.plain("Mul", &[&unit, &weight], name)
    }

    /// The product with a matrix, and its bias; its output has the name `name`.
    fn linear(&mut self, x: &str, linear: &Linear, name: &str) -> String {
        let (codes, scales) = (format!("{name}.codes"), format!("{name}.scales"));
        let Some((place, length)) = linear.bias else {
            return self.product(x, &linear.weight, name, (&codes, &scales));
        };
        let product = self.product(x, &linear.weight, &format!("{name}.product"), (&codes, &scales));
        let bias = self.graph.stored(&format!("{name}.bias"), Element::Float, &[length], place);
        self.plain("Add", &[&product, &bias], name)
    }

    fn product(&mut self, x: &str, weight: &Quantized, name: &str, (codes, scales): (&str, &str)) -> String {
        let (rows, blocks) = (weight.rows, weight.blocks());
        let codes = self.graph.stored(codes, Element::Byte, &[rows, blocks, BLOCK / 2], weight.codes);
        let scales = self.scales(scales, &[rows * blocks], weight.scales);
        let attributes = [
            ("K", Attribute::Int(weight.columns as i64)),
            ("N", Attribute::Int(rows as i64)),
            ("bits", Attribute::Int(4)),
            ("block_size", Attribute::Int(BLOCK as i64)),
        ];
        self.graph.contrib_node("MatMulNBits", &[x, &codes, &scales], name, &attributes)
    }

    /// Scales, which take 16 bits in the file. The operators take the type of their activations only; a cast of a
    /// constant is computed when the graph is loaded.
    fn scales(&mut self, name: &str, shape: &[usize], place: Place) -> String {
        let stored = self.graph.stored(&format!("{name}_f16"), Element::Half, shape, place);
        let to_float = [("to", Attribute::Int(Element::Float.number().into()))];
        self.graph.node("Cast", &[&stored], name, &to_float)
    }

    fn transposed(&mut self, x: &str, order: Vec<i64>, name: &str) -> String {
        self.graph.node("Transpose", &[x], name, &[("perm", Attribute::Ints(order))])
    }

    /// A node without attributes.
    fn plain(&mut self, op: &str, inputs: &[&str], name: &str) -> String {
        self.graph.node(op, inputs, name, &[])
    }

    /// A vector of integers.
    fn ints(&mut self, numbers: &[i64]) -> String {
        let name = numbers.iter().fold("ints".to_string(), |name, number| format!("{name}_{number}"));
        self.graph.integers(&name, &[numbers.len()], numbers)
    }
}
