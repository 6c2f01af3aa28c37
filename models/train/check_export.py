"""Check an exported pair against the PyTorch models it came from.

The drafter runs in onnxruntime: empty and non-empty past, one chunk against token by token, and
the attention output. The target's GGUF tensors are read back and its metadata is compared.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

import corpus
import evaluate
import model as llama


class Session:
    """The drafter with its cache, as a client would drive it."""

    def __init__(self, path, config):
        self.run = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run
        self.names = [f"{n}.{part}" for n in range(config.layers) for part in ("key", "value")]
        self.cache = [np.zeros((1, config.heads, 0, config.head_dim), np.float32) for _ in self.names]

    def feed(self, ids):
        """(logits [S,V], attention [S,P+S]) for the next ids."""
        past = self.cache[0].shape[2]
        feeds = {
            "input_ids": ids[None],
            "attention_mask": np.ones((1, past + len(ids)), np.int64),
            "position_ids": np.arange(past, past + len(ids))[None],
            **{f"past_key_values.{n}": c for n, c in zip(self.names, self.cache)},
        }
        wanted = ["logits", "attention"] + [f"present.{n}" for n in self.names]
        logits, attention, *self.cache = self.run(wanted, feeds)
        return logits[0], attention[0]


@torch.no_grad()
def last_attention(model, ids):
    """The last layer's attention, averaged over heads, computed plainly [S,S]."""
    x, length = model.model.embed_tokens(ids[None]), len(ids)
    cos, sin = model.cos[:length], model.sin[:length]
    for layer in model.model.layers[:-1]:
        x = layer(x, cos, sin, model.rounded, 0.0)
    layer, config = model.model.layers[-1], model.config
    h = layer.input_layernorm(x)
    q, k = (
        llama.rotate(F.linear(h, model.rounded(p)).view(length, config.heads, -1).transpose(0, 1), cos, sin)
        for p in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    scores = q @ k.transpose(1, 2) * config.head_dim**-0.5
    hidden = torch.ones(length, length).triu(1).bool()
    return scores.masked_fill(hidden, -torch.inf).softmax(-1).mean(0)


@torch.no_grad()
def check_drafter(folder, path, ids):
    model = llama.load(folder, four_bit=True).eval()
    expected = model(ids[None])[0].numpy()
    attention = last_attention(model, ids).numpy()
    whole = Session(path, model.config).feed(ids.numpy())
    split_session, single_session = Session(path, model.config), Session(path, model.config)
    split = [split_session.feed(part.numpy()) for part in ids.split([1, 7, len(ids) - 8])]
    single = [single_session.feed(ids[i : i + 1].numpy()) for i in range(len(ids))]
    differences = {
        "logits, one chunk": whole[0] - expected,
        "logits, three chunks": np.concatenate([s[0] for s in split]) - expected,
        "logits, token by token": np.concatenate([s[0] for s in single]) - expected,
        "attention, one chunk": whole[1] - attention,
        "attention, last single token": single[-1][1][0] - attention[-1],
    }
    for what, difference in differences.items():
        worst = float(np.abs(difference).max())
        print(f"drafter {what}: largest difference {worst:.2e}")
        assert worst < 1e-3, what


def check_target(folder, path):
    model = evaluate.round_q8(llama.load(folder))
    reader = gguf.GGUFReader(str(path))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == model.config.layers
    assert len(fields["tokenizer.ggml.tokens"]) == model.config.vocab
    stored = {t.name: t for t in reader.tensors}
    names = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
             "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj"}
    for n in range(model.config.layers):
        for short, long in names.items():
            tensor = stored[f"blk.{n}.{short}.weight"]
            value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            expected = model.state_dict()[f"model.layers.{n}.{long}.weight"].numpy()
            if short in ("attn_q", "attn_k"):
                heads, dim = model.config.heads, model.config.dim
                value = value.reshape(heads, -1, 2, dim).swapaxes(1, 2).reshape(dim, dim)
            assert np.array_equal(value, expected), tensor.name
    print(f"target: {len(stored)} tensors, matrices equal to the rounded model's")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drafter", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--target", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--tokens", type=Path, required=True, help="folder written by prepare.py")
    parser.add_argument("--exported", type=Path, required=True, help="folder with drafter/ and target/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ids = corpus.held_out(args.tokens / "unseen_dev.bin", 1, 120)[0]
    check_drafter(args.drafter, args.exported / "drafter/drafter.onnx", ids)
    check_target(args.target, args.exported / "target/target.gguf")


if __name__ == "__main__":
    main()
