"""Models of the paper's shapes with random weights: a target, a drafter that it seldom agrees with, and one that replays a text.

The target's logits are those of a random walk over the vocabulary, with the layers' work added as noise: the first
numbers of a token's embedding meet random rows of the head. So its text neither stands still nor repeats itself.
"""

from dataclasses import dataclass

import blocks
import numpy as np
from blocks import Q4_0, Q4_K, Q6_K, Q8_0

# Special tokens and bytes come first; no model prefers one, so no reply ends early.
SPECIAL = 259
VOCABULARY = 32000
# Size of the logits of the walk, and the share of the layers' noise in the last state.
SIGMA, NOISE = 4.0, 0.15
# Size of a drafter's logit for the token that it replays.
CERTAIN = 20.0
# Spread of the embedding beyond the walk's numbers.
REST = 0.3


@dataclass
class Shape:
    dim: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    context: int

    @property
    def walk(self):
        """Numbers of the embedding that carry the walk."""
        return min(256, self.dim // 2)


LLAMA_7B = Shape(dim=4096, layers=32, heads=32, kv_heads=32, ffn=11008, context=4096)
TINY_LLAMA = Shape(dim=2048, layers=22, heads=32, kv_heads=4, ffn=5632, context=2048)
SMALL_TARGET = Shape(dim=512, layers=2, heads=8, kv_heads=8, ffn=1024, context=4096)
SMALL_DRAFTER = Shape(dim=256, layers=2, heads=4, kv_heads=2, ffn=512, context=2048)


def pieces():
    """The vocabulary: special tokens, bytes, letters, and syllables at the start of a word and within one."""
    consonants, vowels = "bcdfghjklmnpqrstvwxyz", "aeiou"
    letters = [chr(code) for code in range(33, 127)]
    open_syllables = [c + v for c in consonants for v in vowels]
    pairs = [a + b for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"]
    closed = [syllable + c for syllable in open_syllables for c in consonants]
    double = [a + b for a in open_syllables for b in open_syllables]
    long = [syllable + end for syllable in double for end in consonants]
    listed = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["▁"]
    for part in (letters, pairs, closed, double, long):
        listed += [piece for one in part for piece in (one, "▁" + one)]
    return list(dict.fromkeys(listed))[:VOCABULARY]


def metadata(name, shape, file_type):
    tokens = pieces()
    types = [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - SPECIAL)
    return {
        "general.architecture": "llama",
        "general.name": name,
        "general.file_type": file_type,
        "general.quantization_version": 2,
        "llama.vocab_size": VOCABULARY,
        "llama.context_length": shape.context,
        "llama.embedding_length": shape.dim,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.ffn,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.dim // shape.heads,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [float(-i) for i in range(VOCABULARY)],
        "tokenizer.ggml.token_type": [np.int32(kind) for kind in types],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


@dataclass
class Kinds:
    """The types of a file's matrices."""

    file_type: int
    plain: int
    head: int
    # Values and the second matrix of the feed-forward part, in some layers.
    more: int

    def of_layer(self, layer, layers):
        eighth = layers // 8
        more_bits = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        return self.more if more_bits else self.plain


# llama.cpp's mixtures of these names.
KINDS = {
    "q4_k_m": Kinds(15, Q4_K, Q6_K, Q6_K),
    "q8_0": Kinds(7, Q8_0, Q8_0, Q8_0),
    "q4_0": Kinds(2, Q4_0, Q4_0, Q4_0),
}


def layers(shape, kinds, rng, out):
    """The layers' tensors; `out` scales what they add to the state."""
    size, kv = shape.dim, shape.dim // shape.heads * shape.kv_heads
    found = []
    for layer in range(shape.layers):
        more = kinds.of_layer(layer, shape.layers)
        parts = [
            ("attn_q", size, size, kinds.plain, 1),
            ("attn_k", kv, size, kinds.plain, 1),
            ("attn_v", kv, size, more, 1),
            ("attn_output", size, size, kinds.plain, 3 * out),
            ("ffn_gate", shape.ffn, size, kinds.plain, 1),
            ("ffn_up", shape.ffn, size, kinds.plain, 1),
            ("ffn_down", size, shape.ffn, more, out / 0.6),
        ]
        for part, rows, columns, kind, spread in parts:
            name, std = f"blk.{layer}.{part}.weight", spread / columns**0.5
            found.append(blocks.random_matrix(name, [rows, columns], kind, std, rng))
        for norm in ("attn_norm", "ffn_norm"):
            found.append(blocks.vector(f"blk.{layer}.{norm}.weight", np.ones(size)))
    return found


def walking(path, name, shape, kind, seed, progress):
    """A model whose text is the random walk of this seed."""
    kinds, rng = KINDS[kind], np.random.Generator(np.random.SFC64(seed))
    dim, walk = shape.dim, shape.walk
    standing = rng.standard_normal((VOCABULARY, walk), dtype=np.float32)
    going = rng.standard_normal((VOCABULARY, walk), dtype=np.float32)
    going[:SPECIAL] = 0

    def embedding(start, end):
        rows = rng.standard_normal((end - start, dim), dtype=np.float32) * REST
        rows[:, :walk] = standing[start:end]
        return rows

    def head(start, end):
        rows = np.zeros((end - start, dim), np.float32)
        rows[:, :walk] = going[start:end]
        return rows

    # The root mean square of the last state, by which the norm divides it.
    state = ((walk * (1 + NOISE) + (dim - walk) * (REST**2 + NOISE)) / dim) ** 0.5
    norm = np.ones(dim)
    norm[:walk] = SIGMA * state / (walk * (1 + NOISE)) ** 0.5
    tensors = [blocks.matrix("token_embd.weight", [VOCABULARY, dim], kinds.plain, embedding)]
    tensors += layers(shape, kinds, rng, (NOISE / (2 * shape.layers)) ** 0.5)
    tensors += [
        blocks.vector("output_norm.weight", norm),
        blocks.matrix("output.weight", [VOCABULARY, dim], kinds.head, head),
    ]
    blocks.write(path, metadata(name, shape, kinds.file_type), tensors, progress)


def replaying(path, name, shape, kind, follows, seed, progress):
    """A model that continues each token of `follows` with the token that it names there.

    Its layers compute as any other's and add nothing, so it costs what a model of its shape costs.
    """
    kinds, rng = KINDS[kind], np.random.Generator(np.random.SFC64(seed))
    dim = shape.dim
    signs = rng.integers(0, 2, (VOCABULARY, dim), dtype=np.int8) * 2 - 1
    before = np.full(VOCABULARY, -1)
    for token, following in follows.items():
        before[following] = token

    def head(start, end):
        rows = np.zeros((end - start, dim), np.float32)
        for token in np.flatnonzero(before[start:end] >= 0):
            rows[token] = signs[before[start + token]]
        return rows

    tensors = [
        blocks.matrix("token_embd.weight", [VOCABULARY, dim], kinds.plain, lambda a, b: signs[a:b].astype(np.float32)),
        *layers(shape, kinds, rng, 0.0),
        blocks.vector("output_norm.weight", np.full(dim, CERTAIN / dim)),
        blocks.matrix("output.weight", [VOCABULARY, dim], kinds.head, head),
    ]
    blocks.write(path, metadata(name, shape, kinds.file_type), tensors, progress)
