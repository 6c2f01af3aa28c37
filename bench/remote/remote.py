#!/usr/bin/env python3
"""Texts of an agent and a verifier before a llama-server, beside the server's own greedy texts.

Prompts of both demo pairs are given to the server alone, as tokens, and to an agent with the pair's drafter. Both write
up to 64 tokens at temperature 0. Writes report.json.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOKENS_MAX, PROMPTS = 64, 5
POLICIES = ["lossless", "stream"]
READY_WITHIN, REPLY_WITHIN = 120.0, 300.0
ONE_THREAD = {name: "1" for name in ("CANDLE_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS")}


class Failed(Exception):
    """A program that doesn't do what it is there for."""


class Pair:
    """A drafter, a target, prompts, and the tokens that end a reply beside those at which the server ends it."""

    def __init__(self, name, drafter, target, gguf, prompts, stop):
        self.name, self.drafter, self.target, self.gguf = name, drafter, target, gguf
        self.prompts, self.stop = prompts[:PROMPTS], stop


def pairs(models):
    """The demo pair, whose replies are short, and SmolLM2, whose replies are long."""
    demo, smollm2 = ROOT / "models" / "demo", ROOT / "models" / "smollm2"
    prompts = json.loads((demo / "prompts.json").read_text())["prompts"]
    # A user's turn ends a reply of the demo target, which the server doesn't know.
    yield Pair("demo", demo / "drafter", demo / "target", demo / "target" / "target.gguf", prompts, [3])
    gguf = models / "smollm2" / "SmolLM2-135M-Instruct-Q8_0.gguf"
    prompts = json.loads((smollm2 / "prompts.json").read_text())
    yield Pair("smollm2", smollm2 / "drafter", gguf, gguf, prompts, [])


class Stand:
    """The programs that run; what it started ends with it."""

    def __init__(self, out):
        self.out, self.processes = out, []

    def start(self, name, command):
        log = self.out / f"{name}.log"
        with log.open("wb") as file:
            command = [str(part) for part in command]
            settings = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file, "start_new_session": True}
            self.processes.append(subprocess.Popen(command, env=os.environ | ONE_THREAD, **settings))
        return self.processes[-1], log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


def until(what, is_so, process, log):
    """Waits for a condition while a program runs."""
    deadline = time.monotonic() + READY_WITHIN
    while not is_so():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-1500:]
            raise Failed(f"{what} {'ended' if ended else 'is not ready'}; {log}:\n{said}")
        time.sleep(0.05)


def asked(url, body=None):
    """The server's answer as JSON; None while it has none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=REPLY_WITHIN) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


def start_server(stand, program, pair):
    """llama-server can't choose a free port itself, so it gets one that was free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--model", pair.gguf, "--alias", pair.name, "--port", port, "--ctx-size", 1024]
    process, log = stand.start("llama-server", command + ["--threads", 1, "--parallel", 1])
    url = f"http://127.0.0.1:{port}"
    until("llama-server", lambda: asked(f"{url}/health") is not None, process, log)
    return url


def start_verifier(stand, bins, url, pair):
    config, ready = stand.out / "verifier.toml", stand.out / "verifier.ready"
    ready.unlink(missing_ok=True)
    config.write_text(
        f"model = {json.dumps(str(pair.target))}\nembedded_broker = true\nlisten = '127.0.0.1:0'\n"
        f"[remote]\nurl = '{url}'\nkind = 'llama-server'\nmodel = '{pair.name}'\n"
    )
    process, log = stand.start(
        "verifier", [bins / "dunlin-verifier", "serve", "--config", config, "--ready-file", ready]
    )
    until("dunlin-verifier", ready.is_file, process, log)
    return process, ready.read_text().strip()


def run(command):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=REPLY_WITHIN, env=os.environ | ONE_THREAD
    )
    return done.returncode, done.stdout, done.stderr


def prompt_tokens(bins, pair, prompt):
    """The tokens of a prompt in the target's form."""
    command = [bins / "dunlin-verifier", "reference", "--json", "--model", pair.target, "--temperature", 0]
    code, out, said = run([*command, "--max-tokens", 1, "--prompt", prompt])
    if code:
        raise Failed(f"dunlin-verifier reference: {said.strip()}")
    return json.loads(out)["prompt_tokens"]


def greedy(url, pair, tokens):
    """The server's own text: one plain request."""
    body = {"prompt": tokens, "n_predict": TOKENS_MAX, "temperature": 0.0, "return_tokens": True}
    answer = asked(f"{url}/completion", body)
    if answer is None:
        raise Failed("llama-server gave no text")
    reply = answer["tokens"]
    ends = [index for index, token in enumerate(reply) if token in pair.stop]
    return reply[: ends[0] + 1] if ends else reply


def agent(bins, broker, pair, policy, prompt):
    command = [bins / "dunlin-agent", "generate", "--json", "--policy", policy, "--temperature", 0, "--power", "none"]
    command += ["--broker", f"mqtt://{broker}", "--device", f"remote-{policy}", "--max-tokens", TOKENS_MAX]
    return run([*command, "--model", pair.drafter, "--timeout", 120, "--prompt", prompt])


def compare(bins, url, broker, pair):
    rows = []
    for prompt in pair.prompts:
        own = greedy(url, pair, prompt_tokens(bins, pair, prompt))
        for policy in POLICIES:
            code, out, said = agent(bins, broker, pair, policy, prompt)
            if code:
                raise Failed(f"dunlin-agent, {policy}: {said.strip()}")
            report = json.loads(out)
            tokens = report["tokens"]
            row = {"pair": pair.name, "prompt": prompt, "policy": policy, "identical": tokens == own}
            rows.append(row | {"tokens": len(own)})
            shown = "identical" if tokens == own else f"DIFFERS: {tokens} and {own}"
            print(f"{pair.name:8} {policy:10} {len(own):3} tokens  {shown}  {prompt[:60]!r}")
    return rows


def refused(bins, broker, pair):
    """A policy that needs the target's rows is refused with a reason."""
    code, _, said = agent(bins, broker, pair, "hlm", "What is a plover?")
    if code == 0 or "refused this policy" not in said:
        raise Failed(f"the policy hlm was not refused: code {code}: {said.strip()}")
    print(f"{pair.name:8} hlm        refused: {said.strip().splitlines()[-1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bins", "server", "models", "out"):
        # A configuration's paths are relative to its own folder.
        parser.add_argument(f"--{name}", type=lambda text: Path(text).resolve(), required=True)
    args = parser.parse_args()
    # A time-out of make ends this program, which must end the others.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows = []
    for pair in pairs(args.models):
        with Stand(args.out) as stand:
            url = start_server(stand, args.server, pair)
            verifier, broker = start_verifier(stand, args.bins, url, pair)
            rows += compare(args.bins, url, broker, pair)
            refused(args.bins, broker, pair)
            if verifier.poll() is not None:
                raise Failed("the verifier ended")
    identical = all(row["identical"] for row in rows)
    longest = max(row["tokens"] for row in rows)
    report = {"identical": identical, "longest": longest, "replies": rows}
    (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    if longest < TOKENS_MAX:
        raise Failed(f"no reply has {TOKENS_MAX} tokens")
    print(f"{len(rows)} replies of up to {longest} tokens: {'all identical' if identical else 'NOT IDENTICAL'}")
    return 0 if identical else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"test-remote: {failure}")
