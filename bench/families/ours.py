"""Our ids, from the example `ids` of crates/lm: one request and one answer a line, in JSON."""

import json
import subprocess


def answers(program, requests):
    """The answers to `requests`, in their order.

    # Errors
    The program ends early, which a file's content must never make it do.
    """
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run([program], input=lines, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(found) != len(requests):
        raise SystemExit(f"{program} ended with {done.returncode} after {len(found)} of {len(requests)}:\n{done.stderr[-2000:]}")
    return found
