"""Reading one family's config inside another's: the text model of a multimodal one."""

from importlib import import_module

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.class_defaults import with_class_defaults
from kvplan.families.registry import FAMILIES
from kvplan.model import Structure


def text_structure(config: Config, model_type: str) -> Structure:
    """Read a nested text config by its own family.

    Raises UnsupportedArchitecture for a text model that no family reads.
    """
    target = FAMILIES.get(model_type)
    if target is None:
        raise UnsupportedArchitecture(
            f"{config.origin}: text model type '{model_type}' is not one that kvplan knows",
            why="its layers could cache anything, and a guess would be a silently wrong number",
            hint="go on with --assume full-attention: an upper bound, with every number marked assumed",
        )
    module, function = target.split(":")
    structure: Structure = getattr(import_module(f"kvplan.families.{module}"), function)(
        with_class_defaults(config, model_type)
    )
    return structure
