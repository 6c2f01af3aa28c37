"""Dunlin at the paper's size: a drafter of TinyLlama's shape and targets of Llama-2-7B's, with random weights.

    paper.py --programs FILE --bin FOLDER --work FOLDER --requirements FILE [--small] [--kinds KIND ...] [--keep]

For each kind of target, one after the other: memory as `check` promises it and as it is; two replies of 64 tokens, by a
drafter that the target seldom agrees with and by one that replays the target's text, each beside the target's own text;
milliseconds of a draft and of passes, beside llama.cpp. The report is WORK/report.json. Ends with 1 if a mark is missed.
"""

import argparse
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import models
from processes import Failure, Process, Progress, run, wait_for

PEER = Path(__file__).resolve().parent.parent / "peers" / "llama.py"
PROMPTS = ["Tell me of the sea.", "one two three four", "The river was wide, and", "a b c d e f g", "So it goes on."]
TOKENS = 64
# MiB of the verifier's caches: with 32-bit numbers, 1 MiB a token of Llama-2-7B.
KV_MIB, CONTEXT = 512, 512
# The board of the drafter allows more than any drafter here needs; `check` says how much that is.
BOARD = 'name = "paper"\n[drafter]\nmemory_mib = 16384\n'
ROWS = (1, 4, 8)
# The most that a drafter's process may take, over its file.
PEAK_MAX = 1.3
# Acceptance that a drafter of other weights stays below.
SELDOM = 0.05
ONE_THREAD = {name: "1" for name in ("CANDLE_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
SEED = {"drafter": 8, "target": 7, "replay": 9}


def size_mib(*paths):
    return sum(path.stat().st_size for path in paths) / (1 << 20)


def folder_mib(folder):
    """The weights of a drafter's folder."""
    return size_mib(*(path for path in folder.iterdir() if path.name.startswith("model.onnx")))


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    flags = next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())
    known = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "asimd", "asimddp") if flag in flags]
    return f"{', '.join(sorted(names)) or platform.machine()} ({' '.join(known)})"


