"""Write the `model.toml` that describes one exported model."""

import argparse
import hashlib
import struct
from pathlib import Path

from tokenizers import Tokenizer

TEXT = """\
format = 1
name = "{name}"
role = "{role}"

[weights]
file = "{weights}"
sha256 = "{weights_sha256}"
quantization = "{quantization}"

[tokenizer]
file = "{tokenizer}"
sha256 = "{tokenizer_sha256}"

[vocabulary]
size = {size}
fingerprint = "{fingerprint}"

[special]
bos = {bos}
eos = {eos}
user = {user}
assistant = {assistant}
pad = {pad}

[prompt]
form = "<|bos|><|user|>{{prompt}}<|assistant|>"
next_turn = "<|user|>{{prompt}}<|assistant|>"
stop = [{eos}, {user}]

[limits]
context = 1024

[licence]
weights = "CC-BY-SA-4.0"
"""

QUANTIZATION = {"drafter": "matmulnbits-4bit-block32", "target": "gguf-q8_0"}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint(tokenizer, size):
    """First 8 bytes of SHA-256 over each token: u32 LE byte length, then its UTF-8 bytes."""
    digest = hashlib.sha256()
    for token_id in range(size):
        token = (tokenizer.id_to_token(token_id) or "").encode()
        digest.update(struct.pack("<I", len(token)) + token)
    return digest.digest()[:8].hex()


def describe(role, weights, tokenizer_path, tokenizer_name):
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    size = tokenizer.get_vocab_size()
    special = {n: tokenizer.token_to_id(f"<|{n}|>") for n in ("bos", "eos", "user", "assistant", "pad")}
    return TEXT.format(
        name=f"dunlin-demo-{role}",
        role=role,
        weights=weights.name,
        weights_sha256=sha256(weights),
        quantization=QUANTIZATION[role],
        tokenizer=tokenizer_name,
        tokenizer_sha256=sha256(tokenizer_path),
        size=size,
        fingerprint=fingerprint(tokenizer, size),
        **special,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=sorted(QUANTIZATION), required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the exported file; model.toml goes beside it")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--tokenizer-name", default="../tokenizer.json", help="its path as written in model.toml")
    args = parser.parse_args()
    text = describe(args.role, args.weights, args.tokenizer, args.tokenizer_name)
    (args.weights.parent / "model.toml").write_text(text)


if __name__ == "__main__":
    main()
