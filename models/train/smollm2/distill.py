"""Distil a drafter of a few of the target's layers toward the target, on replies that the target wrote.

loss = `--divergence` · KL(target ‖ drafter) + total variation, both at the temperature of the text

The second term is 1 − α, the share of drafted tokens that speculative sampling rejects. The
target's distribution is known at its 64 likeliest tokens; the others count as one. The forward
pass rounds every matrix to the exporter's 4 bits. The shared embedding stays as it is until the
share `--thaw` of the budget is spent: it holds two thirds of the weights, and its gradient is slow.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import lm

ROWS = 1024
POOL = 4


class TopLogProbs(torch.autograd.Function):
    """h [N, D], head [V, D], ids [N, K] → the ids' log-probabilities [N, K] in softmax(h · headᵀ / T).

    Works in pieces of ROWS rows and keeps the logits in the type of `h`, so that an [N, V] matrix
    of f32 never exists.
    """

    @staticmethod
    def forward(ctx, h, head, ids, temperature):
        pieces, logits, sums = [], [], []
        for rows, wanted in zip(h.split(ROWS), ids.split(ROWS)):
            z = rows @ head.T
            total = (z.float() / temperature).logsumexp(-1, keepdim=True)
            pieces.append(z.gather(1, wanted).float() / temperature - total)
            logits.append(z)
            sums.append(total)
        ctx.save_for_backward(h, head, ids)
        ctx.logits, ctx.sums, ctx.temperature = logits, sums, temperature
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx, grad):
        h, head, ids = ctx.saved_tensors
        t = ctx.temperature
        grad_h, grad_head = [], None
        parts = zip(h.split(ROWS), ids.split(ROWS), grad.split(ROWS), ctx.logits, ctx.sums)
        for rows, wanted, g, z, total in parts:
            dz = z.float().div_(t).sub_(total).exp_().mul_(-g.sum(-1, keepdim=True) / t)
            dz = dz.scatter_add_(1, wanted, g / t).to(h.dtype)
            grad_h.append(dz @ head)
            if ctx.needs_input_grad[1]:
                piece = dz.T @ rows
                grad_head = piece if grad_head is None else grad_head + piece
        return torch.cat(grad_h), grad_head, None, None


def rows_of(path):
    """The rows of a shard: (ids, prompt length, top ids [T, K], log-probabilities [T, K])."""
    shard = np.load(path)
    tokens, prompt, length = shard["tokens"], shard["prompt"], shard["length"]
    ends = np.cumsum(length)
    reply_ends = np.cumsum(length - prompt)
    top, log_p = shard["top"], shard["log_p"]
    return [
        (tokens[e - n : e], p, top[r - (n - p) : r], log_p[r - (n - p) : r])
        for e, n, p, r in zip(ends, length, prompt, reply_ends)
    ]


class Batch:
    """Rows padded on the right; `at` are the flat positions whose next token belongs to a reply."""

    def __init__(self, rows):
        width = max(len(ids) for ids, *_ in rows) - 1
        padded = np.zeros((len(rows), width), np.int64)
        at = []
        for i, (ids, prompt, _, _) in enumerate(rows):
            padded[i, : len(ids) - 1] = ids[:-1]
            at.append(i * width + np.arange(prompt - 1, len(ids) - 1))
        self.ids, self.at = torch.from_numpy(padded), torch.from_numpy(np.concatenate(at))
        self.top = torch.from_numpy(np.concatenate([r[2] for r in rows]).astype(np.int64))
        self.log_p = torch.from_numpy(np.concatenate([r[3] for r in rows])).float()


def batches(rows, tokens):
    """Rows of similar length, each batch of about `tokens` ids."""
    rows = sorted(rows, key=lambda r: len(r[0]))
    group = []
    for row in rows:
        group.append(row)
        if len(group) * len(row[0]) >= tokens:
            yield Batch(group)
            group = []
    if group:
        yield Batch(group)


class Text:
    """Endless batches; the shards used least come first, so that new ones are used at once."""

    def __init__(self, folder, tokens, seed):
        self.folder, self.tokens, self.rng = folder, tokens, np.random.default_rng(seed)
        self.used, self.queue = {}, []

    def batch(self):
        while not self.queue:
            names = sorted(p for p in self.folder.glob("[!.]*.npz"))
            if not names:
                raise SystemExit(f"{self.folder} has no shard: run write.py first")
            names.sort(key=lambda p: (self.used.get(p, 0), self.rng.random()))
            rows = []
            for path in names[:POOL]:
                self.used[path] = self.used.get(path, 0) + 1
                rows += rows_of(path)
            found = list(batches(rows, self.tokens))
            self.queue = [found[i] for i in self.rng.permutation(len(found))]
        return self.queue.pop()


def losses(model, head, batch, temperature):
    """(KL, total variation) of each reply token, and whether both have the same likeliest token."""
    hidden = model(batch.ids, head).flatten(0, 1)[batch.at]
    log_q = TopLogProbs.apply(hidden, head, batch.top, temperature)
    p, q = batch.log_p.exp(), log_q.exp()
    rest_p, rest_q = (1 - p.sum(-1)).clamp(min=1e-6), (1 - q.sum(-1)).clamp(min=1e-6)
    divergence = (p * (batch.log_p - log_q)).sum(-1) + rest_p * (rest_p.log() - rest_q.log())
    variation = 0.5 * ((p - q).abs().sum(-1) + (rest_p - rest_q).abs())
    return divergence, variation, log_q.argmax(-1) == 0


@torch.no_grad()
def held_out(model, found, temperature):
    """(α, greedy agreement), from the 64 likeliest tokens; `evaluate.py` gives the exact figures."""
    head, alpha, same, count = model.head(), 0.0, 0, 0
    for batch in found:
        _, variation, equal = losses(model, head, batch, temperature)
        alpha += (1 - variation).sum().item()
        same += equal.sum().item()
        count += len(variation)
    return alpha / count, same / count


def optimizers(model, args):
    layers = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() == 1]
    embedding = model.model.embed_tokens.weight
    if args.optimizer == "muon":
        first = torch.optim.Muon(layers, lr=args.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    else:
        first = torch.optim.AdamW(layers, lr=args.rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    groups = [{"params": rest, "share": 1.0}, {"params": [embedding], "share": args.embedding_rate}]
    second = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [first, second]


def rate_factor(step, spent):
    """Warm up for 30 steps, hold until 30 % of the budget, then fall linearly to 2 %."""
    return min(1.0, (step + 1) / 30) * min(1.0, max(0.02, (1 - spent) / 0.7))


def save(model, args):
    for name, rounded in (("checkpoint", False), ("drafter", True)):
        lm.save(model, args.out / name, rounded)
        for extra in ("tokenizer.json", "generation_config.json", "chat_template.jinja", "README.md"):
            shutil.copy(args.start / extra, args.out / name / extra)


def run(model, args):
    text = Text(args.text, args.batch, args.seed)
    found = list(batches(rows_of(args.held_out), 6000))
    steppers = optimizers(model, args)
    embedding = model.model.embed_tokens.weight
    embedding.requires_grad_(False)
    frozen = model.head().detach()
    start, step, count, next_report, logged, best = time.time(), 0, 0, args.report * 60, {}, 0.0
    while (spent := (time.time() - start) / (args.minutes * 60)) < 1:
        if frozen is not None and spent >= args.thaw:
            embedding.requires_grad_(True)
            frozen = None
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = args.rate * rate_factor(step, spent) * group.get("share", 1.0)
        batch = text.batch()
        head = model.head() if frozen is None else frozen
        divergence, variation, same = losses(model, head, batch, args.temperature)
        (args.divergence * divergence + variation).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        step, count = step + 1, count + len(variation)
        now = {"kl": divergence.mean().item(), "alpha": 1 - variation.mean().item(), "greedy": same.float().mean().item()}
        logged = {k: 0.95 * logged.get(k, v) + 0.05 * v for k, v in now.items()}
        if time.time() - start > next_report:
            next_report += args.report * 60
            best = report(model, args, found, (start, step, count, logged), best)
    return report(model, args, found, (start, step, count, logged), best)


def report(model, args, found, state, best):
    """Log, and write the checkpoint where α on the held-out replies is the best of this run."""
    start, step, count, logged = state
    alpha, greedy = held_out(model, found, args.temperature)
    values = " ".join(f"{k} {v:.3f}" for k, v in logged.items())
    print(
        f"step {step} wall {(time.time() - start) / 60:.1f}m cpu {time.process_time() / 60:.1f}m "
        f"tokens {count / 1e6:.3f}M {values} | held-out alpha {alpha:.4f} greedy {greedy:.4f}",
        flush=True,
    )
    if alpha > best and not args.trial:
        save(model, args)
    return max(best, alpha)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder of shards from write.py")
    parser.add_argument("--held-out", type=Path, required=True, help="replies from evaluate.py")
    parser.add_argument("--start", type=Path, required=True, help="the target's folder, or a checkpoint to continue from")
    parser.add_argument("--layers", help="layers of the target to start from, such as 0,1,28,29")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock budget")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--embedding-rate", type=float, default=0.2, help="the embedding's share of the rate")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--divergence", type=float, default=0.5)
    parser.add_argument("--thaw", type=float, default=0.6)
    parser.add_argument("--batch", type=int, default=4096, help="ids of a step, prompts and padding included")
    parser.add_argument("--temperature", type=float, default=0.8, help="that of the text")
    parser.add_argument("--report", type=float, default=4.0, help="minutes between log lines")
    parser.add_argument("--trial", action="store_true", help="write no checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    layers = [int(i) for i in args.layers.split(",")] if args.layers else None
    model = lm.load(args.start, layers, four_bit=True, compute=torch.bfloat16)
    run(model, args)


if __name__ == "__main__":
    main()
