"""The model that drafts for another, opened where it can be."""

from dataclasses import replace

from kvplan.errors import KvplanError
from kvplan.model import ModelSpec
from kvplan.sources import open_model


def with_draft(model: ModelSpec, ref: str, *, offline: bool = False) -> ModelSpec:
    """Return ``model`` with the draft that ``ref`` names. Raises KvplanError as opening it does."""
    return replace(model, draft=open_model(ref, offline=offline))


def with_known_draft(model: ModelSpec, ref: str) -> ModelSpec:
    """Return ``model`` with the draft an engine's flags name, as it is where that is not at hand.

    A path may be the server's own and a name a head that is no model: neither is asked of the Hub.
    """
    try:
        return with_draft(model, ref, offline=True)
    except KvplanError:
        return model
