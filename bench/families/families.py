"""Small models of many architectures, run by transformers and by Dunlin: greedy tokens must be equal, or Dunlin must
refuse the model in words.

    families.py --programs FOLDER --work FOLDER [--llamacpp PROGRAM] [--write] [--only WORD] [--break]

A model is tried as a target (a GGUF file of llama.cpp's converter) and as a drafter (an ONNX export, and what
`dunlin-agent import` makes). Its weights are such that 4 bits hold them exactly. The table stands in docs/models.md:
`--write` writes it, without that a table that differs from it is an error. With `--llamacpp`, a verifier that was built with
llama.cpp runs each target too; that is printed beside the table.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import gguf_export
import onnx_export
import shapes
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- families -->", "<!-- /families -->"
PROMPTS = ["The river was wide, and", "one two three\n2 + 2 ="]
TOKENS = 64
LLAMACPP = "llamacpp"
# So far, in standard deviations of a row, a token may be behind the best one that llama.cpp chooses in its place.
NEAR_MAX = 0.02
SIDES = {"target": "target (GGUF)", "onnx": "drafter (ONNX)", "import": "drafter (import)"}
TRAINED_ON = "the river was wide and the cat sat on a mat. one two three four and so on. there and then he said that it was so. "


def tokenizer():
    """Byte-level BPE of as many tokens as the models have rows; its first one ends a text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shapes.VOCABULARY,
        min_frequency=1,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TRAINED_ON], trainer)
    missing = shapes.VOCABULARY - made.get_vocab_size()
    made.add_tokens([f"filler{index}" for index in range(missing)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token=None, eos_token="<|endoftext|>")


class Outcome:
    """Result of one side of one model: equal, refused, not made, or different."""

    def __init__(self, kind, words=""):
        self.kind, self.words = kind, words

    @classmethod
    def of(cls, expected, answer):
        """The outcome of an answer in JSON. Behind the first filling of a drafter's context its text is another, since it
        has forgotten the middle."""
        found, words = answer["tokens"], ""
        if answer.get("drafter_refills"):
            expected, found = expected[: answer["held"]], found[: answer["held"]]
            words = "up to the end of a shorter context, which is that of the window"
        for place, (one, other) in enumerate(zip(expected, found)):
            if one != other:
                return cls("different", f"different from token {place} on: {other} in place of {one}")
        if len(found) == len(expected):
            return cls("equal", words)
        return cls("different", f"{len(found)} tokens in place of {len(expected)}")


def run(command):
    """Exit code, standard output and the last line of standard error."""
    environment = {**os.environ, "RUST_LOG": "error", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return done.returncode, done.stdout, lines[-1] if lines else ""


@contextlib.contextmanager
def quiet():
    """Without standard output and error, on which torch writes a whole graph that it can't export."""
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    sys.stdout.flush()
    with open(os.devnull, "w") as nothing:
        for stream, _ in kept:
            os.dup2(nothing.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)


def near(model, prompt, answer):
    """Words for the way in which a text is the model's own though it is another than the expected one: a token of a near
    tie, after which it goes on by itself, or the end of its context. Empty words if it is the model's all through, and
    `None` if it isn't the model's."""
    found, words = answer["tokens"], []
    if len(found) < TOKENS:
        if answer["finish"] != "context-full":
            return None
        words.append("up to the end of the context that llama.cpp's converter wrote")
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([prompt + found]), use_cache=False).logits[0, len(prompt) - 1 :]
    behind = [((row.max() - row[token]) / row.std()).item() for row, token in zip(rows, found)]
    if max(behind) > NEAR_MAX:
        return None
    if max(behind) > 0.0:
        words.append("but for a near tie, where another rounding decides")
    return ", and ".join(words)


def words_of(line, folder):
    """A refusal without this run's paths and the program's name."""
    line = re.sub(rf"{re.escape(str(folder))}/?", "", line)
    return re.sub(r"^dunlin-\w+: (target [^:]*: )?", "", line).strip()


def compared(commands, wants, folder, held=()):
    """Runs one command for each text and compares the tokens in its JSON. `held` is the number of tokens of each that
    a drafter's context takes."""
    outcome = Outcome("equal")
    for command, want, most in itertools.zip_longest(commands, wants, held):
        code, out, line = run(command)
        if code:
            # A panic or a signal isn't a refusal.
            kind = "refused" if code in (1, 2, 3) and line.startswith("dunlin-") else "different"
            return Outcome(kind, words_of(line, folder) or f"exit code {code} without words")
        outcome = Outcome.of(want, {**json.loads(out), "held": most})
        if outcome.kind != "equal":
            return outcome
    return outcome


def reference(verifier, options, file):
    """The commands by which a verifier writes the text of each prompt with the model in a file."""
    base = [verifier, "reference", "--model", file, "--temperature", "0", "--max-tokens", str(TOKENS), "--json"]
    return [[*base, *options, "--prompt", prompt] for prompt in PROMPTS]


class Bench:
    """What one run needs."""

    def __init__(self, programs, work, damaged, llamacpp):
        self.verifier, self.agent = programs / "dunlin-verifier", programs / "dunlin-agent"
        self.work, self.damaged, self.llamacpp = work, damaged, llamacpp
        self.tokenizer = tokenizer()
        self.prompts = [self.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
        # Without the command, the table has no column for it.
        imports = run([self.agent, "import", "--help"])[0] == 0
        self.sides = [side for side in SIDES if side != "import" or imports]

    def row(self, name, kind, changes, keys=None):
        """The outcomes of a model, by side. `keys` are added to its GGUF file."""
        self.keys = keys or {}
        folder = self.work / re.sub(r"\W+", "-", name.lower())
        shutil.rmtree(folder, ignore_errors=True)
        model, texts = shapes.decided(kind, changes, self.prompts, TOKENS)
        if self.damaged:
            texts = [[*text[:9], text[9] ^ 1, *text[10:]] for text in texts]
        source = folder / "source"
        model.save_pretrained(source)
        self.tokenizer.save_pretrained(source)
        results = {"target": self.target, "onnx": self.onnx, "import": self.imported}
        outcomes = {side: results[side](model, folder, texts) for side in self.sides}
        if self.llamacpp:
            outcomes[LLAMACPP] = self.on_llamacpp(model, folder, texts)
        return outcomes

    def target(self, model, folder, texts):
        file = folder / "model.gguf"
        try:
            with quiet():
                gguf_export.convert(folder / "source", file, self.keys)
        except (Exception, SystemExit) as error:
            return Outcome("not made", f"llama.cpp's converter: {error!r}")
        return self.written(self.verifier, [], model, folder, texts)

    def on_llamacpp(self, model, folder, texts):
        """The file of the target on the other engine."""
        if not (folder / "model.gguf").exists():
            return Outcome("not made")
        options = ["--engine", LLAMACPP, "--threads", "1"]
        outcome = self.written(self.llamacpp, options, model, folder, texts)
        if outcome.kind != "different":
            return outcome
        file = folder / "model.gguf"
        left, _ = shapes.without_lost(model, file)
        words = set()
        for command, prompt in zip(reference(self.llamacpp, options, file), self.prompts):
            code, out, _ = run(command)
            reason = near(left, prompt, json.loads(out)) if code == 0 else None
            if reason is None or self.damaged:
                return outcome
            words.add(reason)
        return Outcome("equal", "; ".join(sorted(words - {""})))

    def written(self, verifier, options, model, folder, texts):
        """What a verifier writes with the model's file."""
        file = folder / "model.gguf"
        commands = reference(verifier, options, file)
        outcome = compared(commands, texts, folder)
        if outcome.kind != "different":
            return outcome
        left, words = shapes.without_lost(model, file)
        if words:
            texts = [shapes.greedy(left, prompt, TOKENS)[0] for prompt in self.prompts]
            outcome = compared(commands, texts, folder)
            outcome.words = outcome.words or words
        return outcome

    def onnx(self, model, folder, texts):
        drafter = folder / "onnx"
        shutil.copytree(folder / "source", drafter, ignore=shutil.ignore_patterns("*.safetensors"))
        try:
            with quiet():
                onnx_export.export(model, drafter / "model.onnx")
        except Exception as error:
            return Outcome("not made", f"torch's exporter: {str(error).splitlines()[0]}")
        return self.drafts(drafter, folder, texts)

    def imported(self, model, folder, texts):
        drafter = folder / "imported"
        code, _, line = run([self.agent, "import", folder / "source", "--out", drafter])
        if code:
            kind = "refused" if code in (1, 2, 3) and line.startswith("dunlin-") else "different"
            return Outcome(kind, words_of(line, folder))
        return self.drafts(drafter, folder, texts)

    def drafts(self, drafter, folder, texts):
        # With the policy `local` the drafter writes alone; nothing listens at this address.
        base = [self.agent, "generate", "--model", drafter, "--policy", "local", "--offline", "trust"]
        base += ["--give-up-after", "1", "--broker", "mqtt://127.0.0.1:9", "--temperature", "0"]
        base += ["--max-tokens", str(TOKENS), "--json"]
        held = [self.context(drafter) - len(prompt) for prompt in self.prompts]
        return compared([[*base, "--prompt", prompt] for prompt in PROMPTS], texts, folder, held)

    def context(self, drafter):
        """The length of a drafter's context, which an import may have shortened."""
        file = drafter / "model.toml"
        return tomllib.loads(file.read_text())["limits"]["context"] if file.exists() else shapes.CONTEXT


def table(rows, sides):
    """The table, and the words of refusals under it, each once."""
    notes = []

    def cell(outcome):
        # One note serves all names of architectures and all lines of files.
        words = re.sub(r'(architecture|model_type|scaling) "[^"]*"', r"\1 …", outcome.words)
        words = re.sub(r"json:\d+: (.*) at line \d+ column \d+", r"json: \1", words)
        if not words:
            return outcome.kind
        if words not in notes:
            notes.append(words)
        return f"{outcome.kind} ({notes.index(words) + 1})"

    lines = ["| model | " + " | ".join(SIDES[side] for side in sides) + " |", "|---" * (len(sides) + 1) + "|"]
    for name, outcomes in rows:
        lines.append(f"| {name} | " + " | ".join(cell(outcome) for outcome in outcomes.values()) + " |")
    lines.append("")
    lines += [f"{number}. {words}" for number, words in enumerate(notes, 1)]
    return "\n".join(lines)


def keep(text, write):
    """Writes the table into the document, or compares it; true if they agree."""
    document = DOCUMENT.read_text()
    before, rest = document.split(BEGIN)
    kept, after = rest.split(END)
    if write:
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
        print(f"written to {DOCUMENT.name}")
        return True
    if kept.strip() == text.strip():
        return True
    print(f"docs/models.md has another table; `make families FAMILIES=--write` writes this one:\n{text}")
    return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--llamacpp", type=Path, help="a verifier that was built with llama.cpp")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--break", dest="damaged", action="store_true", help="change one expected token: all must differ")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    llamacpp = arguments.llamacpp and arguments.llamacpp.resolve()
    bench = Bench(arguments.programs.resolve(), arguments.work.resolve(), arguments.damaged, llamacpp)
    chosen = [model for model in shapes.MODELS if arguments.only.lower() in model[0].lower()]
    rows = []
    for number, (name, *rest) in enumerate(chosen, 1):
        outcomes = bench.row(name, *rest)
        told = ", ".join(f"{side} {outcome.kind}" for side, outcome in outcomes.items())
        print(f"{number:2} of {len(chosen)} {name}: {told}", flush=True)
        for side, outcome in outcomes.items():
            if outcome.words:
                print(f"       {side}: {outcome.words}", flush=True)
        rows.append((name, outcomes))
    if llamacpp:
        kinds = [outcomes[LLAMACPP].kind for _, outcomes in rows]
        print("on llama.cpp: " + ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))))
    wrong = [name for name, outcomes in rows if any(o.kind == "different" for o in outcomes.values())]
    kept = [(name, {side: outcomes[side] for side in bench.sides}) for name, outcomes in rows]
    agrees = bool(arguments.only or arguments.damaged) or keep(table(kept, bench.sides), arguments.write)
    print(f"{len(rows) - len(wrong)} passed, {len(wrong)} failed")
    sys.exit(bool(wrong) or not agrees)


if __name__ == "__main__":
    main()
