"""The programs on both sides of the link, and two ways to a reply: our agent, and a server over HTTP."""

import http.client
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from relay import FAR

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "models" / "demo"
SEED, TEMPERATURE, TOKENS_MAX = 1, 0.8, 64
# The longest that a program may take to be ready, and a reply to be complete.
READY_WITHIN, REPLY_WITHIN = 60.0, 120.0
ONE_THREAD = {name: "1" for name in ("CANDLE_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
MQTT_PORT, HTTP_PORT = 1883, 8000
LISTENER = "listener 1883 127.0.0.1\n"
SAMPLING = ("--temperature", str(TEMPERATURE), "--top-p", "1", "--top-k", "0", "--seed", str(SEED))


class Failed(Exception):
    """A program that doesn't do what it is there for."""


class Reply:
    """Seconds from the prompt's hand-over to the first and the last token, and the tokens where they are known."""

    def __init__(self, first, last, count, tokens=None, report=None):
        self.first, self.last, self.count, self.tokens, self.report = first, last, count, tokens, report or {}


def until(what, is_so, process, log):
    """Waits for a condition while a program runs."""
    deadline = time.monotonic() + READY_WITHIN
    while not is_so():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-1500:] if log.exists() else ""
            raise Failed(f"{what} {'ended' if ended else 'is not ready'}; {log}:\n{said}")
        time.sleep(0.05)


class Stand:
    """Everything that runs; what it started ends with it."""

    def __init__(self, bins, out, space):
        self.bins, self.out, self.space, self.processes = bins, out, space, []

    def start(self, name, command, far=False, env=None, **pipes):
        """Starts a program on one side. Its messages go to a log of its name."""
        if far:
            command = ["nsenter", f"--net=/proc/self/fd/{self.space}", *command]
            pipes["pass_fds"] = [self.space]
        with (self.out / f"{name}.log").open("wb") as log:
            settings = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | pipes
            environment = (env or os.environ) | ONE_THREAD
            # An interrupt at the terminal is for this program, which ends the others.
            settings |= {"env": environment, "start_new_session": True}
            process = subprocess.Popen([str(part) for part in command], **settings)
        self.processes.append(process)
        return process, self.out / f"{name}.log"

    def stop(self, process):
        process.kill()
        process.wait()
        self.processes.remove(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in list(self.processes):
            self.stop(process)

    def broker(self):
        """mosquitto on the far side, with the site's file but for its listener."""
        text = (ROOT / "broker-verifier" / "mosquitto.conf").read_text()
        if LISTENER not in text:
            raise Failed("broker-verifier/mosquitto.conf has another listener than bench/race/sides.py knows")
        file = self.out / "mosquitto.conf"
        file.write_text(text.replace(LISTENER, f"listener {MQTT_PORT}\nuser root\nlog_dest stderr\n"))
        process, log = self.start("mosquitto", ["mosquitto", "-c", file], far=True)
        until("mosquitto", lambda: b" running" in log.read_bytes(), process, log)

    def verifier(self):
        ready = self.out / "verifier.ready"
        ready.unlink(missing_ok=True)
        command = [self.bins / "dunlin-verifier", "serve", "--threads", "1", "--model", MODELS / "target"]
        command += ["--broker", f"mqtt://127.0.0.1:{MQTT_PORT}", "--ready-file", ready]
        process, log = self.start("verifier", command, far=True)
        until("dunlin-verifier", ready.is_file, process, log)

    def server(self):
        """llama.cpp behind the HTTP server of its Python package, in this Python."""
        # Every variable may be a setting of it, so it sees only these, and not those of make.
        settings = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        settings |= {"MODEL": str(MODELS / "target" / "target.gguf"), "N_CTX": "1024", "VERBOSE": "false"}
        settings |= {"N_THREADS": "1", "N_THREADS_BATCH": "1"}
        # A user's turn ends the reply, as it does for the agent.
        settings["KV_OVERRIDES"] = json.dumps(["tokenizer.ggml.eot_token_id=int:3"])
        # A connection stays open between prompts: who waits for a handshake says little about the way.
        command = [sys.executable, "-m", "uvicorn", "--factory", "llama_cpp.server.app:create_app", "--host", FAR]
        command += ["--port", HTTP_PORT, "--timeout-keep-alive", 3600, "--log-level", "warning"]
        process, log = self.start("server", command, far=True, env=settings)

        def answers():
            connection = http.client.HTTPConnection(FAR, HTTP_PORT, timeout=5)
            try:
                connection.request("GET", "/v1/models")
                return connection.getresponse().status == 200
            except OSError:
                return False
            finally:
                connection.close()

        until("the llama.cpp server", answers, process, log)

    def reference(self, prompt):
        """The target's own reply."""
        command = [self.bins / "dunlin-verifier", "reference", "--json", "--threads", "1", *SAMPLING]
        command += ["--model", MODELS / "target", "--max-tokens", str(TOKENS_MAX), "--prompt", prompt]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD)
        if done.returncode:
            raise Failed(f"dunlin-verifier reference: {done.stderr.strip()}")
        return json.loads(done.stdout)["tokens"]


class AgentWay:
    """`dunlin-agent serve` on the near side: prompts in, events out."""

    def __init__(self, stand, policy):
        self.stand, self.policy, self.rest = stand, policy, b""
        command = [stand.bins / "dunlin-agent", "serve", "--json", "--policy", policy, *SAMPLING]
        command += ["--broker", f"mqtt://{FAR}:{MQTT_PORT}", "--device", f"race-{policy}", "--power", "none"]
        command += ["--max-tokens", TOKENS_MAX, "--model", MODELS / "drafter"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process, self.log = stand.start(f"agent-{policy}", command, **pipes)

    def lines(self, deadline):
        """Lines of its output, each with the time at which it was there."""
        out = self.process.stdout.fileno()
        while True:
            line, end, rest = self.rest.partition(b"\n")
            if end:
                self.rest = rest
                yield line, self.read_at
                continue
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Failed(f"{self.policy}: no whole reply within {REPLY_WITHIN:.0f} s; see {self.log}")
            read = os.read(out, 1 << 16)
            self.read_at = time.monotonic()
            if not read:
                raise Failed(f"{self.policy}: the agent ended; see {self.log}")
            self.rest += read

    def ask(self, prompt):
        self.process.stdin.write(json.dumps({"prompt": prompt, "new_session": True}).encode() + b"\n")
        begun = time.monotonic()
        self.process.stdin.flush()
        times, tokens = [], []
        for line, at in self.lines(begun + REPLY_WITHIN):
            event = json.loads(line)
            if event["event"] == "token":
                times.append(at - begun)
                tokens.append(event["token"])
            elif event["event"] == "finished":
                # An event for each token, and the report's own list: the same, or nothing was measured.
                if event["tokens"] != tokens or not tokens:
                    raise Failed(f"{self.policy}: the events and the report differ in their tokens: {event}")
                return Reply(times[0], times[-1], len(tokens), tokens, event)
            elif event["event"] == "error":
                raise Failed(f"{self.policy}: {event['text']}")
        raise AssertionError("lines end only with an error")

    def close(self):
        self.stand.stop(self.process)


class ServerWay:
    """The HTTP server's stream of events, read on the near side over one connection."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(FAR, HTTP_PORT, timeout=REPLY_WITHIN)
        self.connection.connect()

    def ask(self, prompt):
        # The file asks for no token before the prompt, so the form of model.toml is written out.
        asked = {"prompt": f"<|bos|><|user|>{prompt}<|assistant|>", "max_tokens": TOKENS_MAX, "stream": True}
        asked |= {"seed": SEED, "temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
        asked |= {"repeat_penalty": 1.0}
        body = json.dumps(asked).encode()
        begun = time.monotonic()
        self.connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        if answer.status != 200:
            raise Failed(f"the llama.cpp server: {answer.status} {answer.read(500)!r}")
        times = []
        while line := answer.readline():
            at = time.monotonic() - begun
            if line.startswith(b"data: {"):
                choice = json.loads(line[6:])["choices"][0]
                # An event for each token with text; the last one ends the reply, by a token or by its length.
                if choice["text"] or choice["finish_reason"] == "stop":
                    times.append(at)
        if not times:
            raise Failed("the llama.cpp server sent no token")
        return Reply(times[0], times[-1], len(times))

    def close(self):
        self.connection.close()
