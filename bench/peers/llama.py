"""A target on llama.cpp, one thread: the same file, logits for every token, many sessions in one batch.

`llama.py FILE [SHAPES]`, with shapes such as 1x1,8x4: sessions, and tokens of each.

llama.cpp's own calls, by the bindings' ctypes: one `llama_decode` of one `llama_batch` whose tokens belong to several
sequences, each with its own part of the cache, is what a ragged batch is there. Its cache is in 16 bits, ours in 32.
"""

import ctypes
import sys
from importlib import metadata

import llama_cpp as llama
import numpy as np
from common import PAST, case, repeat, report, tokens

SHAPES = ((1, 1), (1, 4), (1, 64), (8, 4), (32, 4))
CELLS = 256  # of cache for each session, as many as llama.cpp rounds up to
BATCH = 512


@llama.llama_log_callback
def quiet(_level, _text, _data):
    pass


def past(session):
    return PAST - session % 4


def context(model, sessions):
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = CELLS * sessions, sessions, False
    params.n_batch = params.n_ubatch = BATCH
    params.n_threads = params.n_threads_batch = 1
    return llama.llama_init_from_model(model, params)


def fill(batch, parts):
    """Puts (session, first position, tokens) parts into the batch, logits wanted for each token."""
    batch.n_tokens = 0
    for session, start, new in parts:
        for offset, token in enumerate(new):
            i = batch.n_tokens
            batch.token[i], batch.pos[i], batch.logits[i] = token, start + offset, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, session
            batch.n_tokens += 1


def measure(model, vocabulary, sessions, chunk):
    """One shape: each session is prompted, then extended and rolled back again and again."""
    engine = context(model, sessions)
    memory = llama.llama_get_memory(engine)
    batch = llama.llama_batch_init(BATCH, 0, 1)
    for session in range(sessions):
        fill(batch, [(session, 0, tokens(session, 0, past(session)))])
        assert llama.llama_decode(engine, batch) == 0
    fill(batch, [(s, past(s), tokens(s, past(s), past(s) + chunk)) for s in range(sessions)])

    def roll_back():
        for session in range(sessions):
            llama.llama_memory_seq_rm(memory, session, past(session), -1)

    def run():
        # The logits are read back too: it is that call that waits for them.
        assert llama.llama_decode(engine, batch) == 0
        return llama.llama_get_logits(engine)

    ms = repeat(roll_back, run)
    roll_back()
    rows = np.ctypeslib.as_array(run(), (sessions * chunk, vocabulary))
    found = case(sessions, chunk, ms, rows.argmax(-1).tolist())
    llama.llama_batch_free(batch)
    llama.llama_free(engine)
    return found


def main():
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(sys.argv[1].encode(), llama.llama_model_default_params())
    assert model, f"llama.cpp does not load {sys.argv[1]}"
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    shapes = SHAPES
    if len(sys.argv) > 2:
        shapes = [tuple(map(int, shape.split("x"))) for shape in sys.argv[2].split(",")]
    cases = [measure(model, vocabulary, *shape) for shape in shapes]
    report(f"llama.cpp (llama-cpp-python {metadata.version('llama-cpp-python')})", cases)


main()
