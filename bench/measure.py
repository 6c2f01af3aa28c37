"""Runs our programs and their peers in turns and makes ratios of what they print; nothing here is asserted.

Every figure is CPU time of one thread, except the round over MQTT, which is time by the clock beside a bare ping-pong.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import plot
import table

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models" / "demo"
PEERS = Path(__file__).parent / "peers"
# Ours and theirs take turns, so that a noisy moment meets both.
TURNS = 3
# Runnable processes per core above which the figures are only worth a look.
BUSY = 0.3
ONE_THREAD = {name: "1" for name in ("CANDLE_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS")}


def machine():
    """What it was measured on; read before anything runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    known = ("avx2", "avx512f", "avx512_vnni", "asimd", "asimddp")
    load = os.getloadavg()[0]
    return {
        "cpu": ", ".join(sorted(names)) or platform.processor() or "unknown",
        "arch": platform.machine(),
        "simd": [flag for flag in known if flag in flags],
        "cores": os.cpu_count(),
        "load_at_start": round(load, 2),
        "busy": load > BUSY * (os.cpu_count() or 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def built(path):
    """Path of each bench program and example that cargo built."""
    messages = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}


def run(command):
    """The JSON that a program's last line is, or None and a word on the terminal."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD, cwd=ROOT)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    print(f"{Path(command[-2] if len(command) > 2 else command[0]).name} failed: {reason}", file=sys.stderr)
    return None


def merged(runs):
    """Several runs of one program: each case with the median of all its samples."""
    cases = {}
    for case in (case for found in runs for case in found["cases"]):
        key = (case["sessions"], case["chunk"])
        cases.setdefault(key, {"ms": [], "argmax": case["argmax"]})["ms"] += case["ms"]
    return {key: {"ms": statistics.median(c["ms"]), "argmax": c["argmax"]} for key, c in cases.items()}


def model(name, ours_program, peer_program, weights):
    """One model on our engine and on its peer's: a row for each shape, and the two engines' names."""
    ours, theirs = [], []
    for turn in range(TURNS):
        print(f"  {name}: turn {turn + 1} of {TURNS}", flush=True)
        ours.append(run([ours_program]))
        if None not in theirs:
            theirs.append(run([sys.executable, str(PEERS / peer_program), str(weights)]))
    if None in ours:
        sys.exit(1)
    theirs = [] if None in theirs else theirs
    peer = merged(theirs)
    rows = [row(key, case, peer.get(key)) for key, case in merged(ours).items()]
    return {"ours": ours[0]["engine"], "theirs": theirs[0]["engine"] if theirs else None, "rows": rows}


def row(key, ours, theirs):
    """One shape: milliseconds of a pass and of a token, ours over theirs, and how many rows agree on the best token."""
    sessions, chunk = key
    tokens = sessions * chunk
    found = {"sessions": sessions, "chunk": chunk, "ours_ms": ours["ms"], "ours_ms_per_token": ours["ms"] / tokens}
    if theirs:
        agree = sum(a == b for a, b in zip(ours["argmax"], theirs["argmax"], strict=True))
        found |= {
            "theirs_ms": theirs["ms"],
            "theirs_ms_per_token": theirs["ms"] / tokens,
            "ratio": ours["ms"] / theirs["ms"],
            "same_best_token": f"{agree}/{tokens}",
        }
    return found


def wire(program):
    found = run([program])
    if not found:
        sys.exit(1)
    steps = {name: statistics.median(step["ns"]) for name, step in found["steps"].items()}
    allocations = sum(step["allocations"] for step in found["steps"].values())
    sizes = {key: found[key] for key in ("frame_bytes", "verdict_bytes")}
    return {"ns": steps, "allocations": allocations, **sizes}


def at(samples, percent):
    """The percentile of some samples."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def connect(program):
    found = run([program])
    if not found:
        sys.exit(1)
    kinds = {kind: found[f"{kind}_us"] for kind in ("tls", "plain")}
    figures = {f"{kind}_p{percent}_ms": at(us, percent) / 1e3 for kind, us in kinds.items() for percent in (50, 99)}
    return figures | {"connections": len(kinds["tls"])}


def latency(program, scripted):
    found = run([program, scripted])
    if not found:
        sys.exit(1)

    rounds, bare = found["round_us"], found["bare_us"]
    parts = {f"{name}_us": statistics.median(found[f"{name}_us"]) for name in ("target", "sampling")}
    figures = {}
    for percent in (50, 99):
        ours, bound = at(rounds, percent), at(bare, percent)
        figures[f"p{percent}"] = {"round_us": ours, "bare_us": bound, "ratio": ours / bound}
    sizes = {key: found[key] for key in ("up_bytes", "down_bytes")}
    return figures | {"rounds": len(rounds), **parts, **sizes}


def crowd(program):
    print("  crowd: 100 to 1000 sessions, half a minute", flush=True)
    found = run([program])
    if not found:
        sys.exit(1)
    return found["cases"]


def gaps(requirements):
    """The peers that are not installed as asked for."""
    missing = []
    for line in (line for line in requirements.read_text().splitlines() if not line.startswith("#")):
        name, version = line.split("==")
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = None
        if found != version:
            missing.append(line)
    return missing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--programs", "--out", "--requirements"):
        parser.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args()
    programs = built(arguments.programs)
    report = {"machine": machine(), "missing": gaps(arguments.requirements)}
    table.header(report)
    report["drafter"] = model("drafter", programs["drafter"], "onnx.py", MODELS / "drafter" / "drafter.onnx")
    report["target"] = model("target", programs["target"], "llama.py", MODELS / "target" / "target.gguf")
    report["wire"] = wire(programs["wire"])
    report["latency"] = latency(programs["latency"], programs["scripted"])
    report["connect"] = connect(programs["connect"])
    report["crowd"] = crowd(programs["crowd"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.out / "speed.svg").write_text(plot.draw(report))
    table.show(report)
    print(f"\n{arguments.out / 'report.json'}\n{arguments.out / 'speed.svg'}")


main()
