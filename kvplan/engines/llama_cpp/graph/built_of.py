"""Which layers an architecture's own graph is built of; a file or a config may hold others."""

from collections.abc import Callable, Sequence

from kvplan.engines.llama_cpp.graph.shapes import Attention, Latent, LayerShape
from kvplan.layers import RwkvState


def _attends(layer: LayerShape) -> bool:
    return isinstance(layer.attention, Attention)


def _attends_by_latents(layer: LayerShape) -> bool:
    return isinstance(layer.attention, Latent)


def _attends_and_feeds(layer: LayerShape) -> bool:
    return _attends(layer) and layer.mlp is not None


def _attends_or_keeps_state(layer: LayerShape) -> bool:
    return layer.state is not None or _attends(layer)


def _mixes_time(layer: LayerShape) -> bool:
    return isinstance(layer.state, RwkvState)


def _mixes_time_and_feeds(layer: LayerShape) -> bool:
    return _mixes_time(layer) and layer.mlp is not None


BUILT_OF: dict[str, Callable[[LayerShape], bool]] = {
    "arctic": _attends,
    "bert": _attends,
    "deepseek32": _attends_by_latents,
    "gemma3n": _attends,
    "gemma4": _attends_and_feeds,
    "glm-dsa": _attends_by_latents,
    "jina-bert-v2": _attends,
    "jina-bert-v3": _attends,
    "nomic-bert": _attends,
    "nomic-bert-moe": _attends,
    "plamo2": _attends_or_keeps_state,
    "rwkv6": _mixes_time,
    "rwkv6qwen2": _mixes_time_and_feeds,
    "rwkv7": _mixes_time,
    "arwkv7": _mixes_time_and_feeds,
}
# The first layer chooses the cells that those without an indexer see.
INDEXED_FIRST = frozenset(("deepseek32", "glm-dsa"))


def is_built_of(arch: str, layers: Sequence[LayerShape]) -> bool:
    """Tell whether an architecture's graph can be built of these layers."""
    first = layers[0].attention if layers else None
    if arch in INDEXED_FIRST and not (isinstance(first, Latent) and first.index_dim):
        return False
    takes = BUILT_OF.get(arch)
    return takes is None or all(takes(layer) for layer in layers)
