"""Small models with random weights, one for each architecture and its variants, in the sizes that show a mistake: several
heads of keys and values, no two widths alike where the architecture allows it, biases and norms that aren't neutral.

Transformers makes them, so nothing here knows how an architecture computes.
"""

import copy

import gguf
import numpy
import torch
import transformers

VOCABULARY = 384
CONTEXT = 256
# Smallest lead of the first token over the second, in standard deviations of the row: the order of additions moves a
# logit by a thousandth of that.
LEAD_MIN = 1e-3
SEEDS_MAX = 40

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
GPT2_SIZES = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": CONTEXT,
    "n_ctx": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def small(**changes):
    return {**SMALL, **changes}


def heads_alone(**changes):
    """Sizes of an architecture whose heads all have their own keys and values."""
    return small(num_key_value_heads=4, **changes)


def rope(kind, **changes):
    return {"rope_type": kind, "rope_theta": 10000.0, **changes}


def gemma(**changes):
    return small(**{"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24, "tie_word_embeddings": True, **changes})


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=64)
MINISTRAL_ROPE = {
    **YARN,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    # Within the texts that are compared, so that queries grow.
    "original_max_position_embeddings": 16,
    "factor": 16.0,
    "llama_4_scaling_beta": 0.3,
    "max_position_embeddings": CONTEXT,
}
LONG_ROPE = rope(
    "longrope",
    short_factor=[1.0 + pair / 8 for pair in range(8)],
    long_factor=[2.0 + pair for pair in range(8)],
    original_max_position_embeddings=CONTEXT,
)
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
}

# Part of a configuration that llama.cpp's converter writes nothing of, the part that runs in its place, and the words for
# it.
LEFT_OUT = {
    "sliding_window": (lambda config: None, "llama.cpp's converter writes no window of this architecture, so the model runs without one"),
    "query_pre_attn_scalar": (lambda config: config.head_dim, "a GGUF file has no place for `query_pre_attn_scalar`, so it is the head size"),
}

# Name in the table, class of transformers, what its configuration gets, and keys that the converter doesn't write.
MODELS = [
    ("Llama", "Llama", heads_alone()),
    ("Llama, grouped heads, tied", "Llama", small(tie_word_embeddings=True)),
    ("Llama, wide heads", "Llama", small(head_dim=32)),
    ("Llama, Llama 3's positions", "Llama", small(rope_parameters=LLAMA3_ROPE)),
    ("Llama, linear positions", "Llama", small(rope_parameters=rope("linear", factor=4.0))),
    ("Llama, YaRN", "Llama", small(rope_parameters=YARN)),
    ("Llama, YaRN with a factor of its own", "Llama", small(rope_parameters={**YARN, "attention_factor": 1.3, "beta_fast": 8.0})),
    ("Llama, biases", "Llama", small(attention_bias=True, mlp_bias=True)),
    ("Mistral", "Mistral", small(sliding_window=None)),
    ("Mistral, window of 24", "Mistral", small(sliding_window=24)),
    ("Mistral, window of 24, named by the file", "Mistral", small(sliding_window=24), {"attention.sliding_window": 24}),
    ("Ministral 3", "Ministral3", small(head_dim=32, rope_parameters=MINISTRAL_ROPE)),
    ("Mixtral", "Mixtral", small(num_local_experts=4, num_experts_per_tok=2, sliding_window=None)),
    ("Qwen2", "Qwen2", small()),
    ("Qwen2, YaRN", "Qwen2", small(rope_parameters=YARN)),
    ("Qwen3", "Qwen3", small(head_dim=32)),
    ("SmolLM3", "SmolLM3", small(num_hidden_layers=5)),
    ("Phi-3", "Phi3", small(sliding_window=None, original_max_position_embeddings=CONTEXT)),
    ("Phi-3, window of 24", "Phi3", small(sliding_window=24, original_max_position_embeddings=CONTEXT)),
    (
        "Phi-3, LongRoPE",
        "Phi3",
        small(sliding_window=None, max_position_embeddings=4 * CONTEXT, original_max_position_embeddings=CONTEXT, rope_parameters=LONG_ROPE),
    ),
    ("Phi-4 mini, partly rotated", "Phi3", small(sliding_window=None, original_max_position_embeddings=CONTEXT, partial_rotary_factor=0.75)),
    ("Phi-2", "Phi", heads_alone(partial_rotary_factor=0.5)),
    ("Gemma", "Gemma", small(head_dim=32, tie_word_embeddings=True)),
    ("Gemma 2", "Gemma2", gemma(num_hidden_layers=4)),
    ("Gemma 2, scores of its own scale", "Gemma2", gemma(num_hidden_layers=4, query_pre_attn_scalar=16)),
    ("Gemma 3", "Gemma3", gemma(num_hidden_layers=8)),
    ("Gemma 3, linear positions", "Gemma3", gemma(num_hidden_layers=8, rope_parameters=GEMMA_ROPE)),
    ("StableLM", "StableLm", small(partial_rotary_factor=0.5, use_qkv_bias=True)),
    ("OLMo", "Olmo", small()),
    ("OLMo 2", "Olmo2", small()),
    (
        "Granite",
        "Granite",
        small(embedding_multiplier=2.0, attention_multiplier=0.3, residual_multiplier=0.5, logits_scaling=3.0),
    ),
    ("Cohere", "Cohere", small(logit_scale=0.25, tie_word_embeddings=True)),
    ("StarCoder 2", "Starcoder2", small(sliding_window=None, tie_word_embeddings=True)),
    ("Nemotron", "Nemotron", small()),
    ("GLM 4", "Glm4", small(head_dim=16, partial_rotary_factor=0.5)),
    ("GPT-2", "GPT2", GPT2_SIZES),
    ("GPT-NeoX", "GPTNeoX", heads_alone(rotary_pct=0.25)),
    ("GPT-J", "GPTJ", {**GPT2_SIZES, "rotary_dim": 8}),
    (
        "Falcon",
        "Falcon",
        {**heads_alone(), "num_kv_heads": 1, "multi_query": True, "parallel_attn": True, "bias": False, "new_decoder_architecture": False},
    ),
    ("MPT", "Mpt", {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT}),
    ("BLOOM", "Bloom", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False}),
    ("OPT", "OPT", {**heads_alone(), "ffn_dim": 96, "word_embed_proj_dim": 64}),
]


