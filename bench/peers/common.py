"""What `crates/stand/benches/support` is to our programs: the same clock, repeats and tokens, the same line of JSON."""

import json
import time

PAST = 64
WARM_UP = 3
REPEATS_MIN, REPEATS_MAX = 7, 200
ENOUGH_S = 0.4


def token(session, position):
    return 5 + (position * 37 + session * 101) % 2000


def tokens(session, start, end):
    return [token(session, position) for position in range(start, end)]


def repeat(prepare, run):
    """Milliseconds of CPU time, all threads together, of each kept run; `prepare` is free."""
    kept, spent = [], 0.0
    for count in range(WARM_UP + REPEATS_MAX):
        prepare()
        started = time.process_time()
        run()
        took = time.process_time() - started
        if count >= WARM_UP:
            kept.append(took * 1e3)
            spent += took
        if len(kept) >= REPEATS_MIN and spent >= ENOUGH_S:
            break
    return kept


def case(sessions, chunk, ms, argmax):
    return {"sessions": sessions, "chunk": chunk, "ms": ms, "argmax": argmax}


def report(engine, cases):
    print(json.dumps({"engine": engine, "cases": cases}))
