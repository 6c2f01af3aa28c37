"""A folder of Hugging Face as a GGUF file, written by llama.cpp's own converter, which is in the source package of
llama-cpp-python: the folder of llama.cpp and its `gguf-py` must be in PYTHONPATH."""

import logging

import conversion
import gguf
import torch


def convert(source, target, keys):
    """Writes the model of the folder `source` to the file `target`, and `keys` (after the architecture's name) with it.

    The converter knows a tokenizer by its digest. Ours is too small to be known, so its name is given: GPT-2's.
    """
    for name in ["hf-to-gguf", "gguf", "gguf.gguf_writer", "gguf.vocab"]:
        logging.getLogger(name).setLevel(logging.ERROR)
    hparams = conversion.ModelBase.load_hparams(source, False)
    name = conversion.get_model_architecture(hparams, conversion.ModelType.TEXT)
    kind = conversion.get_model_class(name)
    # Mistral 3's class only chooses between two others.
    kind = getattr(kind, "Ministral3Model", kind)
    changed = {"set_vocab": kind._set_vocab_gpt2, "get_vocab_base_pre": lambda *_: "gpt-2"}
    named = type(kind.__name__, (kind,), {"model_arch": kind.model_arch, **changed})
    with torch.inference_mode():
        model = named(source, gguf.LlamaFileType.ALL_F32, target)
        for key, value in keys.items():
            model.gguf_writer.add_uint32(f"{model.gguf_writer.arch}.{key}", value)
        model.write()
