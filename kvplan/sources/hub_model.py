"""A model on the Hub: its config and the headers of its weight files, or a GGUF file's header.

One request names the commit and the files; configs are downloaded (and cached) at that commit,
headers are read by range, in parallel. The revision that answered is pinned in the model.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from kvplan.errors import HubError, InvalidValue
from kvplan.model import ModelSpec, StoredTensor
from kvplan.sources.checkpoint import with_checkpoint
from kvplan.sources.config_model import model_from_config
from kvplan.sources.files import (
    INDEX_NAME,
    SHARD_NAME,
    SINGLE_NAME,
    files_of_index,
    gguf_choices,
    quant_of,
)
from kvplan.sources.gguf import joined, read_gguf, split_names
from kvplan.sources.gguf_model import model_from_gguf
from kvplan.sources.hub import NAME_ANOTHER, Listing, Place, byte_source, download, listing_of
from kvplan.sources.local import MAX_INDEX_BYTES, read_mapping, read_text
from kvplan.sources.safetensors import read_safetensors

NUM_CONNECTIONS = 16
# More shards than any model has: a repository with more is read by its config alone.
MAX_SHARDS = 512
_REF = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+\.gguf))?(?::(?P<quant>[\w.-]+))?(?:@(?P<revision>.+))?",
    re.ASCII,
)


def place_of(ref: str) -> Place | None:
    """Read ``org/repo[@revision]``, ``org/repo:QUANT`` or ``org/repo/file.gguf``; None for others."""
    match = _REF.fullmatch(ref)
    if match is None:
        return None
    return Place(match["repo"], match["file"], match["quant"], match["revision"])


def open_hub(ref: str, *, offline: bool = False, assume: str | None = None) -> ModelSpec:
    """Open what ``ref`` names on the Hub.

    Raises HubError when the Hub cannot answer or has no such model, InvalidValue where the
    repository holds several GGUF models and none is named.
    """
    place = place_of(ref)
    if place is None:
        raise HubError(
            f"'{ref[:80]}' is not a model's name on the Hub",
            why="names look like org/repo, org/repo@revision or org/repo:Q4_K_M",
            hint="check the spelling, or see: kvplan list models",
        )
    listing = listing_of(place, offline=offline)
    choices = gguf_choices(listing.names)
    has_weights = any(name.endswith((".safetensors", ".bin", ".pt")) for name in listing.names)
    if place.file or place.quant or (choices and not (has_weights and "config.json" in listing.names)):
        return _gguf(listing, choices, assume)
    return _from_config(listing, assume)


def _from_config(listing: Listing, assume: str | None) -> ModelSpec:
    place = listing.place
    if "config.json" not in listing.names:
        raise HubError(f"{place.repo} {_no_config(listing.names)}", why=_WITHOUT, hint=NAME_ANOTHER)
    data = _json(listing, "config.json")
    quantization = None
    if "quantization_config" not in data and "hf_quant_config.json" in listing.names:
        quantization = _json(listing, "hf_quant_config.json")
    model = model_from_config(
        data,
        name=place.repo,
        source=f"huggingface:{place.repo}",
        repo=place.repo,
        revision=listing.commit,
        assume=assume,
        quantization_data=quantization,
    )
    try:
        tensors = _tensors(listing)
    except HubError as error:
        why = f"the checkpoint's headers could not be read ({error.why}): weights follow the config"
        if model.quantization is None:
            return replace(model, notes=(*model.notes, why))
        return replace(model, assumptions=(*model.assumptions, why))
    return with_checkpoint(model, tensors) if tensors else model


_WITHOUT = "without a config.json the model cannot be sized"


def _no_config(names: Sequence[str]) -> str:
    if "adapter_config.json" in names:
        return "is an adapter, not a model"
    if "model_index.json" in names:
        return "is a diffusion pipeline, not a language model"
    return "has no config.json and no GGUF file"


def _tensors(listing: Listing) -> tuple[StoredTensor, ...]:
    names = listing.names
    if SINGLE_NAME in names:
        files: tuple[str, ...] = (SINGLE_NAME,)
    else:
        files = tuple(
            sorted(name for name in names if name.startswith("model-") and SHARD_NAME.fullmatch(name))
        )
        if (not files or len(files) != _promised(files[0])) and INDEX_NAME in names:
            files = files_of_index(
                _json(listing, INDEX_NAME, MAX_INDEX_BYTES), f"{listing.place.repo}/{INDEX_NAME}"
            )
    if not files or len(files) > MAX_SHARDS or (listing.offline and not set(files) <= set(names)):
        return ()

    def read(name: str) -> tuple[StoredTensor, ...]:
        return read_safetensors(byte_source(listing, name), f"{listing.place.repo}/{name}")

    with ThreadPoolExecutor(max_workers=NUM_CONNECTIONS) as pool:
        return tuple(tensor for tensors in pool.map(read, files) for tensor in tensors)


def _promised(shard: str) -> int:
    return int(shard.removesuffix(".safetensors").rpartition("-")[2])


def _gguf(listing: Listing, choices: tuple[str, ...], assume: str | None) -> ModelSpec:
    place = listing.place
    name = _chosen(place, choices)
    origin = f"{place.repo}/{name}"
    parts = split_names(name)
    missing = next((part for part in parts if part not in listing.names), None)
    if missing is not None:
        raise HubError(f"{place.repo} has no {missing}", why="a part of a split model", hint=NAME_ANOTHER)
    with ThreadPoolExecutor(max_workers=NUM_CONNECTIONS) as pool:
        headers = tuple(
            pool.map(lambda part: read_gguf(byte_source(listing, part), f"{place.repo}/{part}"), parts)
        )
    return model_from_gguf(
        joined(headers, origin),
        name=f"{place.repo}:{quant_of(name)}",
        source=f"huggingface:{origin}",
        origin=origin,
        repo=place.repo,
        revision=listing.commit,
        assume=assume,
    )


def _chosen(place: Place, choices: tuple[str, ...]) -> str:
    if place.file:
        return place.file
    wanted = (place.quant or "").casefold()
    fitting = tuple(name for name in choices if not wanted or quant_of(name).casefold() == wanted)
    if len(fitting) == 1:
        return fitting[0]
    quants = tuple(dict.fromkeys(quant_of(name) for name in choices))
    if not quants:
        raise HubError(
            f"{place.repo} has no GGUF files",
            why="its weights are in another form",
            hint=f"name it as {place.repo}",
        )
    if fitting and wanted:
        quants = fitting
    listed = ", ".join(quants[:12]) + (" …" if len(quants) > 12 else "")
    spelled = f"{place.repo}/{fitting[0]}" if wanted and fitting else f"{place.repo}:{quants[0]}"
    raise InvalidValue(
        f"{place.repo} holds {len(quants)} GGUF models" + (f", none is {place.quant}" if not fitting else ""),
        why=f"they are {listed}",
        hint=f"name one: {spelled}",
    )


def _json(listing: Listing, name: str, at_most: int | None = None) -> Mapping[str, object]:
    path = download(listing, name, names_commit=name == "config.json")
    text = read_text(path) if at_most is None else read_text(path, at_most)
    return read_mapping(text, f"{listing.place.repo}/{name}")
