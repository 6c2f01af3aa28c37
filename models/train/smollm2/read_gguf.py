"""Turn SmolLM2's GGUF into a Hugging Face folder: f32 tensors, config, tokenizer, chat template.

llama.cpp's converter permutes the rows of q and k for its rotary order; this undoes it.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hugging_face_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def unpermute(rows, heads):
    """Rows (2i, 2i + 1) of each head → (i, i + head_dim/2)."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def tokenizer_of(field):
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == control])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    reader = gguf.GGUFReader(args.gguf)

    def field(name):
        return reader.fields[name].contents()

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    state = {}
    for t in reader.tensors:
        values = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        if t.name.endswith(("attn_q.weight", "attn_k.weight")):
            values = unpermute(values, heads if "attn_q" in t.name else kv_heads)
        state[hugging_face_name(t.name)] = torch.from_numpy(values.copy())
    stop = field("tokenizer.ggml.eos_token_id")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": field("llama.vocab_size"),
        "hidden_size": field("llama.embedding_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": field("llama.feed_forward_length"),
        "rms_norm_eps": 1e-5,
        "rope_theta": field("llama.rope.freq_base"),
        "max_position_embeddings": field("llama.context_length"),
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": stop,
        "pad_token_id": stop,
        "torch_dtype": "float32",
    }
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(state, args.out / "model.safetensors", {"format": "pt"})
    (args.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    ids = {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    # A reply of the target also ends at the token between documents.
    ids["eos_token_id"] = [stop, field("tokenizer.ggml.tokens").index("<|endoftext|>")]
    (args.out / "generation_config.json").write_text(json.dumps(ids, indent=1) + "\n")
    (args.out / "chat_template.jinja").write_text(field("tokenizer.chat_template"))
    (args.out / "README.md").write_text(f"---\nlicense: {field('general.license')}\n---\n")
    tokenizer_of(field).save(str(args.out / "tokenizer.json"))


if __name__ == "__main__":
    main()
