"""SmolLM2's Llama in PyTorch: grouped key/value heads, a key/value cache, and 4-bit rounding for training.

Tensors carry the Hugging Face names. The embedding is tied to the output head.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from model import Norm, dequantize_q4, fake_q4, matrix, quantize_q4, rotate  # noqa: E402


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        head = c["hidden_size"] // c["num_attention_heads"]
        kv = c["num_key_value_heads"] * head
        self.q_proj, self.o_proj = matrix(c["hidden_size"], c["hidden_size"]), matrix(c["hidden_size"], c["hidden_size"])
        self.k_proj, self.v_proj = matrix(kv, c["hidden_size"]), matrix(kv, c["hidden_size"])


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = matrix(c["intermediate_size"], c["hidden_size"])
        self.up_proj = matrix(c["intermediate_size"], c["hidden_size"])
        self.down_proj = matrix(c["hidden_size"], c["intermediate_size"])


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.kv_heads = c["num_key_value_heads"]
        self.head_dim = c["hidden_size"] // c["num_attention_heads"]
        self.input_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Mlp(c)

    def forward(self, x, cos, sin, weight, cache=None, at=0, mask=None):
        """x [B, T, D] at positions `at`…; `cache` is (keys, values) [B, KV, L, head_dim], written in place."""
        batch, length, dim = x.shape
        attn, mlp = self.self_attn, self.mlp
        h = self.input_layernorm(x)

        def heads(m):
            return F.linear(h, weight(m)).view(batch, length, -1, self.head_dim).transpose(1, 2)

        q, k, v = rotate(heads(attn.q_proj), cos, sin), rotate(heads(attn.k_proj), cos, sin), heads(attn.v_proj)
        if cache is not None:
            cache[0][:, :, at : at + length], cache[1][:, :, at : at + length] = k, v
            k, v = cache[0][:, :, : at + length], cache[1][:, :, : at + length]
        if length == 1:  # the query heads of a group become rows: no copy of the keys
            y = F.scaled_dot_product_attention(q.reshape(batch, self.kv_heads, -1, self.head_dim), k, v, attn_mask=mask)
            y = y.reshape(batch, 1, dim)
        else:
            group = q.shape[1] // self.kv_heads
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
            y = y.transpose(1, 2).reshape(batch, length, dim)
        x = x + F.linear(y, weight(attn.o_proj))
        h = self.post_attention_layernorm(x)
        gated = F.silu(F.linear(h, weight(mlp.gate_proj))) * F.linear(h, weight(mlp.up_proj))
        return x + F.linear(gated, weight(mlp.down_proj))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"], c["rms_norm_eps"])


class SmolLM2(nn.Module):
    """Token ids [B, T] → hidden states [B, T, D] after the last norm; `head` gives the matrix for logits.

    `four_bit` rounds every matrix to the exporter's 4 bits, the shared embedding included.
    `compute` is the type of the matrix products.
    """

    def __init__(self, config, four_bit=False, compute=torch.float32):
        super().__init__()
        self.config, self.four_bit, self.compute = config, four_bit, compute
        self.model = Body(config)
        self.set_angles()

    def set_angles(self, context=1024):
        head = self.config["hidden_size"] // self.config["num_attention_heads"]
        rate = self.config["rope_theta"] ** -(torch.arange(0, head, 2) / head)
        self.angle = torch.arange(context)[:, None] * rate

    def weight(self, module):
        return (fake_q4(module.weight) if self.four_bit else module.weight).to(self.compute)

    def head(self):
        return self.weight(self.model.embed_tokens)

    def forward(self, ids, head=None, caches=None, at=0, mask=None):
        x = F.embedding(ids, self.head() if head is None else head)
        angle = self.angle[at : at + ids.shape[1]]
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, self.weight, caches[i] if caches else None, at, mask)
        return self.model.norm(x)


def load(folder, layers=None, **options):
    """The model of a Hugging Face Llama folder; `layers` picks some of its layers, in order."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    if layers:
        kept = {k: v for k, v in state.items() if ".layers." not in k}
        for new, old in enumerate(layers):
            start = f"model.layers.{old}."
            kept |= {f"model.layers.{new}." + k[len(start) :]: v for k, v in state.items() if k.startswith(start)}
        state, config = kept, config | {"num_hidden_layers": len(layers)}
    model = SmolLM2(config, **options)
    model.load_state_dict(state)
    return model


def save(model, folder, rounded=False):
    """Write `config.json` and `model.safetensors` (f32); `rounded` writes the 4-bit values themselves."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().float().contiguous() for k, v in model.state_dict().items()}
    if rounded:
        state = {k: dequantize_q4(*quantize_q4(v)) if v.dim() == 2 else v for k, v in state.items()}
    (folder / "config.json").write_text(json.dumps(model.config, indent=1) + "\n")
    partial = folder / "model.safetensors.partial"
    save_file(state, partial, {"format": "pt"})
    partial.replace(folder / "model.safetensors")
