"""Let the target write replies to the prompts, and keep the distribution of each token.

Each shard is one .npz: `tokens`, `prompt` (length) and `length` of each row, and for each reply
token the ids and log-probabilities (at the sampling temperature) of the 64 likeliest tokens. With
`--own`, every other batch answers user turns that the target wrote itself. Run it again with
another `--seed` for more.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import chat
import generate
import lm


def pack(rows):
    """[(prompt ids, Reply)] → the arrays of a shard."""
    return {
        "tokens": np.concatenate([np.array(p + r.tokens, np.uint16) for p, r in rows]),
        "prompt": np.array([len(p) for p, _ in rows], np.int32),
        "length": np.array([len(p) + len(r.tokens) for p, r in rows], np.int32),
        "top": np.concatenate([np.stack(r.top) for _, r in rows]),
        "log_p": np.concatenate([np.stack(r.log_p) for _, r in rows]),
    }


def own_turns(model, talk, count, generator):
    """User turns that the target writes after its own template's opening, as ids up to the reply."""
    opening = talk.opening()
    turns = generate.replies(model, [opening] * count, 64, 1.0, generator)
    after = talk.tokenizer.encode("\n<|im_start|>assistant\n", add_special_tokens=False).ids
    return [opening + t.tokens + after for t in turns if t.tokens[-1] == chat.STOP and len(t.tokens) > 3]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="one JSON string a line")
    parser.add_argument("--out", type=Path, required=True, help="folder of shards")
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock budget")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--limit", type=int, default=160, help="tokens of a reply")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--own", action="store_true", help="also answer user turns that the target writes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = lm.load(args.target, compute=torch.bfloat16).to(torch.bfloat16)
    talk = chat.Chat(args.target)
    generator = torch.Generator().manual_seed(args.seed)
    prompts = [json.loads(line) for line in args.prompts.read_text().splitlines()]
    prompts = [prompts[i] for i in torch.randperm(len(prompts), generator=generator).tolist()]
    args.out.mkdir(parents=True, exist_ok=True)
    start, count, shard, at = time.time(), 0, 0, 0
    while time.time() - start < args.minutes * 60 and at < len(prompts):
        if args.own and shard % 2:
            batch = own_turns(model, talk, args.batch, generator)
        else:
            batch = [talk.ids(p) for p in prompts[at : at + args.batch]]
            at += args.batch
        written = generate.replies(model, batch, args.limit, args.temperature, generator)
        arrays = pack(list(zip(batch, written)))
        name = f"{args.seed:03}-{shard:04}.npz"
        np.savez(args.out / f".{name}", **arrays)
        (args.out / f".{name}").replace(args.out / name)
        shard += 1
        count += len(arrays["top"])
        print(
            f"shard {shard} tokens {count} wall {(time.time() - start) / 60:.1f}m cpu {time.process_time() / 60:.1f}m "
            f"last: {talk.text(written[0].tokens)[:80]!r}",
            flush=True,
        )


if __name__ == "__main__":
    main()
