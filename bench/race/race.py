"""Real processes race over a link with delay and loss: our policies, and llama.cpp's stream over HTTP.

bench/race.sh starts this in a network namespace of its own. It ends with 0 if every text that must be the target's own
is, 1 if one isn't or a program failed, and 3 if this machine doesn't allow such a link.
"""

import argparse
import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))

import table  # noqa: E402
from relay import NEAR, NotAllowed, open_tun  # noqa: E402
from sides import MODELS, SEED, TEMPERATURE, TOKENS_MAX, AgentWay, Failed, ServerWay, Stand  # noqa: E402

# What must be the target's own text, token for token.
EXACT = ("stream", "lossless", "auto")
POLICIES = (*EXACT, "local")
SERVER = "llama.cpp"
# Prompts before the measured ones, so that models are warm and `auto` has learned what the link costs.
WARM_UP = 2
# A reply's last packets have passed once the link was silent for the way of one and for this, which is more than the
# 40 ms for which Linux delays an acknowledgement; or after so many seconds.
SILENCE, SETTLED_WITHIN = 0.06, 3.0
FULL = {"prompts": 20, "rtts": (0, 20, 100, 300), "losses": (0.0, 0.02)}
SHORT = {"prompts": 4, "rtts": (0, 100), "losses": (0.0,)}


class Relay:
    """The relay between this namespace and the far one."""

    def __init__(self, stand):
        here, there = socket.socketpair()
        command = ["unshare", "-n", sys.executable, HERE / "relay.py", "far", str(there.fileno())]
        far = subprocess.run(command, pass_fds=[there.fileno()], stderr=subprocess.PIPE, text=True)
        there.close()
        if far.returncode:
            raise NotAllowed(far.stderr.strip().removeprefix("race: "))
        _, (far_tun, stand.space), _, _ = socket.recv_fds(here, 16, 2)
        here.close()
        near_tun = open_tun(NEAR)
        self.control, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(10)
        ends = [near_tun, far_tun, end.fileno()]
        command = [sys.executable, HERE / "relay.py", "carry", *ends]
        self.process, self.log = stand.start("relay", command, pass_fds=ends)
        for descriptor in (near_tun, far_tun):
            os.close(descriptor)
        end.close()

    def set(self, rtt_ms, loss, seed=0):
        """New conditions; what was counted under the old ones, by direction."""
        return self.ask(rtt=rtt_ms / 1e3, loss=loss, seed=seed)

    def settle(self, rtt_ms):
        """Waits until nothing is on its way."""
        deadline = time.monotonic() + SETTLED_WITHIN
        while self.ask()["quiet"] < rtt_ms / 2e3 + SILENCE and time.monotonic() < deadline:
            time.sleep(0.01)

    def ask(self, **command):
        try:
            self.control.send(json.dumps(command).encode())
            return json.loads(self.control.recv(4096))
        except OSError as error:
            raise Failed(f"the relay doesn't answer ({error}); see {self.log}") from error


def ways_of(stand, names):
    """The ways under one condition, each with a program or a connection of its own."""
    return {name: ServerWay() if name == SERVER else AgentWay(stand, name) for name in names}


def tell(text):
    """A line that the next one replaces, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)


def race(link, stand, names, prompts, references, rtt, loss):
    """All ways under one condition, prompt by prompt in turns: a row for each, and where a text was another's."""
    title = f"{rtt:g} ms, {loss:.0%} lost"
    link.set(rtt, loss)
    ways = ways_of(stand, names)
    replies = {name: [] for name in ways}
    counted = {name: {"up": [], "down": []} for name in ways}
    differ = []
    for number, prompt in enumerate(prompts):
        tell(f"  {title}: prompt {number + 1} of {len(prompts)}")
        for name, way in ways.items():
            # The same seed for each way: of its packets, those of the same places are lost.
            link.set(rtt, loss, number + 1)
            reply = way.ask(prompt)
            link.settle(rtt)
            passed = link.set(rtt, loss, 0)
            if name in EXACT and reply.tokens != references[prompt]:
                found = {"way": name, "rtt_ms": rtt, "loss": loss, "prompt": prompt}
                differ.append(found | {"tokens": reply.tokens, "expected": references[prompt]})
            if number >= WARM_UP:
                replies[name].append(reply)
                for direction in passed:
                    counted[name][direction].append(passed[direction])
    for way in ways.values():
        way.close()
    tell("")
    return [row(name, rtt, loss, replies[name], counted[name]) for name in ways], differ


def row(name, rtt, loss, replies, counted):
    def total(direction, what):
        return sum(part[what] for part in counted[direction])

    tokens = sum(reply.count for reply in replies)
    first, last = ([getattr(reply, name) for reply in replies] for name in ("first", "last"))
    found = {
        "way": name,
        "rtt_ms": rtt,
        "loss": loss,
        "replies": len(replies),
        "tokens": tokens,
        "first_s": statistics.median(first),
        "last_s": statistics.median(last),
        "last_s_max": max(last),
        "ms_per_token": 1e3 * sum(last) / tokens,
    }
    for direction in ("up", "down"):
        for what in ("bytes", "packets", "lost", "overflowed"):
            found[f"{what}_{direction}"] = total(direction, what)
        found[f"bytes_{direction}_per_token"] = found[f"bytes_{direction}"] / tokens
    for what in ("resent", "opens", "frames_up", "drafted_tokens", "accepted_tokens"):
        if what in (replies[0].report or {}):
            found[what] = sum(reply.report[what] for reply in replies)
    return found


