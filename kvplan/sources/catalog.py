"""The bundled models: one YAML file each, found by id, Hub id, Ollama tag or short name.

Parsing YAML costs more than planning, so ``index.jsonl`` ships beside the files: its first line
maps every name to a line, every other line is one spec as JSON. ``python -m kvplan.sources.catalog``
writes it; a test holds the two in step. The folder lies inside the package in a wheel and beside it
in a checkout.
"""

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvplan.errors import InputError, UnknownFormat, UnknownModel, did_you_mean, reason_of
from kvplan.model import ModelSpec
from kvplan.sources.config_model import model_from_config

INDEX_NAME = "index.jsonl"


@lru_cache(maxsize=1)
def specs_folder() -> Path:
    """Return the folder of bundled specs. Raises InputError when the installation lacks it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "model_specs", package.parent / "model_specs"):
        if (folder / INDEX_NAME).is_file():
            return folder
    raise InputError(
        "the bundled model specs are missing",
        why=f"neither {package / 'model_specs'} nor the folder beside the package has {INDEX_NAME}",
        hint="reinstall kvplan: pip install --force-reinstall kvplan",
    )


def normalise(name: str) -> str:
    """Return a model name as it is looked up: case, underscores and blanks do not matter."""
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


@lru_cache(maxsize=1)
def _index() -> tuple[dict[str, int], list[str]]:
    lines = (specs_folder() / INDEX_NAME).read_text(encoding="utf-8").splitlines()
    names: dict[str, int] = json.loads(lines[0])
    return names, lines


def user_specs() -> dict[str, Path]:
    """Return the specs in the user's own folder (``KVPLAN_SPECS``), by file stem."""
    folder = os.environ.get("KVPLAN_SPECS")
    if not folder:
        return {}
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(
            f"KVPLAN_SPECS: {folder} is not a folder",
            why="it should hold model specs, one YAML file each",
            hint="unset KVPLAN_SPECS, or create the folder",
        )
    return {normalise(file.stem): file for file in sorted(path.glob("*.yaml"))}


def find(name: str) -> ModelSpec | None:
    """Return the bundled (or user's own) model of that name, or None."""
    key = normalise(name)
    own = user_specs().get(key)
    if own is not None:
        return model_from_spec_file(own)
    names, lines = _index()
    line = names.get(key)
    return None if line is None else model_from_spec(json.loads(lines[line]))


def known_names() -> tuple[str, ...]:
    """Return every name that ``find`` knows, aliases included."""
    return (*_index()[0], *user_specs())


def unknown_model(name: str) -> UnknownModel:
    """Return the error for a name that is nothing we know."""
    head, colon, said = name.rpartition(":")
    if colon and find(head) is not None and _is_format(said):
        return UnknownModel(
            f"unknown model '{name}'",
            why=f"{head} is a model, {said} a format of its weights",
            hint=f"write it like: kvplan fit {head} --weights {said}",
        )
    why = did_you_mean(normalise(name), known_names())
    return UnknownModel(
        f"unknown model '{name}'",
        why=why or "it is no bundled model, no file or folder here, and no org/repo",
        hint=f"see: kvplan list models {normalise(name).split('-')[0][:12]}".rstrip(),
    )


def _is_format(name: str) -> bool:
    from kvplan.weight_formats import weight_format

    try:
        return bool(weight_format(name))
    except UnknownFormat:
        return False


def aliases_of(name: str) -> tuple[str, ...]:
    """Return the other names of a bundled model, empty for any other."""
    names, lines = _index()
    line = names.get(normalise(name))
    if line is None:
        return ()
    spec = json.loads(lines[line])
    return tuple(dict.fromkeys(other for other in (spec.get("repo"), *spec["aliases"]) if other))


def entries() -> Iterator[dict[str, Any]]:
    """Yield every bundled spec as plain data, by id."""
    for line in _index()[1][1:]:
        yield json.loads(line)


def model_from_spec(spec: dict[str, Any]) -> ModelSpec:
    """Turn one spec (as plain data) into a model."""
    assumptions: tuple[str, ...] = ()
    if spec.get("context_basis") == "assumed":
        assumptions = ("context limit from a converted preset, not from the published file",)
    return model_from_config(
        spec["config"],
        name=spec["id"],
        source=spec["source"],
        repo=spec.get("repo"),
        revision=spec.get("revision"),
        published_total=spec.get("published_total"),
        published_relation=spec.get("published_relation") or "",
        longer_context=spec.get("longer_context") or "",
        notes=assumptions,
    )


def model_from_spec_file(path: Path) -> ModelSpec:
    """Read and check one spec file. Raises InvalidSpec for anything that is not one."""
    return model_from_spec(read_spec(path))


def read_spec(path: Path) -> dict[str, Any]:
    """Read and check one spec file, strictly."""
    from kvplan.sources.schema import validate_spec
    from kvplan.sources.yaml_text import load_yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {path}", why=reason_of(error), hint="check the path and its permissions"
        ) from None
    return validate_spec(load_yaml(text, str(path)), str(path)).model_dump(exclude_none=True)


def build_index(folder: Path) -> str:
    """Return the text of ``index.jsonl`` for the YAML files in ``folder``.

    Raises InputError when two specs claim one name.
    """
    names: dict[str, int] = {}
    lines: list[str] = []
    for number, path in enumerate(sorted(folder.glob("*.yaml")), start=1):
        spec = read_spec(path)
        for name in (spec["id"], spec.get("repo") or spec["id"], *spec["aliases"]):
            key = normalise(name)
            if names.setdefault(key, number) != number:
                raise InputError(
                    f"{path.name}: '{name}' is another spec's name already",
                    why="a name must lead to one model",
                    hint="drop it from one of the two",
                )
        lines.append(json.dumps(spec, ensure_ascii=False, separators=(",", ":")))
    return "\n".join([json.dumps(names, separators=(",", ":")), *lines]) + "\n"


def main() -> None:
    """Write the index beside the bundled specs."""
    folder = Path(__file__).resolve().parent.parent.parent / "model_specs"
    (folder / INDEX_NAME).write_text(build_index(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
