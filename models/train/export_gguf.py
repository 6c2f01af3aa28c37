"""Write the target as a GGUF file: architecture llama, Q8_0 matrices, f32 norms.

Names, metadata and the row order of Q and K (interleaved rotary pairs) are those of llama.cpp's
own converter, so llama.cpp loads the file too. The head is tied: there is no output.weight.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np

import model as llama

Q8, F32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32


def interleave(weight, heads):
    """Rows of each head from (first half, second half) order to rotary pairs side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tensors(model):
    """(GGUF name, f32 array, quantization) of every tensor."""
    array = lambda p: p.detach().numpy().astype(np.float32)
    heads = model.config.heads
    yield "token_embd.weight", array(model.model.embed_tokens.weight), Q8
    for n, layer in enumerate(model.model.layers):
        attn, mlp, at = layer.self_attn, layer.mlp, f"blk.{n}"
        yield f"{at}.attn_norm.weight", array(layer.input_layernorm.weight), F32
        yield f"{at}.attn_q.weight", interleave(array(attn.q_proj.weight), heads), Q8
        yield f"{at}.attn_k.weight", interleave(array(attn.k_proj.weight), heads), Q8
        yield f"{at}.attn_v.weight", array(attn.v_proj.weight), Q8
        yield f"{at}.attn_output.weight", array(attn.o_proj.weight), Q8
        yield f"{at}.ffn_norm.weight", array(layer.post_attention_layernorm.weight), F32
        yield f"{at}.ffn_gate.weight", array(mlp.gate_proj.weight), Q8
        yield f"{at}.ffn_up.weight", array(mlp.up_proj.weight), Q8
        yield f"{at}.ffn_down.weight", array(mlp.down_proj.weight), Q8
    yield "output_norm.weight", array(model.model.norm.weight), F32


def write_metadata(writer, config, name):
    writer.add_name(name)
    writer.add_license("CC-BY-SA-4.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab)
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_layer_norm_rms_eps(config.eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)


def write_tokenizer(writer, path):
    """The byte-level BPE of `tokenizer.json` in llama.cpp's "gpt2" form."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    special = {t["id"] for t in raw["added_tokens"]}
    vocabulary = dict(raw["model"]["vocab"]) | {t["content"]: t["id"] for t in raw["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.get)
    assert [vocabulary[t] for t in tokens] == list(range(len(tokens)))
    merges = [m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]]
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary["<|bos|>"])
    writer.add_eos_token_id(vocabulary["<|eos|>"])
    writer.add_pad_token_id(vocabulary["<|pad|>"])
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)


def write(model, tokenizer, out, name):
    writer = gguf.GGUFWriter(str(out), "llama")
    write_metadata(writer, model.config, name)
    write_tokenizer(writer, tokenizer)
    for tensor, array, kind in tensors(model):
        data = gguf.quants.quantize(array, kind) if kind == Q8 else array
        writer.add_tensor(tensor, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the .gguf file to write")
    parser.add_argument("--name", default="dunlin-demo-target")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write(llama.load(args.model), args.tokenizer, args.out, args.name)
    print(args.out, args.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
