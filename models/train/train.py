"""Train a model on the text mixture, with dropout and weight decay.

Muon takes the matrices of the layers, AdamW the rest; bf16 autocast on one CPU thread. The
learning rate follows the share of the time budget that is spent, so a run ends when told to.
"""

import argparse
import time

import torch
import torch.nn.functional as F

import corpus
import model as llama

MIXTURES = {
    "broad": {"sgd": 0.58, "taskmaster4": 0.05, "topical": 0.17, "gsm8k": 0.06, "tldr": 0.06, "books": 0.08},
    "dialogue": {"sgd": 0.74, "taskmaster4": 0.05, "topical": 0.12, "gsm8k": 0.03, "tldr": 0.03, "books": 0.03},
}


def optimizers(model, rate, decay):
    matrices, rest = [], []
    for name, p in model.named_parameters():
        (matrices if p.dim() == 2 and "embed" not in name else rest).append(p)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.95), weight_decay=decay / 5, fused=True),
    ]


def rate_factor(step, spent):
    """Warm up for 20 steps, hold until 10 % of the budget, then fall linearly to 1 %."""
    return min(1.0, (step + 1) / 20) * min(1.0, max(0.01, (1 - spent) / 0.9))


@torch.no_grad()
def held_out_loss(model, dialogues):
    """Nats per token over whole dialogues."""
    model.eval()
    total = count = 0
    with torch.autocast("cpu", torch.bfloat16):
        for d in dialogues:
            total += F.cross_entropy(model(d[None, :-1])[0].float(), d[1:], reduction="sum").item()
            count += len(d) - 1
    model.train()
    return total / count


def run(model, args, loss_of):
    """The training loop: `loss_of(inputs, targets)` → (loss, {name: value to log})."""
    data = corpus.Mixture(args.tokens, MIXTURES[args.mixture], args.seed)
    held = corpus.held_out(args.tokens / "unseen_dev.bin", 30, args.length)
    steppers = optimizers(model, args.rate, args.decay)
    start, step, next_report, logged = time.time(), 0, 0.0, {}
    budget = args.minutes * 60
    while (spent := (time.time() - start) / budget) < 1:
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = args.rate * rate_factor(step, spent)
        with torch.autocast("cpu", torch.bfloat16):
            loss, values = loss_of(*data.batch(args.batch, args.length))
        for stepper in steppers:
            stepper.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
        logged = {k: 0.95 * logged.get(k, v) + 0.05 * v for k, v in values.items()}
        step += 1
        if time.time() - start > next_report:
            next_report += args.report * 60
            report(model, args, held, step, start, logged)
    report(model, args, held, step, start, logged)


def report(model, args, held, step, start, logged):
    values = " ".join(f"{k} {v:.3f}" for k, v in logged.items())
    print(
        f"step {step} wall {(time.time() - start) / 60:.1f}m cpu {time.process_time() / 60:.1f}m "
        f"tokens {step * args.batch * args.length / 1e6:.2f}M {values} unseen_dev {held_out_loss(model, held):.3f}",
        flush=True,
    )
    llama.save(model, args.out)


def arguments(description):
    from pathlib import Path

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="folder written by prepare.py")
    parser.add_argument("--start", type=Path, required=True, help="Hugging Face Llama folder to start from; shapes/… for fresh weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock budget")
    parser.add_argument("--mixture", choices=sorted(MIXTURES), default="broad")
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--report", type=float, default=3.0, help="minutes between log lines")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main():
    parser = arguments(__doc__)
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = llama.load(args.start, dropout=args.dropout).train()

    def cross_entropy(inputs, targets):
        loss = F.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten())
        return loss, {"train": loss.item()}

    run(model, args, cross_entropy)


if __name__ == "__main__":
    main()
