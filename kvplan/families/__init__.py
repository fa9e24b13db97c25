"""config.json -> layers and tensors: one small file per family of architectures, all pure.

``FAMILIES`` maps a config's ``model_type`` to ``module:function``; the module is imported when it is
needed. A function takes a Config and returns a Structure. An unknown type is an answer, not a guess.
"""

from collections.abc import Callable
from importlib import import_module

from kvplan.config import Config
from kvplan.errors import KvplanError, UnsupportedArchitecture
from kvplan.families.assumed import assumed_full_attention
from kvplan.families.class_defaults import with_class_defaults
from kvplan.families.registry import FAMILIES, TYPE_OF_ARCHITECTURE
from kvplan.layers import FullAttention
from kvplan.model import Structure

BFLOAT16_BYTES = 2

Family = Callable[[Config], Structure]


def family_of(model_type: str) -> Family | None:
    """Return the function that reads configs of ``model_type``, or None."""
    target = FAMILIES.get(model_type)
    if target is None:
        return None
    module, function = target.split(":")
    family: Family = getattr(import_module(f"kvplan.families.{module}"), function)
    return family


def type_of_class(name: str) -> str:
    """Return the model type that a class reads, or an empty string for a class nobody here knows."""
    from kvplan.families._class_names import TYPE_OF_CLASS

    return TYPE_OF_ARCHITECTURE.get(name) or TYPE_OF_CLASS.get(name, "")


def structure_of(config: Config, model_type: str) -> Structure:
    """Turn a config into layers and tensors.

    Raises UnsupportedArchitecture for a model type that no family reads, MissingFact and
    InvalidSpec for keys that are absent or cannot be.
    """
    family = family_of(model_type)
    if family is None:
        raise UnsupportedArchitecture(
            f"{config.origin or 'config'}: model type '{model_type}' is not one that kvplan knows",
            why=_recognised(config),
            hint="go on with --assume full-attention: an upper bound, with every number marked assumed",
        )
    structure = family(with_class_defaults(config, model_type))
    if (
        structure.kind == "decoder"
        and config.has("add_cross_attention")
        and config.flag("add_cross_attention")
    ):
        raise UnsupportedArchitecture(
            f"{config.origin or 'config'}: add_cross_attention on a decoder is not known",
            why="its layers would also look at, and cache, another model's output",
            hint="plan the encoder-decoder pair by its own config, or report the model",
        )
    return structure


def _recognised(config: Config) -> str:
    """Return what the standard keys say of a model nobody here knows, and what it can cache at most."""
    try:
        structure = assumed_full_attention(config)
    except KvplanError:
        return "its layers could cache anything, and a guess would be a silently wrong number"
    count, layer = structure.layers[0].count, structure.layers[0].layer
    (cache,) = layer.caches
    assert isinstance(cache, FullAttention)
    heads, size = cache.num_key_value_heads, cache.head_dim
    token_bytes = count * heads * 2 * size * BFLOAT16_BYTES
    return (
        f"recognised: {count} layers, {heads} KV heads × {size}; if none caches more than their keys and "
        f"values, at most {token_bytes:,} B a token in bf16; what its layers really cache is not known"
    )