class Bench:
    """The programs, folders and options of a run."""

    def __init__(self, arguments):
        self.bin, self.work, self.keep = arguments.bin, arguments.work, arguments.keep
        self.target_shape, self.drafter_shape = models.LLAMA_7B, models.TINY_LLAMA
        if arguments.small:
            self.target_shape, self.drafter_shape = models.SMALL_TARGET, models.SMALL_DRAFTER
        lines = arguments.programs.read_text().splitlines()
        messages = [json.loads(line) for line in lines if line.startswith("{")]
        self.built = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}
        self.peer = arguments.peer
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "paper.toml").write_text(BOARD)

    def log(self, name):
        return self.work / f"{name}.log"

    def program(self, name):
        return str(self.bin / name)

    def imported(self, source, name):
        """The drafter's folder that is made of a GGUF file."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        command = [self.program("dunlin-agent"), "import", str(source), "--out", str(folder), "--head-bits", "4"]
        run(command, self.log(f"import-{name}"))
        return folder

    def drafter_promise(self, folder):
        """MiB that a drafter takes at most, as the agent's `check` says."""
        # No broker is needed for what is asked here.
        command = [self.program("dunlin-agent"), "check", "--model", str(folder), "--board", str(self.work / "paper.toml")]
        done = subprocess.run(command, capture_output=True, text=True)
        found = re.search(r"take up to (\d+) MiB", done.stdout)
        if not found:
            raise Failure(f"dunlin-agent check says nothing of memory: {done.stdout.strip()}")
        return int(found[1])

    def verifier(self, command, kind, *flags):
        """A command of the verifier with its configuration."""
        config = self.work / "verifier.toml"
        config.write_text(f'model = "{kind}.gguf"\nkv_mib = {KV_MIB}\ncontext_tokens = {CONTEXT}\nembedded_broker = true\n')
        return [self.program("dunlin-verifier"), command, "--config", str(config), *flags]

    def target_promise(self, kind):
        """MiB of the target after its first pass, as the verifier's `check` says."""
        found = re.search(r"memory (\d+) MiB after the first pass", run(self.verifier("check", kind), self.log("check"))[0])
        if not found:
            raise Failure("dunlin-verifier check says nothing of memory")
        return int(found[1])

    def reference(self, kind):
        """A prompt, and the target's own text, in which no token is followed by two."""
        for prompt in PROMPTS:
            command = [self.program("dunlin-verifier"), "reference", "--model", str(self.work / f"{kind}.gguf")]
            command += ["--prompt", prompt, "--temperature", "0", "--max-tokens", str(TOKENS), "--json"]
            written = json.loads(run(command, self.log("reference"))[0])
            text = written["prompt_tokens"][-1:] + written["tokens"]
            follows = {}
            if all(follows.setdefault(a, b) == b for a, b in zip(text, text[1:])):
                return prompt, written["tokens"], follows
            print(f"  {prompt!r}: a token is followed by two, so another prompt is taken", flush=True)
        raise Failure("no prompt's text can be replayed by a table of tokens")

    def reply(self, broker, folder, prompt, expected):
        """One reply by the agent, as the report has it."""
        command = [self.program("dunlin-agent"), "generate", "--broker", f"mqtt://{broker}", "--model", str(folder)]
        command += ["--device", "paper", "--prompt", prompt, "--temperature", "0", "--seed", "0"]
        command += ["--max-tokens", str(TOKENS), "--json"]
        text, peak = run(command, self.log(f"agent-{folder.name}"))
        report = json.loads(text)
        # The first open is the lease; each other one means that it was lost.
        keys = ("resent", "opens", "resyncs", "rounds", "drafted_tokens", "accepted_tokens", "seconds", "finish")
        return {
            "identical": report["tokens"] == expected,
            "tokens": len(report["tokens"]),
            **{key: report[key] for key in keys},
            "agent_peak_mib": round(peak),
            "agent_promised_mib": self.drafter_promise(folder),
            "drafter_file_mib": round(folder_mib(folder)),
        }

    def replies(self, kind, prompt, expected, drafters):
        """The replies of all drafters by one verifier, and its memory."""
        ready = self.work / "ready"
        ready.unlink(missing_ok=True)
        flags = ["--listen", "127.0.0.1:0", "--ready-file", str(ready)]
        server = Process(self.verifier("serve", kind, *flags), self.log("verifier"))
        try:
            broker = wait_for(ready, server)
            found = {}
            for name, folder in drafters.items():
                print(f"  a reply of {TOKENS} tokens with the {name} drafter", flush=True)
                found[name] = self.reply(broker, folder, prompt, expected)
            steady = server.memory_mib()
        finally:
            if server.is_alive():
                server.end()
        return found, {"verifier_peak_mib": round(server.peak_mib), "verifier_steady_mib": round(steady)}

    def pass_ms(self, name, model, rows, peer_model):
        """CPU milliseconds of a pass over so many rows: ours and llama.cpp's."""
        shapes = ",".join(f"1x{count}" for count in rows)
        commands = {"ours": [self.built[name], str(model), shapes]}
        if self.peer:
            commands["llama_cpp"] = [sys.executable, str(PEER), str(peer_model), shapes]
        found = {}
        for side, command in commands.items():
            print(f"  {name}: {side}", flush=True)
            line = run(command, self.log(f"pass-{name}-{side}"), ONE_THREAD)[0].splitlines()[-1]
            cases = json.loads(line)["cases"]
            found[side] = {str(case["chunk"]): round(statistics.median(case["ms"]), 1) for case in cases}
        return found


def marks(report):
    """Every mark, and whether it is reached."""
    found = []
    for kind, part in report["targets"].items():
        promise = part["verifier_promised_mib"] + KV_MIB
        peak = part["verifier_peak_mib"]
        found.append((f"{kind}: the verifier's peak of {peak} MiB is at most the {promise} promised", peak <= promise))
        for name, reply in part["replies"].items():
            text = reply["identical"] and reply["tokens"] == TOKENS
            found.append((f"{kind}, {name}: {reply['tokens']} tokens identical to the target's", text))
            quiet = reply["resent"] == 0 and reply["opens"] == 1
            found.append((f"{kind}, {name}: {reply['resent']} frames resent, {reply['opens'] - 1} leases lost", quiet))
            peak, promise = reply["agent_peak_mib"], reply["agent_promised_mib"]
            found.append((f"{kind}, {name}: the agent's peak of {peak} MiB is at most the {promise} promised", peak <= promise))
            file = reply["drafter_file_mib"]
            found.append((f"{kind}, {name}: it is {peak / file:.2f} of the file's {file}", peak <= PEAK_MAX * file))
            accepted, drafted = reply["accepted_tokens"], reply["drafted_tokens"]
            right = accepted == drafted if name == "replay" else accepted <= SELDOM * drafted
            found.append((f"{kind}, {name}: {accepted} of {drafted} drafts accepted", right))
    return found


