"""The demo drafter on onnxruntime, one thread: the same file, the same outputs, the cache as inputs and outputs."""

import sys

import numpy as np
import onnxruntime
from common import PAST, case, repeat, report, tokens

CHUNKS = (1, 4, 64)


def load(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds(session, cache, new):
    """Inputs for `new` tokens after those in `cache`, which is None for none."""
    names = [node for node in session.get_inputs() if node.name.startswith("past_key_values.")]
    if cache is None:
        cache = [np.zeros((1, node.shape[1], 0, node.shape[3]), np.float32) for node in names]
    past, wanted = cache[0].shape[2], {node.name for node in session.get_inputs()}
    inputs = {
        "input_ids": np.array([new]),
        "attention_mask": np.ones((1, past + len(new)), np.int64),
        "position_ids": np.arange(past, past + len(new))[None],
    }
    inputs = {name: value for name, value in inputs.items() if name in wanted}
    return inputs | {node.name: value for node, value in zip(names, cache)}


def main():
    session = load(sys.argv[1])
    names = [node.name for node in session.get_inputs() if node.name.startswith("past_key_values.")]
    present = [name.replace("past_key_values.", "present.") for name in names]
    extra = [node.name for node in session.get_outputs() if node.name == "attention"]
    outputs = ["logits", *present, *extra]
    cache = session.run(present, feeds(session, None, tokens(0, 0, PAST)))
    cases = []
    for chunk in CHUNKS:
        inputs, rows = feeds(session, cache, tokens(0, PAST, PAST + chunk)), []
        ms = repeat(lambda: None, lambda: rows.append(session.run(outputs, inputs)[0][0]))
        cases.append(case(1, chunk, ms, rows[-1].argmax(-1).tolist()))
    report(f"onnxruntime {onnxruntime.__version__}", cases)


main()
