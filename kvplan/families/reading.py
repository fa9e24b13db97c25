"""Reading one family's config inside another's: the text model of a multimodal one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module

from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.class_defaults import with_class_defaults
from kvplan.families.registry import FAMILIES
from kvplan.model import Structure
from kvplan.tensors import Tensor

Projector = Callable[[Config, Config, int], tuple[Tensor, ...]]
"""From the outer config, the tower's and the text model's width to what joins the two."""


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


def parts(
    config: Config, text_key: str = "text_config", seen_key: str = "vision_config"
) -> tuple[Config, Config]:
    """Return the nested text and tower configs. Raises InvalidSpec naming the one that is missing."""
    text, seen = config.sub(text_key), config.sub(seen_key)
    if text is None or seen is None:
        raise config.invalid(text_key if text is None else seen_key, "is missing")
    return text, seen


def joined(
    config: Config,
    text_type: str,
    tower: Callable[[Config], tuple[Tensor, ...]],
    projector: Projector,
    *,
    tied: bool,
    text_defaults: Mapping[str, object] | None = None,
    vision_defaults: Mapping[str, object] | None = None,
    seen_key: str = "vision_config",
    tied_by_text: bool = False,
) -> Structure:
    """Join the parts; the outer config ties the head, ``tied`` being the outer class's default.

    With ``tied_by_text`` the inner one does too, as in classes whose first files said it there.
    """
    text, seen = parts(config, seen_key=seen_key)
    kind = text.text("model_type", text_type)
    if kind == text_type and text_defaults:
        text = text.with_defaults(text_defaults)
    if vision_defaults:
        seen = seen.with_defaults(vision_defaults)
    is_tied = config.flag("tie_word_embeddings", tied)
    if tied_by_text:
        is_tied = is_tied or text.flag("tie_word_embeddings", False)
    structure = text_structure(text.override({"tie_word_embeddings": is_tied}), kind)
    between = as_vision(projector(config, seen, structure.hidden_size), "projector")
    return replace(structure, tensors=(*structure.tensors, *tower(seen), *between))
