"""A model's config with fewer layers and narrower insides, its caches per layer unchanged.

What decides a layer's cache stays: heads, head sizes, windows, states. What does not is made small
(vocabulary, MLP, experts), so that a random model of it is built in seconds.
"""

from collections.abc import Mapping

from kvplan.model import ModelSpec, expand_layers, num_layers

MAX_LAYERS = 12
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
SMALL: dict[str, int] = {
    "vocab_size": 1024,
    "intermediate_size": 256,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
DROPPED = ("pad_token_id", "bos_token_id", "eos_token_id", "quantization_config")


def layers_needed(model: ModelSpec) -> int:
    """Return the shortest run of first layers that has every kind of layer, at most MAX_LAYERS."""
    kinds = {layer.caches for layer in expand_layers(model)}
    seen: set[object] = set()
    for index, layer in enumerate(expand_layers(model)):
        seen.add(layer.caches)
        if len(seen) == len(kinds):
            return min(index + 1, MAX_LAYERS)
    return min(num_layers(model.structure), MAX_LAYERS)


def reduced(config: Mapping[str, object], whole_layers: int, kept_layers: int) -> dict[str, object]:
    """Return the config with ``kept_layers``: lists with one entry a layer are cut as well."""
    small: dict[str, object] = {}
    for key, value in config.items():
        if key in DROPPED:
            continue
        if key in LAYER_COUNTS:
            small[key] = kept_layers
        elif key in SMALL and isinstance(value, int):
            small[key] = min(value, SMALL[key])
        elif isinstance(value, Mapping):
            small[key] = reduced(value, whole_layers, kept_layers)
        elif isinstance(value, list | tuple | str) and whole_layers > 1 and len(value) == whole_layers:
            small[key] = value[:kept_layers]
        else:
            small[key] = value
    return small
