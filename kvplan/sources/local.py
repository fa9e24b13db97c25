"""Models on disk and on stdin: a folder, a config.json, a spec file, a GGUF or safetensors header."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from kvplan.errors import (
    InputError,
    InvalidSpec,
    InvalidValue,
    UnknownModel,
    UnsupportedArchitecture,
    reason_of,
)
from kvplan.model import ModelSpec, StoredTensor
from kvplan.sources.checkpoint import with_checkpoint
from kvplan.sources.config_model import model_from_config
from kvplan.sources.files import INDEX_NAME, SHARD_NAME, files_of_index, gguf_choices
from kvplan.sources.gguf import joined, read_gguf, split_names
from kvplan.sources.gguf_model import model_from_gguf
from kvplan.sources.headers import file_source
from kvplan.sources.safetensors import read_safetensors

MAX_CONFIG_BYTES = 16 * 1024**2
# An index has a line a tensor: 140,000 for the largest mixtures.
MAX_INDEX_BYTES = 64 * 1024**2


def open_local(ref: str, *, assume: str | None = None) -> ModelSpec:
    """Open what lies at ``ref`` (``-`` is stdin).

    Raises UnknownModel where nothing is, InvalidSpec for what is no model.
    """
    if ref == "-":
        return _from_text(sys.stdin.read(MAX_CONFIG_BYTES + 1), "stdin", assume)
    path = Path(ref).expanduser()
    if path.is_dir():
        return _folder(path, assume)
    if not path.is_file():
        raise UnknownModel(
            f"'{ref}' is not there",
            why="no file or folder has that name",
            hint="check the path, or see: kvplan list models",
        )
    ending = path.suffix.casefold()
    if ending == ".gguf":
        return _gguf(path, assume)
    if ending == ".safetensors":
        return _beside(path, assume)
    return _from_text(read_text(path), str(path), assume)


def _folder(path: Path, assume: str | None) -> ModelSpec:
    config = path / "config.json"
    if not config.is_file():
        return _gguf_folder(path, assume)
    separate = path / "hf_quant_config.json"
    quantization = read_mapping(read_text(separate), str(separate)) if separate.is_file() else None
    model = build_model(
        read_mapping(read_text(config), str(config)),
        str(config),
        assume,
        quantization,
        name=path.resolve().name,
    )
    tensors = _tensors(path)
    return with_checkpoint(model, tensors) if tensors else model


def _tensors(folder: Path) -> tuple[StoredTensor, ...]:
    """Return the tensors of the folder's safetensors files; those its index names, where it has one."""
    index = folder / INDEX_NAME
    if index.is_file():
        names = files_of_index(read_mapping(read_text(index, MAX_INDEX_BYTES), str(index)), str(index))
    else:
        names = tuple(sorted(file.name for file in folder.glob("model*.safetensors")))
    tensors: list[StoredTensor] = []
    for name in names:
        file = folder / name
        if not file.is_file():
            raise InvalidSpec(
                f"{file}: not there",
                why=f"{INDEX_NAME} names it",
                hint="finish the download, or name the config.json alone",
            )
        tensors += read_safetensors(file_source(file), str(file), file.stat().st_size)
    return tuple(tensors)


def _beside(path: Path, assume: str | None) -> ModelSpec:
    """Open one safetensors file: the config lies beside it, the tensors are its own."""
    tensors = read_safetensors(file_source(path), str(path), path.stat().st_size)
    config = path.parent / "config.json"
    if not config.is_file():
        raise UnsupportedArchitecture(
            f"{path.name}: {len(tensors):,} tensors, but no config.json beside it",
            why="a safetensors header names tensors, not how the layers attend",
            hint="put the model's config.json beside it, or name org/repo",
        )
    if SHARD_NAME.fullmatch(path.name):
        return _folder(path.parent, assume)
    name = path.resolve().parent.name
    return with_checkpoint(
        build_model(read_mapping(read_text(config), str(config)), str(config), assume, None, name=name),
        tensors,
    )