def table(report):
    """The figures as lines."""
    lines = [report["processor"], f"drafter: file {report['drafter_file_mib']} MiB"]
    drafts = report["ms_per_draft"]
    lines.append("ms per draft: " + ", ".join(f"{side} {figures['1']}" for side, figures in drafts.items()))
    for kind, part in report["targets"].items():
        lines.append(
            f"{kind}: file {part['file_mib']} MiB; verifier: promised {part['verifier_promised_mib']} + {KV_MIB} of caches, "
            f"peak {part['verifier_peak_mib']}, steady {part['verifier_steady_mib']} MiB"
        )
        for side, figures in part["ms_per_pass"].items():
            lines.append(f"  ms per pass, {side}: " + ", ".join(f"{rows} rows {ms}" for rows, ms in figures.items()))
        for name, reply in part["replies"].items():
            lines.append(
                f"  {name}: {reply['tokens']} tokens in {reply['seconds']:.1f} s, {reply['rounds']} rounds, "
                f"{reply['accepted_tokens']} of {reply['drafted_tokens']} drafts accepted; "
                f"agent: promised {reply['agent_promised_mib']}, peak {reply['agent_peak_mib']} MiB"
            )
    return lines


def target(bench, kind, drafter):
    """Everything about one kind of target."""
    file = bench.work / f"{kind}.gguf"
    if not file.exists():
        part = bench.work / f"{kind}.part"
        shape, progress = bench.target_shape, Progress(f"making the {kind} target")
        models.walking(part, f"random-{kind}", shape, kind, SEED["target"], progress)
        part.rename(file)
    print("  memory as `check` promises it", flush=True)
    found = {"file_mib": round(size_mib(file)), "verifier_promised_mib": bench.target_promise(kind)}
    print("  the target's own text", flush=True)
    prompt, expected, follows = bench.reference(kind)
    replayed = bench.work / "replay.gguf"
    progress = Progress("making the drafter that replays it")
    models.replaying(replayed, "replay", bench.drafter_shape, "q4_0", follows, SEED["replay"], progress)
    folder = bench.imported(replayed, "replay")
    replayed.unlink()
    found["replies"], memory = bench.replies(kind, prompt, expected, {"random": drafter, "replay": folder})
    found |= memory
    shutil.rmtree(folder)
    found["ms_per_pass"] = bench.pass_ms("target", file, ROWS, file)
    if not bench.keep:
        # The verifier keeps a digest beside it.
        for made in bench.work.glob(f"{kind}.gguf*"):
            made.unlink()
    return found


def measure(bench, kinds):
    source = bench.work / "drafter.gguf"
    progress = Progress("making the drafter")
    models.walking(source, "random-drafter", bench.drafter_shape, "q4_0", SEED["drafter"], progress)
    drafter = bench.imported(source, "random")
    report = {
        "processor": processor(),
        "peer": f"llama-cpp-python {metadata.version('llama-cpp-python')}" if bench.peer else None,
        "drafter_file_mib": round(folder_mib(drafter)),
        "ms_per_draft": bench.pass_ms("drafter", drafter, (1,), source),
    }
    source.unlink()
    report["targets"] = {}
    for kind in kinds:
        print(kind, flush=True)
        report["targets"][kind] = target(bench, kind, drafter)
    if not bench.keep:
        shutil.rmtree(drafter)
    replies = [reply for part in report["targets"].values() for reply in part["replies"].values()]
    return report | {
        "identical": all(reply["identical"] for reply in replies),
        "tokens": min(reply["tokens"] for reply in replies),
        "resent": sum(reply["resent"] for reply in replies),
        "opens": sum(reply["opens"] for reply in replies),
        "verifier_peak_mib": max(part["verifier_peak_mib"] for part in report["targets"].values()),
        "agent_peak_mib": max(reply["agent_peak_mib"] for reply in replies),
        "ms_per_pass": {kind: part["ms_per_pass"] for kind, part in report["targets"].items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--programs", "--bin", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="models of two layers, to try this script")
    parser.add_argument("--kinds", nargs="+", default=["q4_k_m", "q8_0"], choices=["q4_k_m", "q8_0"])
    parser.add_argument("--keep", action="store_true", help="keep the models, for a next run")
    parser.add_argument("--peer", action="store_true", help="measure llama.cpp beside ours")
    arguments = parser.parse_args()
    try:
        bench = Bench(arguments)
        report = measure(bench, arguments.kinds)
    except Failure as failure:
        sys.exit(f"paper-size: {failure}")
    found = marks(report)
    # The small models have so little weight that the programs themselves outweigh it.
    found = [(words, right) for words, right in found if not (arguments.small and "of the file's" in words)]
    report["marks"] = {words: right for words, right in found}
    path = arguments.work / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print("\n" + "\n".join(table(report)) + "\n")
    for words, right in found:
        print(f"{'✓' if right else '✗'} {words}")
    print(f"\n{path}")
    sys.exit(not all(right for _, right in found))


main()
