"""The acceptance that a drafter reaches on the target's own replies to the held-out prompts.

α is the mean of 1 − TV over the reply tokens, exact over the whole vocabulary, in f32, with the
drafter rounded to the exporter's 4 bits. `--replies` is written where it does not exist yet.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import chat
import distill
import generate
import lm
import write


def write_replies(args):
    target, talk = lm.load(args.target), chat.Chat(args.target)
    prompts = [talk.ids(p) for p in json.loads(args.held_out.read_text())]
    generator = torch.Generator().manual_seed(args.seed)
    found = generate.replies(target, prompts, args.limit, args.temperature, generator)
    with open(args.replies, "wb") as file:
        np.savez(file, **write.pack(list(zip(prompts, found))))


@torch.no_grad()
def compare(target, drafter, rows, temperatures):
    """Means over the reply tokens: α at each temperature, and greedy agreement."""
    heads = target.head(), drafter.head()
    totals, count = torch.zeros(len(temperatures) + 1, dtype=torch.float64), 0
    for ids, prompt, _, _ in rows:
        inputs = torch.from_numpy(ids[:-1].astype(np.int64))[None]
        a, b = (F.linear(m(inputs, h)[0, prompt - 1 :], h) for m, h in zip((target, drafter), heads))
        for i, t in enumerate(temperatures):
            totals[i] += torch.minimum((a / t).softmax(-1), (b / t).softmax(-1)).sum().item()
        totals[-1] += (a.argmax(-1) == b.argmax(-1)).sum().item()
        count += len(a)
    return count, (totals / count).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True, help="JSON list of prompts")
    parser.add_argument("--replies", type=Path, required=True, help="the target's replies, .npz")
    parser.add_argument("--drafter", type=Path)
    parser.add_argument("--limit", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.replies.exists():
        write_replies(args)
    if args.drafter:
        temperatures = (0.8, 1.0)
        drafter = lm.load(args.drafter, four_bit=True)
        count, values = compare(lm.load(args.target), drafter, distill.rows_of(args.replies), temperatures)
        for name, value in zip([f"alpha T={t}" for t in temperatures] + ["greedy agreement"], values):
            print(f"{name} {value:.4f}")
        print(f"tokens {count}")


if __name__ == "__main__":
    main()
