"""Sampling in batches, with the distribution that each token was drawn from."""

import torch
import torch.nn.functional as F

from chat import STOP

TOP = 64


class Reply:
    """Tokens of one reply; `top` ids and log-probabilities of the TOP likeliest at each."""

    def __init__(self):
        self.tokens, self.top, self.log_p = [], [], []


def draw(logits, temperature, generator):
    """logits [B, V] → tokens [B], ids and log-probabilities [B, TOP]; sampling from the whole vocabulary."""
    scaled = logits.float() / temperature
    values, top = scaled.topk(TOP, -1)
    log_p = values - scaled.logsumexp(-1, keepdim=True)
    p = log_p.exp()
    buckets = torch.cat([p, (1 - p.sum(-1, keepdim=True)).clamp(min=0)], -1)
    picked = torch.multinomial(buckets, 1, generator=generator)[:, 0]
    tokens = top.gather(1, picked.clamp(max=TOP - 1)[:, None])[:, 0]
    for row in (picked == TOP).nonzero()[:, 0].tolist():
        rest = scaled[row].softmax(-1).index_fill(0, top[row], 0)
        tokens[row] = torch.multinomial(rest, 1, generator=generator)[0]
    return tokens, top, log_p


@torch.no_grad()
def replies(model, prompts, limit, temperature, generator, stop=STOP):
    """One `Reply` for each prompt (a list of ids), `limit` tokens at most, with the stop token where it came."""
    head, config = model.head(), model.config
    width = max(map(len, prompts))
    # Padding on the left is masked; rotary positions are relative, so a shift changes nothing.
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    open_ = torch.tensor([[False] * (width - len(p)) + [True] * (len(p) + limit) for p in prompts])
    kv, size = config["num_key_value_heads"], config["hidden_size"] // config["num_attention_heads"]
    shape = (len(prompts), kv, width + limit, size)
    caches = [[torch.zeros(shape, dtype=model.compute) for _ in range(2)] for _ in model.model.layers]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    # A padded row attends to itself, or its softmax would be empty.
    mask = (open_[:, None, None, :width] & causal) | torch.eye(width, dtype=torch.bool)
    x = model(ids, head, caches, 0, mask)[:, -1]
    found = [Reply() for _ in prompts]
    live = list(range(len(prompts)))
    for step in range(limit):
        tokens, top, log_p = draw(F.linear(x, head), temperature, generator)
        kept_top, kept_log_p = top.to(torch.uint16).numpy(), log_p.half().numpy()
        for row, which in enumerate(live):
            if which is not None:
                reply, token = found[which], int(tokens[row])
                reply.tokens.append(token)
                reply.top.append(kept_top[row])
                reply.log_p.append(kept_log_p[row])
                if token == stop:
                    live[row] = None
        rows = [r for r, which in enumerate(live) if which is not None]
        if not rows or step == limit - 1:
            break
        if len(rows) < 0.8 * len(live):
            keep = torch.tensor(rows)
            tokens, open_, live = tokens[keep], open_[keep], [live[r] for r in rows]
            caches = [[c[keep] for c in pair] for pair in caches]
        at = width + step
        x = model(tokens[:, None], head, caches, at, open_[:, None, None, : at + 1])[:, -1]
    return found
