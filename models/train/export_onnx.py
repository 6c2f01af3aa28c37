"""Write the drafter as an ONNX file with 4-bit weights, in Hugging Face's input/output form.

Inputs:  input_ids i64 [1,S], attention_mask i64 [1,P+S], position_ids i64 [1,S],
         past_key_values.N.key / .value f32 [1,H,P,D]
Outputs: logits f32 [1,S,V], present.N.key / .value f32 [1,H,P+S,D],
         attention f32 [1,S,P+S] (last layer, averaged over the heads)

A query at position p sees the keys 0..=p whose attention_mask is not 0; position_ids must
therefore be P..P+S-1. P may be 0. The graph is opset 17 without control flow; its matrices are
com.microsoft `MatMulNBits` (4 bits, blocks of 32, symmetric), the embedding is f32.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import model as llama

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Graph:
    """Collects nodes and constants; each method adds one operator and returns its output name."""

    def __init__(self):
        self.nodes, self.constants, self.names = [], {}, set()

    def constant(self, name, array):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def add(self, op, *inputs, name, **attributes):
        assert name not in self.names, name
        self.names.add(name)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def matmul_q4(self, x, weight, name):
        """x · weightᵀ with the weight [N, K] packed to 4 bits."""
        rows, columns = weight.shape
        codes, scale = llama.quantize_q4(weight.detach())
        codes = codes.numpy().astype(np.uint8)
        packed = codes[..., 0::2] | codes[..., 1::2] << 4
        b = self.constant(f"{name}.weight_q4", packed)
        s = self.constant(f"{name}.scales", scale.numpy().reshape(-1))
        shape = dict(K=columns, N=rows, bits=4, block_size=llama.QUANT_BLOCK)
        return self.add("MatMulNBits", x, b, s, name=name, domain="com.microsoft", **shape)

    def rms_norm(self, x, norm, name):
        square = self.add("Mul", x, x, name=f"{name}.square")
        mean = self.add("ReduceMean", square, name=f"{name}.mean", axes=[-1], keepdims=1)
        eps = self.constant("norm_eps", np.array([norm.eps], np.float32))
        root = self.add("Sqrt", self.add("Add", mean, eps, name=f"{name}.add"), name=f"{name}.root")
        unit = self.add("Div", x, root, name=f"{name}.unit")
        weight = self.constant(f"{name}.weight", norm.weight.detach().numpy())
        return self.add("Mul", unit, weight, name=name)

    def ints(self, *values):
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))


def build(model):
    """The ONNX model of a `Llama`."""
    c, g = model.config, Graph()
    cos, sin = rope_angles(g, c)
    embedding = g.constant("embed_tokens.weight", model.model.embed_tokens.weight.detach().numpy())
    x = g.add("Gather", embedding, "input_ids", name="embed_tokens")
    mask = None
    for n, layer in enumerate(model.model.layers):
        x, mask, probabilities = add_layer(g, c, n, layer, x, cos, sin, mask)
    x = g.rms_norm(x, model.model.norm, "norm")
    g.matmul_q4(x, model.model.embed_tokens.weight, "logits")
    g.add("ReduceMean", probabilities, name="attention", axes=[1], keepdims=0)
    return finish(g, c)


def rope_angles(g, c):
    """cos and sin of position × frequency, each [1,1,S,D/2]."""
    frequency = 1 / c.rope_base ** (np.arange(0, c.head_dim, 2) / c.head_dim)
    frequency = g.constant("rope_frequency", frequency.astype(np.float32).reshape(1, 1, 1, -1))
    position = g.add("Cast", "position_ids", name="rope.position", to=FLOAT)
    position = g.add("Unsqueeze", position, g.ints(1, 3), name="rope.position4")
    angle = g.add("Mul", position, frequency, name="rope.angle")
    return g.add("Cos", angle, name="rope.cos"), g.add("Sin", angle, name="rope.sin")


def add_layer(g, c, n, layer, x, cos, sin, mask):
    """One decoder layer: (its output, the additive mask, the attention probabilities [1,H,S,P+S])."""
    at = f"layers.{n}"
    h = g.rms_norm(x, layer.input_layernorm, f"{at}.input_norm")
    q = rotate(g, c, split_heads(g, c, g.matmul_q4(h, layer.self_attn.q_proj.weight, f"{at}.q")), cos, sin)
    k = rotate(g, c, split_heads(g, c, g.matmul_q4(h, layer.self_attn.k_proj.weight, f"{at}.k")), cos, sin)
    v = split_heads(g, c, g.matmul_q4(h, layer.self_attn.v_proj.weight, f"{at}.v"))
    keys = g.add("Concat", f"past_key_values.{n}.key", k, name=f"present.{n}.key", axis=2)
    values = g.add("Concat", f"past_key_values.{n}.value", v, name=f"present.{n}.value", axis=2)
    mask = mask or causal_mask(g, keys)

    scale = g.constant("attention_scale", np.array(c.head_dim**-0.5, np.float32))
    keys_t = g.add("Transpose", keys, name=f"{at}.keys_t", perm=[0, 1, 3, 2])
    scores = g.add("MatMul", g.add("Mul", q, scale, name=f"{at}.q_scaled"), keys_t, name=f"{at}.scores")
    scores = g.add("Add", scores, mask, name=f"{at}.scores_masked")
    probabilities = g.add("Softmax", scores, name=f"{at}.probabilities", axis=-1)
    mixed = g.add("MatMul", probabilities, values, name=f"{at}.mixed")
    mixed = g.add("Transpose", mixed, name=f"{at}.mixed_t", perm=[0, 2, 1, 3])
    mixed = g.add("Reshape", mixed, g.ints(1, -1, c.dim), name=f"{at}.mixed_flat")
    x = g.add("Add", x, g.matmul_q4(mixed, layer.self_attn.o_proj.weight, f"{at}.o"), name=f"{at}.after_attention")

    h = g.rms_norm(x, layer.post_attention_layernorm, f"{at}.mlp_norm")
    gate = g.matmul_q4(h, layer.mlp.gate_proj.weight, f"{at}.gate")
    silu = g.add("Mul", gate, g.add("Sigmoid", gate, name=f"{at}.sigmoid"), name=f"{at}.silu")
    up = g.matmul_q4(h, layer.mlp.up_proj.weight, f"{at}.up")
    down = g.matmul_q4(g.add("Mul", silu, up, name=f"{at}.gated"), layer.mlp.down_proj.weight, f"{at}.down")
    return g.add("Add", x, down, name=f"{at}.out"), mask, probabilities


def split_heads(g, c, x):
    """[1,S,H·D] → [1,H,S,D]."""
    x_heads = g.add("Reshape", x, g.ints(1, -1, c.heads, c.head_dim), name=f"{x}.heads")
    return g.add("Transpose", x_heads, name=f"{x}.heads_t", perm=[0, 2, 1, 3])


def rotate(g, c, x, cos, sin):
    """Rotary embedding on pairs (i, i + D/2)."""
    half = c.head_dim // 2
    a = g.add("Slice", x, g.ints(0), g.ints(half), g.ints(3), name=f"{x}.a")
    b = g.add("Slice", x, g.ints(half), g.ints(c.head_dim), g.ints(3), name=f"{x}.b")
    products = {n: g.add("Mul", u, w, name=f"{x}.{n}") for n, u, w in
                (("ac", a, cos), ("bs", b, sin), ("bc", b, cos), ("as", a, sin))}
    first = g.add("Sub", products["ac"], products["bs"], name=f"{x}.first")
    second = g.add("Add", products["bc"], products["as"], name=f"{x}.second")
    return g.add("Concat", first, second, name=f"{x}.rotated", axis=3)


def causal_mask(g, keys):
    """0 where a query may look and −1e9 elsewhere, [1,1,S,P+S]."""
    zero, one, two = (g.constant(f"int_{v}", np.array(v, np.int64)) for v in range(3))
    count = g.add("Gather", g.add("Shape", keys, name="mask.shape"), two, name="mask.count", axis=0)
    key = g.add("Range", zero, count, one, name="mask.key")
    query = g.add("Unsqueeze", "position_ids", g.ints(1, 3), name="mask.query")
    after = g.add("Cast", g.add("Greater", key, query, name="mask.after"), name="mask.after_f32", to=FLOAT)
    hidden = g.add("Sub", g.constant("one", np.array(1, np.float32)),
                   g.add("Cast", "attention_mask", name="mask.given", to=FLOAT), name="mask.hidden")
    hidden = g.add("Unsqueeze", hidden, g.ints(1, 2), name="mask.hidden4")
    both = g.add("Add", after, hidden, name="mask.both")
    return g.add("Mul", both, g.constant("mask_value", np.array(-1e9, np.float32)), name="mask")


def finish(g, c):
    cache = [f"{n}.{part}" for n in range(c.layers) for part in ("key", "value")]
    value = helper.make_tensor_value_info
    inputs = [value("input_ids", INT64, [1, "S"]), value("attention_mask", INT64, [1, "P+S"]),
              value("position_ids", INT64, [1, "S"])]
    inputs += [value(f"past_key_values.{n}", FLOAT, [1, c.heads, "P", c.head_dim]) for n in cache]
    outputs = [value("logits", FLOAT, [1, "S", c.vocab])]
    outputs += [value(f"present.{n}", FLOAT, [1, c.heads, "P+S", c.head_dim]) for n in cache]
    outputs += [value("attention", FLOAT, [1, "S", "P+S"])]
    graph = helper.make_graph(g.nodes, "dunlin-drafter", inputs, outputs, list(g.constants.values()))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="dunlin")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file to write")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(build(llama.load(args.model)), args.out)
    print(args.out, args.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
