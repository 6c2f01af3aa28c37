"""Processes and their memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

# Seconds in which a server is ready, and between two looks at a process's memory.
READY_S, WATCH_S = 900, 0.02


class Failure(Exception):
    """A program failed; the words say which and how."""


def last_words(path):
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


class Process:
    """A process whose standard error goes to a file; `peak_mib` is known when it has ended."""

    def __init__(self, command, log, environment=None):
        self.log, self.name, self.peak_mib = log, Path(command[0]).name, 0
        with log.open("w") as errors:
            self.child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | (environment or {})
            )
        # What the system says when a process has ended includes the memory of the one that started it.
        self.watch = threading.Thread(target=self.watch_peak, daemon=True)
        self.watch.start()

    def watch_peak(self):
        while peak := self.status_mib("VmHWM"):
            self.peak_mib = peak
            time.sleep(WATCH_S)

    def status_mib(self, key):
        """A figure of the running process; None when it has ended."""
        try:
            lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), None)

    def memory_mib(self):
        """The memory that it has now."""
        return self.status_mib("VmRSS")

    def is_alive(self):
        return self.child.poll() is None

    def finish(self):
        """Waits for the end; the standard output."""
        text, _ = self.child.communicate()
        self.watch.join()
        if self.child.returncode:
            raise Failure(f"{self.name} failed: {last_words(self.log)} (log: {self.log})")
        return text

    def end(self):
        """Ends it as a service is ended."""
        self.child.send_signal(signal.SIGTERM)
        return self.finish()


def run(command, log, environment=None):
    """A program's standard output, and its peak of memory in MiB."""
    process = Process(command, log, environment)
    return process.finish(), process.peak_mib


def wait_for(path, process):
    """Waits for a file that a server writes when it is ready; what it says."""
    until = time.monotonic() + READY_S
    while not path.exists():
        if not process.is_alive():
            raise Failure(f"{process.name} ended: {last_words(process.log)} (log: {process.log})")
        if time.monotonic() > until:
            process.end()
            raise Failure(f"{process.name} was not ready after {READY_S} s (log: {process.log})")
        time.sleep(0.2)
    return path.read_text().strip()


class Progress:
    """A line that says how far a step is: rewritten on a terminal, else one at each quarter."""

    def __init__(self, words):
        self.words, self.quarter, self.is_terminal = words, 0, sys.stdout.isatty()

    def __call__(self, done, total):
        if self.is_terminal:
            print(f"\r  {self.words}: {done >> 20} of {total >> 20} MiB\x1b[K", end="", flush=True)
            if done == total:
                print(flush=True)
        elif done * 4 // total > self.quarter:
            self.quarter = done * 4 // total
            print(f"  {self.words}: {self.quarter * 25} % of {total >> 20} MiB", flush=True)
