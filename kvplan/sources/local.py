"""Models on disk and on stdin: a folder, a config.json, a spec file, a GGUF or safetensors header."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from kvplan.errors import InputError, InvalidSpec, UnknownModel
from kvplan.model import ModelSpec
from kvplan.sources.config_model import model_from_config

MAX_CONFIG_BYTES = 16 * 1024**2


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
    if ending in (".gguf", ".safetensors"):
        raise InvalidSpec(
            f"{path.name}: headers of {ending} files are not read yet",
            why="only a config says how a model's layers are built",
            hint=f"name the folder with its config.json: {path.parent}",
        )
    return _from_text(_read(path), str(path), assume)


def _folder(path: Path, assume: str | None) -> ModelSpec:
    config = path / "config.json"
    if not config.is_file():
        raise UnknownModel(
            f"{path}: no config.json",
            why="a model's folder has one",
            hint="name the folder that holds config.json, or a config file",
        )
    separate = path / "hf_quant_config.json"
    quantization = _mapping(_read(separate), str(separate)) if separate.is_file() else None
    return _model(
        _mapping(_read(config), str(config)), str(config), assume, quantization, name=path.resolve().name
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InvalidSpec(
                f"{path}: larger than {MAX_CONFIG_BYTES // 1024**2} MiB",
                why="a config is a few kilobytes",
                hint="check that this is the model's config.json",
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {path}", why=str(error), hint="check the path and its permissions"
        ) from None


def _from_text(text: str, origin: str, assume: str | None) -> ModelSpec:
    if len(text) > MAX_CONFIG_BYTES:
        raise InvalidSpec(
            f"{origin}: larger than {MAX_CONFIG_BYTES // 1024**2} MiB",
            why="a config is a few kilobytes",
            hint="check that this is a model's config",
        )
    return _model(_mapping(text, origin), origin, assume, None, name=_stem(origin))


def _stem(origin: str) -> str:
    path = Path(origin)
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def _mapping(text: str, origin: str) -> Mapping[str, object]:
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
            f"{origin}: not a config",
            why="it should be an object with keys such as hidden_size",
            hint="check that this is the model's config.json",
        )
    return data


def _model(
    data: Mapping[str, object],
    origin: str,
    assume: str | None,
    quantization: Mapping[str, object] | None,
    *,
    name: str,
) -> ModelSpec:
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
