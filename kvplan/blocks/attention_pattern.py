"""Which layers attend to everything and which to a window: the spellings that configs use.

``layer_types`` names each layer; older files give a window and a rule (``sliding_window_pattern``,
``use_sliding_window`` with ``max_window_layers``). A layer type that is not known raises, because
its cache could be anything. Source: transformers 5.23 models/*/configuration_*.py.
"""

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture

FULL = "full_attention"
SLIDING = "sliding_attention"
CHUNKED = "chunked_attention"

# Older spellings that transformers 5.23 renames (configuration_utils.py).
RENAMED = {"attention": FULL}


def layer_types(
    config: Config, num_layers: int, known: tuple[str, ...] = (FULL, SLIDING)
) -> tuple[str, ...] | None:
    """Return ``layer_types`` where the config lists them, each one of ``known``.

    Raises UnsupportedArchitecture naming the first layer type that is not.
    """
    listed = config.per_layer("layer_types", num_layers)
    if listed is None:
        return None
    kinds = tuple(RENAMED.get(kind, kind) for kind in listed)
    for kind in kinds:
        if kind not in known:
            raise unknown_layer_type(config, kind)
    return kinds


def unknown_layer_type(config: Config, kind: str) -> UnsupportedArchitecture:
    """Return the error for a layer type nobody here knows."""
    return UnsupportedArchitecture(
        f"{config.origin or config.architecture}: layer type '{kind}' is not known",
        why="its layers could cache anything, and a guess would be a silently wrong number",
        hint="go on with --assume full-attention, or report the model",
    )


def every_nth_full(num_layers: int, pattern: int) -> tuple[str, ...]:
    """Return the pattern of Gemma-3 and Cohere2: each ``pattern``-th layer is full, the rest slide."""
    return tuple(FULL if (index + 1) % pattern == 0 else SLIDING for index in range(num_layers))


def alternating(num_layers: int) -> tuple[str, ...]:
    """Return the pattern of Gemma-2 and gpt-oss: a sliding layer, a full one, and so on."""
    return tuple(SLIDING if index % 2 == 0 else FULL for index in range(num_layers))


def marked(num_layers: int, marks: str) -> tuple[str, ...]:
    """Return EXAONE-4's pattern: ``LLLG`` repeated; G is full, and so is the last layer.

    Source: LGAI-EXAONE/EXAONE-4.0-32B config.json and its modeling file.
    """
    return tuple(
        FULL if marks[index % len(marks)] == "G" or index == num_layers - 1 else SLIDING
        for index in range(num_layers)
    )


def first_of_every(num_layers: int, pattern: int) -> tuple[str, ...]:
    """Return CWM's pattern: layers 0, ``pattern``, 2 x ``pattern`` … are full, the rest slide."""
    return tuple(FULL if index % pattern == 0 else SLIDING for index in range(num_layers))


def windowed(config: Config, num_layers: int) -> tuple[str, ...]:
    """Return ``layer_types``, or a window on every layer if the config names one (Mistral, Phi-3).

    ``use_sliding_window: false`` switches the window off, as vLLM 0.33 has it (config/model.py).
    """
    kinds = layer_types(config, num_layers)
    if kinds is not None:
        return kinds
    slides = config.has("sliding_window") and config.flag("use_sliding_window", True)
    return (SLIDING if slides else FULL,) * num_layers


def switched_window(config: Config, num_layers: int, default_max_window_layers: int) -> tuple[str, ...]:
    """Return Qwen's pattern: windows only with ``use_sliding_window``, from ``max_window_layers`` on.

    transformers 5.23 models/qwen2/configuration_qwen2.py: layer i slides when a window is set and
    i >= max_window_layers.
    """
    if not config.flag("use_sliding_window", False) or not config.has("sliding_window"):
        return (FULL,) * num_layers
    first = config.integer("max_window_layers", default_max_window_layers)
    return tuple(SLIDING if index >= first else FULL for index in range(num_layers))


def window_of(config: Config, kinds: tuple[str, ...], default: int | None = None) -> int:
    """Return the window's length where any of ``kinds`` slides, else 0."""
    if SLIDING not in kinds:
        return 0
    return config.positive("sliding_window", default)