def _gguf(path: Path, assume: str | None) -> ModelSpec:
    names = split_names(path.name)
    headers = []
    for name in names:
        part = path.with_name(name)
        if not part.is_file():
            raise InvalidSpec(
                f"{part}: not there",
                why=f"the model is split over {len(names)} files",
                hint="put all parts in one folder",
            )
        headers.append(read_gguf(file_source(part), str(part)))
    size = path.stat().st_size if len(names) == 1 else None
    return model_from_gguf(
        joined(headers, str(path)),
        name=path.stem,
        source=str(path),
        origin=str(path),
        assume=assume,
        file_bytes=size,
    )


def _gguf_folder(path: Path, assume: str | None) -> ModelSpec:
    files = sorted(file.name for file in path.glob("*.gguf"))
    choices = gguf_choices(files)
    if len(choices) == 1:
        return _gguf(path / choices[0], assume)
    if choices:
        raise InvalidValue(
            f"{path}: {len(choices)} GGUF models",
            why="they are " + ", ".join(choices[:6]) + (" …" if len(choices) > 6 else ""),
            hint=f"name one: {path / choices[0]}",
        )
    raise UnknownModel(
        f"{path}: no config.json and no .gguf file",
        why="a model's folder has one or the other",
        hint="name the folder that holds config.json, or a config file",
    )


def read_text(path: Path, at_most: int = MAX_CONFIG_BYTES) -> str:
    """Return a small text file's content. Raises InputError or InvalidSpec where it is not one."""
    try:
        if path.stat().st_size > at_most:
            raise InvalidSpec(
                f"{path}: larger than {at_most // 1024**2} MiB",
                why="a config is a few kilobytes",
                hint="check that this is the model's config.json",
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {path}", why=reason_of(error), hint="check the path and its permissions"
        ) from None


def _from_text(text: str, origin: str, assume: str | None) -> ModelSpec:
    if len(text) > MAX_CONFIG_BYTES:
        raise InvalidSpec(
            f"{origin}: larger than {MAX_CONFIG_BYTES // 1024**2} MiB",
            why="a config is a few kilobytes",
            hint="check that this is a model's config",
        )
    return build_model(read_mapping(text, origin), origin, assume, None, name=_stem(origin))


def _stem(origin: str) -> str:
    path = Path(origin)
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def read_mapping(text: str, origin: str) -> Mapping[str, object]:
    """Read JSON or YAML that should be one object. Raises InvalidSpec naming ``origin``."""
    if text.lstrip().startswith(("{", "[")):
        try:
            data = json.loads(text)
        except RecursionError:
            raise InvalidSpec(
                f"{origin}: nested beyond what any config is",
                why="reading it would exhaust the stack",
                hint="check that this is the model's config.json",
            ) from None
        except ValueError as error:
            raise InvalidSpec(
                f"{origin}: not JSON: {error}",
                why="a config.json is one JSON object",
                hint="check that this is the model's config.json",
            ) from None
    else:
        from kvplan.sources.yaml_text import load_yaml

        data = load_yaml(text, origin)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InvalidSpec(
            f"{origin}: not a config" if text.strip() else f"{origin} is empty",
            why="a config is an object with keys such as hidden_size",
            hint="check that this is the model's config.json",
        )
    return data


def build_model(
    data: Mapping[str, object],
    origin: str,
    assume: str | None,
    quantization: Mapping[str, object] | None,
    *,
    name: str,
) -> ModelSpec:
    """Build a model from a config's data, or from a spec's."""
    if _is_spec(data):
        from kvplan.sources.catalog import model_from_spec
        from kvplan.sources.schema import validate_spec

        return model_from_spec(validate_spec(data, origin).model_dump(exclude_none=True))
    return model_from_config(data, name=name, source=origin, assume=assume, quantization_data=quantization)


def _is_spec(data: Mapping[str, object]) -> bool:
    # A config.json never has these; a spec with one of them missing should hear what is missing.
    if "model_type" in data or "hidden_size" in data or "architectures" in data:
        return False
    return "config" in data or "id" in data or "source" in data
