"""The rows of each list, gathered from the tables they come from."""

from collections.abc import Iterator, Mapping, Sequence

from kvplan.errors import (
    InputError,
    UnknownEngine,
    UnknownFormat,
    UnknownGpu,
    UnknownModel,
    did_you_mean,
)
from kvplan.report.answer import ListAnswer

COLUMNS: dict[str, tuple[str, ...]] = {
    "models": ("id", "parameters", "active", "context", "layout", "weights", "repo"),
    "gpus": ("id", "memory", "usable", "bandwidth", "architecture", "source"),
    "formats": ("name", "for", "about", "aliases"),
    "engines": ("name", "version", "kv formats", "about"),
}

# What a row of each list is called, and the error for a name that is none.
NAMED: dict[str, str] = {"models": "model", "gpus": "GPU", "formats": "format", "engines": "engine"}
UNKNOWN: dict[str, type[InputError]] = {
    "models": UnknownModel,
    "gpus": UnknownGpu,
    "formats": UnknownFormat,
    "engines": UnknownEngine,
}


def listing(what: str, words: tuple[str, ...]) -> ListAnswer:
    """Return the rows of ``what`` whose text has every word of the filter.

    Raises InputError where none has, with the name that may have been meant.
    """
    entries = list({"models": _models, "gpus": _gpus, "formats": _formats, "engines": _engines}[what]())
    wanted = [word.casefold() for word in words]
    kept = [entry for entry in entries if all(word in _text(entry) for word in wanted)]
    if not kept:
        raise nothing_matches(what, words, entries)
    columns = COLUMNS[what]
    rows = tuple(tuple(entry.get(column.replace(" ", "_"), "") for column in columns) for entry in kept)
    return ListAnswer(what, columns, rows, tuple(kept))


def nothing_matches(what: str, words: Sequence[str], entries: Sequence[Mapping[str, object]]) -> InputError:
    """Return the error for a filter that leaves nothing, about the word that nothing has."""
    texts = [_text(entry) for entry in entries]
    missing = next((word for word in words if not any(word.casefold() in text for text in texts)), "")
    names = [str(entry.get("id") or entry.get("name")) for entry in entries]
    together = f"each of {', '.join(words)} is in some, none has all of them"
    why = did_you_mean(missing, names) or f"no {NAMED[what]} has '{missing}' in its name or facts"
    return UNKNOWN[what](
        f"no {NAMED[what]} matches '{' '.join(words)}'",
        why=why if missing else together,
        hint=f"see all: kvplan list {what}",
    )


def _text(entry: Mapping[str, object]) -> str:
    return " ".join(str(value) for value in entry.values()).casefold()


def _models() -> Iterator[Mapping[str, object]]:
    from kvplan.model import num_active_parameters, num_parameters
    from kvplan.report.layout import layout_text
    from kvplan.sources.catalog import entries, model_from_spec

    for spec in entries():
        model = model_from_spec(spec)
        yield {
            "id": model.name,
            "parameters": num_parameters(model.structure),
            "active": num_active_parameters(model.structure),
            "context": model.context_limit_tokens,
            "layout": layout_text(model),
            "weights": model.weights_format,
            "repo": model.repo,
            "aliases": spec["aliases"],
        }


def _gpus() -> Iterator[Mapping[str, object]]:
    from kvplan.hardware.catalog import catalogue

    for device in catalogue():
        yield {
            "id": device.name,
            "memory": device.memory_bytes,
            "usable": device.usable_bytes,
            "usable_basis": device.usable_basis,
            "bandwidth": device.bandwidth_bytes_per_second,
            "architecture": device.architecture,
            "source": device.source,
        }


def _formats() -> Iterator[Mapping[str, object]]:
    from kvplan.kv_formats import KV_FORMATS
    from kvplan.weight_formats import GGUF_MIXES, WEIGHT_FORMATS, weight_format

    for weight in WEIGHT_FORMATS.values():
        yield {
            "name": weight.name,
            "for": "weights",
            "about": weight.about,
            "aliases": " ".join(weight.aliases),
        }
    for mix in GGUF_MIXES:
        yield {"name": mix, "for": "weights (GGUF)", "about": weight_format(mix).about, "aliases": ""}
    for kv in KV_FORMATS.values():
        yield {"name": kv.name, "for": "KV cache", "about": kv.about, "aliases": " ".join(kv.aliases)}


def _engines() -> Iterator[Mapping[str, object]]:
    from kvplan.engines import ENGINES, engine_named

    for name in ENGINES:
        engine = engine_named(name)
        yield {
            "name": engine.name,
            "version": engine.version,
            "versions": list(engine.versions),
            "kv_formats": " ".join(engine.kv_formats),
            "about": engine.about,
        }
