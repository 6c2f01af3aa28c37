"""A Llama-style language model whose tensors carry the Hugging Face names.

One class serves training and export. A folder with `config.json` and `model.safetensors` in
Hugging Face's Llama layout loads with `load` and is written by `save`. The embedding is tied to
the output head, and there are as many key/value heads as query heads.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

QUANT_BLOCK = 32


def fake_q4(weight):
    """Round a matrix as the exporter's 4-bit packing does; gradients pass straight through."""
    q, scale = quantize_q4(weight.detach())
    rounded = dequantize_q4(q, scale).to(weight.dtype)
    return weight + (rounded - weight).detach()


def quantize_q4(weight):
    """Symmetric 4 bits in blocks of 32 along the input (the rule of GGUF's Q4_0).

    [N, K] → codes 0..15 (zero is 8) as [N, K/32, 32] and scales [N, K/32], f32 values that f16
    holds exactly. The entry of largest magnitude maps to code 0, that is to −8.
    """
    blocks = weight.float().reshape(weight.shape[0], -1, QUANT_BLOCK)
    peak = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = (peak / -8).half().float()
    inverse = torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
    return (blocks * inverse).round().add(8).clamp(0, 15), scale.squeeze(-1)


def dequantize_q4(codes, scale):
    return ((codes - 8) * scale[..., None]).reshape(codes.shape[0], -1)


class Config:
    """The shape of a model; the fields of Hugging Face's `LlamaConfig` that vary here."""

    def __init__(self, vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size):
        self.vocab = vocab_size
        self.dim = hidden_size
        self.layers = num_hidden_layers
        self.heads = num_attention_heads
        self.ffn = intermediate_size
        self.head_dim = hidden_size // num_attention_heads
        self.context = 1024
        self.eps = 1e-5
        self.rope_base = 10000.0

    @classmethod
    def read(cls, path):
        raw = json.loads(Path(path).read_text())
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return cls(*(raw[name] for name in names))

    def to_json(self):
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab,
            "hidden_size": self.dim,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "intermediate_size": self.ffn,
            "rms_norm_eps": self.eps,
            "rope_theta": self.rope_base,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": True,
            "hidden_act": "silu",
            "torch_dtype": "float32",
        }


class Norm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


def rotate(x, cos, sin):
    """Rotary embedding on pairs (i, i + head_dim/2), Hugging Face's order."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def matrix(rows, columns):
    return nn.Linear(columns, rows, bias=False)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (matrix(c.dim, c.dim) for _ in range(4))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = matrix(c.ffn, c.dim)
        self.up_proj = matrix(c.ffn, c.dim)
        self.down_proj = matrix(c.dim, c.ffn)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = Norm(c.dim, c.eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = Norm(c.dim, c.eps)
        self.mlp = Mlp(c)

    def forward(self, x, cos, sin, weight, dropout):
        batch, length, dim = x.shape
        attn, mlp = self.self_attn, self.mlp
        qkv = torch.cat([weight(attn.q_proj), weight(attn.k_proj), weight(attn.v_proj)])
        qkv = F.linear(self.input_layernorm(x), qkv).view(batch, length, 3, attn.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, dim)
        x = x + F.dropout(F.linear(y, weight(attn.o_proj)), dropout, self.training)
        gate_up = torch.cat([weight(mlp.gate_proj), weight(mlp.up_proj)])
        gate, up = F.linear(self.post_attention_layernorm(x), gate_up).chunk(2, -1)
        return x + F.dropout(F.linear(F.silu(gate) * up, weight(mlp.down_proj)), dropout, self.training)


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab, c.dim)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = Norm(c.dim, c.eps)


class Llama(nn.Module):
    """Token ids [B, T] → logits [B, T, V].

    `four_bit` rounds every matrix of the forward pass to the exporter's 4 bits (the embedding
    look-up stays exact, the tied head is rounded).
    """

    def __init__(self, config, dropout=0.0, four_bit=False):
        super().__init__()
        self.config, self.dropout, self.four_bit = config, dropout, four_bit
        self.model = Body(config)
        half = torch.arange(0, config.head_dim, 2) / config.head_dim
        angle = torch.arange(config.context)[:, None] / config.rope_base**half
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.init_weights()

    def init_weights(self):
        residual = 1 / math.sqrt(2 * self.config.layers)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, 0, 0.02 * (residual if "o_proj" in name or "down_proj" in name else 1))

    def rounded(self, module):
        return fake_q4(module.weight) if self.four_bit else module.weight

    def forward(self, ids):
        length = ids.shape[1]
        dropout = self.dropout if self.training else 0.0
        x = F.dropout(self.model.embed_tokens(ids), dropout, self.training)
        for layer in self.model.layers:
            x = layer(x, self.cos[:length], self.sin[:length], self.rounded, dropout)
        return F.linear(self.model.norm(x), self.rounded(self.model.embed_tokens))


def load(folder, **options):
    """The model of a Hugging Face Llama folder, weights as f32; fresh weights where it has only `config.json`."""
    folder = Path(folder)
    model = Llama(Config.read(folder / "config.json"), **options)
    if (folder / "model.safetensors").exists():
        state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items() if k != "lm_head.weight"}
        model.load_state_dict(state)
    return model


def save(model, folder):
    """Write `config.json` and `model.safetensors` (f32)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_json(), indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"})