def architecture(kind):
    """The pair of configuration and model of transformers."""
    config = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    heads = {"GPT2": "GPT2LMHeadModel"}
    return config, getattr(transformers, heads.get(kind, f"{kind}ForCausalLM"))


def build(kind, changes, seed):
    """A model in which every parameter matters: those that transformers sets to 0 or 1 are random too."""
    config, model = architecture(kind)
    configuration = config(**changes)
    configuration._attn_implementation = "eager"
    torch.manual_seed(seed)
    made = model(configuration).float().eval()
    # A head that is the embedding repeats the last token, unless the layers write much more than the embedding.
    tied = made.get_output_embeddings().weight is made.get_input_embeddings().weight
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            is_embedding = parameter is made.get_input_embeddings().weight
            parameter.copy_(drawn(parameter, (0.02 if tied else 1.0) if is_embedding else None, 3.0 if tied else 1.4))
    return made


def drawn(parameter, spread, gain):
    """Random values for a parameter. Those of matrices are such that blocks of 4 bits hold them exactly."""
    if parameter.dim() < 2:
        # Some norms are stored less 1, so the initial values are kept as the middle.
        return parameter + 0.2 * torch.randn(parameter.shape)
    values = torch.randn(parameter.shape) * (spread or gain / parameter.shape[-1] ** 0.5)
    if parameter.shape[-1] % 32:
        return values
    return torch.from_numpy(in_four_bits(values.numpy()))


def in_four_bits(values):
    kind = gguf.GGMLQuantizationType.Q4_0
    return gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind).astype(numpy.float32).reshape(values.shape)


def greedy(model, prompt, count):
    """The most likely `count` tokens, one after the other, and the smallest lead of one of them over the next."""
    ids, lead = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(count):
            row = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            first, second = torch.topk(row, 2).values.tolist()
            lead = min(lead, (first - second) / row.std().item())
            ids.append(int(row.argmax()))
    return ids[len(prompt) :], lead


def without_lost(model, file):
    """A copy of a model without what its GGUF file lacks, and the words for that, if there is any."""
    keys = gguf.GGUFReader(file).fields
    left, words = copy.deepcopy(model), ""
    for key, (instead, reason) in LEFT_OUT.items():
        if getattr(left.config, key, None) and not any(name.endswith(key) for name in keys):
            setattr(left.config, key, instead(left.config))
            words = words or reason
    # Layers keep a copy of what they need of their configuration.
    made = type(left)(left.config).float().eval()
    made.load_state_dict(model.state_dict())
    return made, words


def decided(kind, changes, prompts, count):
    """The first model whose greedy texts are long, varied and far from ties; with those texts."""
    for seed in range(SEEDS_MAX):
        model = build(kind, changes, seed)
        texts, clear = [], True
        for prompt in prompts:
            text, lead = greedy(model, prompt, count)
            texts.append(text)
            clear = clear and lead > LEAD_MIN and 0 not in text and len(set(text)) > count // 4
            if not clear:
                break
        if clear:
            return model, texts
    raise SystemExit(f"{kind}: none of {SEEDS_MAX} seeds gives long texts without ties")
