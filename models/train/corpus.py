"""Training windows and held-out dialogues from the token files that `prepare.py` writes."""

from pathlib import Path

import numpy as np
import torch

BOS, EOS, USER, ASSISTANT = 1, 2, 3, 4


def documents(path):
    """The documents of one token file, each an array that starts with bos."""
    tokens = np.fromfile(path, dtype=np.uint16)
    return np.split(tokens, np.flatnonzero(tokens == BOS)[1:])


class Source:
    """One data set: whole documents in a shuffled order, reshuffled when all were used."""

    def __init__(self, path, rng):
        self.documents, self.rng, self.queue = documents(path), rng, []

    def window(self, length):
        """Documents packed back to back from a bos on, cut at `length` tokens."""
        parts, have = [], 0
        while have < length:
            if not self.queue:
                self.queue = list(self.rng.permutation(len(self.documents)))
            parts.append(self.documents[self.queue.pop()])
            have += len(parts[-1])
        return np.concatenate(parts)[:length]


class Mixture:
    """Batches of windows; each window is drawn from one set, chosen by weight."""

    def __init__(self, folder, weights, seed):
        self.rng = np.random.default_rng(seed)
        self.sources = [Source(Path(folder) / f"{name}.bin", self.rng) for name in weights]
        total = sum(weights.values())
        self.weights = [w / total for w in weights.values()]

    def batch(self, size, length):
        """(inputs, next tokens), each [size, length]."""
        picks = self.rng.choice(len(self.sources), size, p=self.weights)
        rows = np.stack([self.sources[i].window(length + 1) for i in picks]).astype(np.int64)
        rows = torch.from_numpy(rows)
        return rows[:, :-1], rows[:, 1:]


def held_out(path, count, length):
    """`count` dialogues spread evenly over a split, each cut at `length` + 1 tokens."""
    found = documents(path)
    step = max(1, len(found) // count)
    return [torch.from_numpy(d[: length + 1].astype(np.int64)) for d in found[::step][:count]]
