"""A model of transformers as an ONNX file with a key/value cache, in the form that the exporters of model hubs write."""

import inspect
import warnings

import torch
from transformers.cache_utils import DynamicCache


class WithCache(torch.nn.Module):
    """`input_ids [1 × S]` and the caches `[1 × heads × P × dim]` to logits `[1 × S × V]` and the caches with S more."""

    def __init__(self, model, layers):
        super().__init__()
        self.model, self.layers = model, layers
        self.has_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.window = getattr(model.config, "sliding_window", None)
        self.kinds = getattr(model.config, "layer_types", None)

    def forward(self, input_ids, *caches):
        past, new = caches[0].shape[2], input_ids.shape[1]
        # Without a configuration the cache keeps everything: the window is in the mask.
        cache = DynamicCache()
        for layer in range(self.layers):
            cache.update(caches[2 * layer], caches[2 * layer + 1], layer)
        given = {"input_ids": input_ids, "past_key_values": cache, "use_cache": True}
        if self.has_positions:
            given["position_ids"] = torch.arange(past, past + new)[None]
            given["attention_mask"] = self.masks(past, new)
        else:
            # Such a model counts its positions from the tokens that the mask lets it see.
            given["attention_mask"] = torch.ones(1, past + new, dtype=torch.long)
        out = self.model(**given)
        outputs = [out.logits]
        for layer in out.past_key_values.layers[: self.layers]:
            outputs += [layer.keys, layer.values]
        return tuple(outputs)

    def masks(self, past, new):
        query, key = torch.arange(past, past + new)[:, None], torch.arange(past + new)[None, :]
        hidden = torch.finfo(torch.float32).min
        whole = torch.where(key <= query, 0.0, hidden)[None, None]
        if not self.window:
            return whole
        near = torch.where((key <= query) & (key > query - self.window), 0.0, hidden)[None, None]
        if not self.kinds:
            return near
        return {"full_attention": whole, "sliding_attention": near}


def export(model, file):
    """Writes `file`.

    # Errors
    Whatever torch raises for a model that it can't trace.
    """
    sample = model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    caches = [tensor.clone() for layer in sample.layers for tensor in (layer.keys, layer.values)]
    layers = len(sample.layers)
    names = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    pasts, presents = [f"past_key_values.{name}" for name in names], [f"present.{name}" for name in names]
    axes = {"input_ids": {1: "S"}, "logits": {1: "S"}}
    axes |= {name: {2: "P"} for name in pasts} | {name: {2: "T"} for name in presents}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            WithCache(model, layers),
            (torch.tensor([[4, 5, 6, 7]]), *caches),
            str(file),
            dynamo=False,
            input_names=["input_ids", *pasts],
            output_names=["logits", *presents],
            dynamic_axes=axes,
            opset_version=17,
        )
