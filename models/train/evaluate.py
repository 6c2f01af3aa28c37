"""Measure a pair on held-out dialogues: losses, acceptance, greedy agreement, sample replies.

Acceptance is α = mean over tokens of Σ min(p, q), with p the target (Q8_0) and q the drafter
(4 bits), teacher-forced on the dialogue's text. "Reply" figures count assistant turns only,
including the token that ends the turn.
"""

import argparse
import json
from pathlib import Path

import gguf
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import corpus
import model as llama

SAMPLES = 3
REPLY_TOKENS_MAX = 60


def round_q8(model):
    """The model with every matrix rounded to Q8_0 as the exporter does."""
    kind = gguf.GGMLQuantizationType.Q8_0
    for p in model.parameters():
        if p.dim() == 2:
            p.data = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(p.data.numpy(), kind), kind))
    return model


def in_reply(ids):
    """For each predicted token: does it belong to an assistant turn or end one?"""
    flags, inside = [], False
    for before in ids[:-1].tolist():
        inside = before == corpus.ASSISTANT or (inside and before not in (corpus.USER, corpus.EOS))
        flags.append(inside)
    return torch.tensor(flags)


@torch.no_grad()
def measure(models, dialogues):
    """{figure: mean} over all tokens, and the same over reply tokens as `reply …`."""
    columns = {}

    def add(name, values):
        columns.setdefault(name, []).append(values)

    for ids in dialogues:
        logits = {name: model(ids[None, :-1])[0].float() for name, model in models.items()}
        add("is reply", in_reply(ids))
        for name, l in logits.items():
            add(f"nats {name}", F.cross_entropy(l, ids[1:], reduction="none"))
        target, drafter = logits["target"], logits["drafter 4-bit"]
        for heat in (1.0, 0.8):
            both = torch.minimum((target / heat).softmax(-1), (drafter / heat).softmax(-1))
            add(f"alpha T={heat}", both.sum(-1))
        add("greedy agreement", (target.argmax(-1) == drafter.argmax(-1)).float())
    columns = {name: torch.cat(parts) for name, parts in columns.items()}
    reply = columns.pop("is reply")
    figures = {name: v.mean().item() for name, v in columns.items()}
    return figures | {f"reply {name}": v[reply].mean().item() for name, v in columns.items()}


@torch.no_grad()
def sample(model, ids, heat, generator):
    """A sampled reply to a prompt that ends with <|assistant|>, without its stop token."""
    ids, start = list(ids), len(ids)
    while len(ids) - start < REPLY_TOKENS_MAX:
        p = (model(torch.tensor([ids]))[0, -1].float() / heat).softmax(-1)
        token = int(torch.multinomial(p, 1, generator=generator))
        if token in (corpus.EOS, corpus.USER):
            break
        ids.append(token)
    return ids[start:]


def print_samples(models, tokenizer, prompts):
    for prompt in prompts[:: max(1, len(prompts) // SAMPLES)][:SAMPLES]:
        print(f"\nuser: {prompt}")
        ids = tokenizer.encode(f"<|bos|><|user|>{prompt}<|assistant|>").ids
        for name in ("target", "drafter 4-bit"):
            generator = torch.Generator().manual_seed(1)
            print(f"  {name}: {tokenizer.decode(sample(models[name], ids, 0.8, generator))}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drafter", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--target", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--tokens", type=Path, required=True, help="folder written by prepare.py")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, help="prompts.json, for sample replies")
    parser.add_argument("--splits", nargs="+", default=["unseen_test", "seen"])
    parser.add_argument("--dialogues", type=int, default=300, help="per split, spread evenly")
    parser.add_argument("--length", type=int, default=1023, help="a dialogue is cut here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        "drafter f32": llama.load(args.drafter),
        "drafter 4-bit": llama.load(args.drafter, four_bit=True),
        "target": round_q8(llama.load(args.target)),
    }
    for model in models.values():
        model.eval()
    tables = {s: measure(models, corpus.held_out(args.tokens / f"{s}.bin", args.dialogues, args.length)) for s in args.splits}
    print(f"{'':28}" + "".join(f"{s:>14}" for s in tables))
    for name in next(iter(tables.values())):
        print(f"{name:28}" + "".join(f"{t[name]:14.4f}" for t in tables.values()))
    if args.prompts:
        print_samples(models, Tokenizer.from_file(str(args.tokenizer)), json.loads(args.prompts.read_text())["prompts"])


if __name__ == "__main__":
    main()
