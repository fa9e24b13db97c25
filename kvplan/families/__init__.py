"""config.json -> layers and tensors: one small file per family of architectures, all pure.

``FAMILIES`` maps a config's ``model_type`` to ``module:function``; the module is imported when it is
needed. A function takes a Config and returns a Structure. An unknown type is an answer, not a guess.
"""

from collections.abc import Callable
from importlib import import_module

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.class_defaults import with_class_defaults
from kvplan.families.registry import FAMILIES, TYPE_OF_ARCHITECTURE
from kvplan.model import Structure

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
            why="its layers could cache anything, and a guess would be a silently wrong number",
            hint="go on with --assume full-attention: an upper bound, with every number marked assumed",
        )
    return family(with_class_defaults(config, model_type))
