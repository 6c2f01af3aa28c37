"""Tokenise the training text and cut the held-out splits.

Every document becomes one token sequence that starts with `<|bos|>` and ends with `<|eos|>`:

    <|bos|><|user|>…<|assistant|>…<|user|>…<|assistant|>…<|eos|>

so an assistant turn is always followed by `<|user|>` or `<|eos|>`: those two ids end a reply.

Splits of `sgd_dev` (never trained on): dialogues whose services all occur in `sgd_train` are
`seen`; the rest are `unseen`, cut by a hash of the dialogue id into `unseen_dev` (for decisions)
and `unseen_test` (for reported figures only).
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

BOS, EOS, USER, ASSISTANT = "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>"
BOOK_BYTES = 2000
PROMPTS = 160


def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def chat(turns):
    """One document from (speaker, text) pairs; neighbouring turns of one speaker are joined."""
    merged = []
    for speaker, text in turns:
        role = USER if speaker == "U" else ASSISTANT
        text = " ".join(text.split())
        if merged and merged[-1][0] == role:
            merged[-1][1] += " " + text
        else:
            merged.append([role, text])
    if merged and merged[0][0] == ASSISTANT:
        merged = merged[1:]
    return BOS + "".join(role + text for role, text in merged) + EOS


def sgd(path):
    return [chat(d["turns"]) for d in read_jsonl(path)]


def taskmaster(data):
    return [chat(d["turns"]) for d in read_jsonl(data / "taskmaster4/tm4.jsonl")]


def topical(data):
    """Human-human talk: the one who speaks first is taken as the user."""
    dialogues = read_jsonl(data / "topical-chat/topical.jsonl")
    return [chat(zip("UA" * len(d["turns"]), d["turns"])) for d in dialogues]


def gsm8k(data):
    """Questions and worked answers, without the `<<48/2=24>>` calculator marks."""
    rows = read_jsonl(data / "gsm8k/train.jsonl")
    return [BOS + USER + r["question"].strip() + ASSISTANT + re.sub(r"<<.*?>>", "", r["answer"]) + EOS for r in rows]


def tldr(data):
    """Command pages as answers to "How do I use <command>?"."""
    pages = read_jsonl(data / "tldr/tldr.jsonl")
    return [f"{BOS}{USER}How do I use {Path(p['path']).stem}?{ASSISTANT}{p['text'].strip()}{EOS}" for p in pages]


def books(data):
    """Plain prose in pieces of whole paragraphs."""
    pieces = []
    for path in sorted((data / "pd-books").glob("*.txt")):
        piece = ""
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            piece += " ".join(paragraph.split()) + "\n"
            if len(piece) >= BOOK_BYTES:
                pieces.append(BOS + piece.strip() + EOS)
                piece = ""
    return pieces


def dev_splits(data):
    """`sgd_dev` as {split: [dialogue]}."""
    known = {s for d in read_jsonl(data / "sgd/sgd_train.jsonl") for s in d["services"]}
    splits = {"seen": [], "unseen_dev": [], "unseen_test": []}
    for d in read_jsonl(data / "sgd/sgd_dev.jsonl"):
        if set(d["services"]) <= known:
            splits["seen"].append(d)
        else:
            odd = hashlib.sha256(d["id"].encode()).digest()[0] & 1
            splits["unseen_test" if odd else "unseen_dev"].append(d)
    return splits


def demo_prompts(dialogues):
    """Distinct first user turns, spread evenly over the services; at least two words each."""
    by_service = {}
    taken = set()
    for d in sorted(dialogues, key=lambda d: d["id"]):
        speaker, text = d["turns"][0]
        text = " ".join(text.split())
        if speaker == "U" and len(text.split()) >= 2 and text.lower() not in taken:
            taken.add(text.lower())
            by_service.setdefault(" ".join(d["services"]), []).append(text)
    queues = [by_service[s] for s in sorted(by_service)]
    prompts = []
    while len(prompts) < PROMPTS and any(queues):
        for queue in queues:
            if queue and len(prompts) < PROMPTS:
                prompts.append(queue.pop(0))
    return prompts


def save(tokenizer, documents, path):
    """Write `path`.bin (u16 tokens, documents back to back); documents start at each bos id."""
    ids = [e.ids for e in tokenizer.encode_batch(documents)]
    tokens = np.array([t for document in ids for t in document], dtype=np.uint16)
    tokens.tofile(path)
    print(f"{path.name}: {len(ids)} documents, {len(tokens)} tokens")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sgd/, taskmaster4/, topical-chat/, …")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the token files")
    parser.add_argument("--prompts", type=Path, help="also write the demo prompts to this JSON file")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))

    splits = dev_splits(args.data)
    sets = {
        "sgd": sgd(args.data / "sgd/sgd_train.jsonl"),
        "taskmaster4": taskmaster(args.data),
        "topical": topical(args.data),
        "gsm8k": gsm8k(args.data),
        "tldr": tldr(args.data),
        "books": books(args.data),
        **{name: [chat(d["turns"]) for d in dialogues] for name, dialogues in splits.items()},
    }
    for name, documents in sets.items():
        save(tokenizer, documents, args.out / f"{name}.bin")
    if args.prompts:
        about = (
            "First user turns of held-out dialogues from the Schema-Guided Dialogue development set (CC BY-SA 4.0), "
            "of services that do not occur in the training text. Written by models/train/prepare.py."
        )
        text = json.dumps({"about": about, "prompts": demo_prompts(splits["unseen_test"])}, indent=1, ensure_ascii=False)
        args.prompts.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
