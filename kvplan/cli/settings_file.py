"""A file of settings that the engine's own words name: ``-- --config FILE``.

vLLM, SGLang and TensorRT-LLM read such files; what one says overrules the flags, or is overruled by
them, as each engine has it (deploy/carriers/settings_file.py).
"""

from collections.abc import Sequence
from pathlib import Path

from kvplan.deploy.carriers.settings_file import FLAGS, with_settings
from kvplan.deploy.launch import Launch
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Value, load_documents
from kvplan.errors import InputError


def names_a_file(engine_name: str, words: Sequence[str]) -> bool:
    """Tell whether a word is the engine's flag for a file of settings."""
    return any(word.partition("=")[0] in FLAGS.get(engine_name, ()) for word in words)


def with_file(engine_name: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return the words with the file's settings in place of its flag.

    Raises InputError for a file that cannot be read.
    """
    launch = Launch("", "", 0, engine_name, None, tuple(Word(word) for word in words))
    return tuple(word.text for word in with_settings(launch, _documents).flags)


def _documents(path: str) -> list[Value]:
    try:
        source = Path(path).expanduser().read_text(encoding="utf-8")
        return load_documents(source, path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the engine's settings in {path}",
            why=str(getattr(error, "strerror", None) or error),
            hint="name a YAML file that is here, or give its settings as flags",
        ) from None