def compare(rows, base):
    """Adds each row's figures over those of the base under the same condition; below 1 is quicker, or fewer bytes."""
    of = {(row["rtt_ms"], row["loss"]): row for row in rows if row["way"] == base}
    for row in rows:
        other = of[(row["rtt_ms"], row["loss"])]
        for name in ("first_s", "ms_per_token", "bytes_up_per_token", "bytes_down_per_token"):
            row[f"{name}_ratio"] = row[name] / other[name] if other[name] else None


def heading(base):
    """The head of the table. The median of replies, but for ms/token and bytes/token: all of their sum."""
    named = f"  {'':<12}{'first':>9}{'last':>9}{'ms/token':>10}{'tokens':>8}"
    units = f"  {'':<12}{'s':>9}{'s':>9}{'':>18}"
    print(f"\n{named}{'up':>7}{'down':>7}   ratio to {base}")
    print(f"{units}{'bytes/token':>14}   {'first':>7}{'ms/token':>10}{'down':>8}")


def show(rows):
    print(table.bold(f"  {rows[0]['rtt_ms']:g} ms round trip, {rows[0]['loss']:.0%} lost"))
    for row in rows:
        bytes_up, bytes_down = row["bytes_up_per_token"], row["bytes_down_per_token"]
        ratios = [row[f"{name}_ratio"] for name in ("first_s", "ms_per_token", "bytes_down_per_token")]
        first, whole, down = (f"{ratio:.2f}" if ratio is not None else "–" for ratio in ratios)
        print(
            f"  {row['way']:<12}{row['first_s']:>9.3f}{row['last_s']:>9.3f}{row['ms_per_token']:>10.1f}"
            f"{row['tokens']:>8}{bytes_up:>7.0f}{bytes_down:>7.0f}   {first:>7}{whole:>10}{down:>8}",
            flush=True,
        )


def run(arguments):
    plan = SHORT if arguments.short else FULL
    for name in ("prompts", "rtts", "losses"):
        if getattr(arguments, name):
            plan = plan | {name: getattr(arguments, name)}
    listed = json.loads((MODELS / "prompts.json").read_text())["prompts"]
    # Those of the warm-up come from the other end of the list: they are none of the measured ones.
    prompts = listed[-WARM_UP:] + listed[: plan["prompts"]]
    names = list(POLICIES)
    has_server = all(importlib.util.find_spec(name) for name in ("llama_cpp", "uvicorn", "fastapi", "sse_starlette"))
    names += [SERVER] if has_server else []
    base = SERVER if has_server else "stream"
    report = {"machine": arguments.machine, "seed": SEED, "temperature": TEMPERATURE, "tokens_max": TOKENS_MAX}
    report |= {"base": base, "missing": [] if has_server else [SERVER], "rows": [], "differ": []}
    print(table.bold("{cpu}, {cores} cores, load {load}".format(**report["machine"])))
    if not has_server:
        print("llama.cpp's server is not installed: its rows are missing, and the ratios are to stream.")
    with Stand(arguments.bins, arguments.out, None) as stand:
        link = Relay(stand)
        link.set(0, 0)
        print(f"{len(prompts) - WARM_UP} prompts of {TOKENS_MAX} tokens at most; logs in {arguments.out}", flush=True)
        stand.broker()
        stand.verifier()
        if has_server:
            stand.server()
        references = {prompt: stand.reference(prompt) for prompt in prompts}
        heading(base)
        for loss in plan["losses"]:
            for rtt in plan["rtts"]:
                rows, differ = race(link, stand, names, prompts, references, rtt, loss)
                compare(rows, base)
                show(rows)
                report["rows"] += rows
                report["differ"] += differ
    report["identical"] = not report["differ"]
    return report


def finish(report, arguments):
    """Writes the report, with the map of the evaluation where there is one; the exit code."""
    if arguments.map.is_file():
        report["map"] = json.loads(arguments.map.read_text())
    path = arguments.out / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    if report["identical"]:
        print(f"\nEvery text of {', '.join(EXACT)} is the target's own, token for token.")
    for found in report["differ"]:
        way, rtt, loss, prompt = (found[name] for name in ("way", "rtt_ms", "loss", "prompt"))
        print(f"\n{way} at {rtt:g} ms and {loss:.0%} lost wrote another text than the target: {prompt!r}")
    print(path)
    return 0 if report["identical"] else 1


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return {"cpu": ", ".join(sorted(names)) or "unknown", "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bins", type=Path, required=True, help="the folder of dunlin-agent and dunlin-verifier")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the report and of logs")
    parser.add_argument("--map", type=Path, required=True, help="the evaluation's map, which is copied if it is there")
    parser.add_argument("--short", action="store_true", help="4 prompts, 0 and 100 ms, no loss")
    parser.add_argument("--prompts", type=int, help="how many prompts")
    parser.add_argument("--rtts", type=float, nargs="+", help="round trips in ms")
    parser.add_argument("--losses", type=float, nargs="+", help="shares of lost packets")
    arguments = parser.parse_args()
    arguments.machine = machine()
    arguments.bins, arguments.out = arguments.bins.resolve(), arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # An interrupt and a wish to end are an exception, so that what runs is ended on the way out. As the first process
    # of its namespace, this one gets neither without a handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return finish(run(arguments), arguments)
    except NotAllowed as error:
        print(f"race: {error}", file=sys.stderr)
        return 3
    except Failed as error:
        print(f"\nrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrace: interrupted; everything it started was stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
