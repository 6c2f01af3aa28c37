"""Tokenizers of GGUF files alone: ids must be those of the library `tokenizers` with the model's own tokenizer.json, and
of llama.cpp's list of true ids; what a stream writes must be the library's text of all tokens.

    vocabularies.py --ids PROGRAM --sources FOLDER --work FOLDER [--break]

Where the sources have no GGUF file of a tokenizer, one is written from its tokenizer.json.
"""

import argparse
import json
import re
import sys
import unicodedata
from pathlib import Path

import gguf
import ours
from texts import TEXTS
from tokenizers import Tokenizer

# Family, tokenizer.json, and its GGUF file, or, if the file is to be written, the name of its pre-tokenizer or `scores`
# for SentencePiece. The package named llama2 holds Mistral 7B's tokens.
FAMILIES = [
    ("Mistral 7B", "llama2", None, "scores"),
    ("Llama 3", "llama3_1", "llama-bpe", None),
    ("Qwen 2 and 3", "qwen3", "qwen2", None),
    ("GPT-4o", "gpt4o", None, "gpt-4o"),
    ("DeepSeek V3", "deepseek_v3", None, "deepseek-v3"),
    ("GPT-OSS", "gptoss", None, "gpt-4o"),
]
# Read as tokenizer.json only: a GGUF file of these has scores, which that file lacks.
JSON_ALONE = [("Gemma 2", "gemini"), ("Gemma 3", "gemma3")]
# Vocabularies of a kind that isn't a text model's.
REFUSED = ["bert-bge"]
BYTE = re.compile("<0x[0-9A-F]{2}>")
BETWEEN = "\n__ggml_vocab_test__\n"


def written(source, target, pre):
    """Writes the vocabulary of a tokenizer.json as a GGUF file, as a converter would. The ids of a SentencePiece one must be
    in the order of its merges."""
    made = json.loads(source.read_text())
    vocabulary = dict(made["model"]["vocab"])
    kinds = dict.fromkeys(vocabulary.values(), gguf.TokenType.NORMAL)
    for token in made["added_tokens"]:
        vocabulary[token["content"]] = token["id"]
        kinds[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    by_id = {number: token for token, number in vocabulary.items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(max(by_id) + 1)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in made["model"]["merges"]]
    types = [kinds.get(number, gguf.TokenType.UNUSED) for number in range(len(tokens))]
    writer = gguf.GGUFWriter(target, "llama")
    if pre == "scores":
        first = tokens.index("<0xFF>") + 1
        types = [gguf.TokenType.BYTE if BYTE.fullmatch(token) else kind for token, kind in zip(tokens, types)]
        types[tokens.index("<unk>")] = gguf.TokenType.UNKNOWN
        writer.add_tokenizer_model("llama")
        # Blanks in a row come last, whatever their ids.
        blank = [len(token) > 1 and not token.strip("▁") for token in tokens]
        writer.add_token_scores([-1e9 if blank[number] else float(min(0, first - number)) for number in range(len(tokens))])
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


class Check:
    """Our answers beside the expected ones, with a count of what failed."""

    def __init__(self, program, damaged):
        self.program, self.damaged, self.failed, self.done = program, damaged, 0, 0

    def texts(self, name, file, texts, ids, decoded):
        """Compares ids, and streams with `decoded` if it isn't none."""
        [answer] = ours.answers(self.program, [{"vocabulary": str(file), "texts": texts}])
        self.done += 1
        if "error" in answer:
            self.failed += not name.endswith(tuple(REFUSED))
            print(f"{name}: refused, {answer['error'][:300]}", flush=True)
            return
        if self.damaged:
            ids = [[*some[:-1], some[-1] + 1] if some else some for some in ids]
        wrong = []
        for at, text in enumerate(texts):
            if answer["ids"][at] != ids[at]:
                wrong.append(f"{text[:60]!r}: expected {ids[at][:24]}, found {answer['ids'][at][:24]}")
            elif decoded and answer["streamed"][at] != decoded[at]:
                wrong.append(f"{text[:60]!r}: expected the text {decoded[at][:60]!r}, streamed {answer['streamed'][at][:60]!r}")
        self.failed += bool(wrong)
        print(f"{name}: {len(texts) - len(wrong)} of {len(texts)} equal", flush=True)
        for line in wrong:
            print(f"    {line}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ids", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--break", dest="damaged", action="store_true", help="change one id of each text")
    arguments = parser.parse_args()
    sources, work = arguments.sources.resolve(), arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    check = Check(arguments.ids, arguments.damaged)
    for name, tokenizer, vocabulary, pre in [*FAMILIES, *((*pair, None, None) for pair in JSON_ALONE)]:
        json_file = sources / tokenizer / "tokenizer.json"
        theirs = Tokenizer.from_file(str(json_file))
        ids = [theirs.encode(text, add_special_tokens=False).ids for text in TEXTS]
        decoded = [theirs.decode(some) for some in ids]
        if vocabulary or pre:
            file = sources / f"llama.cpp/models/ggml-vocab-{vocabulary}.gguf" if vocabulary else work / f"{tokenizer}.gguf"
            if pre:
                written(json_file, file, pre)
            check.texts(f"{name}, GGUF", file, TEXTS, ids, decoded)
        check.texts(f"{name}, tokenizer.json", json_file, TEXTS, ids, decoded)
    for expected in sorted((sources / "llama.cpp/models").glob("*.gguf.out")):
        file = expected.with_suffix("")
        # In some files a mark follows the last text, too.
        texts = file.with_suffix(".gguf.inp").read_bytes().decode().removesuffix(BETWEEN).split(BETWEEN)
        ids = [[int(number) for number in line.split()] for line in expected.read_text().splitlines()]
        if len(texts) != len(ids):
            raise SystemExit(f"{file.stem}: {len(texts)} texts, but {len(ids)} lines of ids")
        # llama.cpp composes no text, transformers does for some models; so these texts have two true lists.
        kept = [pair for pair in zip(texts, ids) if unicodedata.is_normalized("NFC", pair[0])]
        texts, ids = [text for text, _ in kept], [numbers for _, numbers in kept]
        check.texts(f"llama.cpp's ids, {file.stem}", file, texts, ids, None)
    print(f"{check.done - check.failed} passed, {check.failed} failed")
    sys.exit(bool(check.failed))


if __name__ == "__main__":
    main()
