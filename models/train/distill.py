"""Distil the drafter toward the target, with the exporter's 4-bit rounding in the forward pass.

loss = 0.2 · cross entropy + 0.4 · KL(target ‖ drafter) + 1.0 · total variation

The last term is 1 − α, the share of draft tokens that speculative sampling rejects. The teacher
is the target as it is served, rounded to Q8_0.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

import evaluate
import model as llama
import train


def main():
    parser = train.arguments(__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="Hugging Face Llama folder of the target")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    teacher = evaluate.round_q8(llama.load(args.teacher)).eval()
    drafter = llama.load(args.start, four_bit=True).train()

    def loss_of(inputs, targets):
        with torch.no_grad():
            p = teacher(inputs).float().softmax(-1)
        log_q = drafter(inputs).float().log_softmax(-1)
        cross_entropy = F.nll_loss(log_q.flatten(0, 1), targets.flatten())
        divergence = -(p * log_q).sum(-1).mean()  # KL up to the teacher's own entropy
        variation = 0.5 * (p - log_q.exp()).abs().sum(-1).mean()
        loss = 0.2 * cross_entropy + 0.4 * divergence + variation
        return loss, {"train": cross_entropy.item(), "alpha": 1 - variation.item()}

    train.run(drafter, args, loss_of)


if __name__ == "__main__":
    main()
