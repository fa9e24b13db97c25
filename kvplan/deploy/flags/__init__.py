"""An engine's own command line: its flags, read into options under its own names.

One table an engine, one file a table: a flag's spellings, the option it sets, how its value is read.
Unknown flags are listed, not refused, because engines add them weekly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from kvplan.deploy.flags.readers import Flag, switch
from kvplan.errors import InvalidValue

# Engine -> module with its table.
TABLES: dict[str, str] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llama.cpp": "llama_cpp",
    "ollama": "ollama",
    "tensorrt-llm": "tensorrt_llm",
    "transformers": "transformers",
}


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """What a command line said: options by the engine's names, and the flags nobody knows."""

    options: tuple[tuple[str, object], ...]
    unknown: tuple[str, ...] = ()

    def get(self, name: str) -> object:
        """Return an option's value, or None."""
        return dict(self.options).get(name)


def _table(engine: str) -> tuple[Flag, ...]:
    if engine not in TABLES:
        return ()
    rows: tuple[Flag, ...] = import_module(f"kvplan.deploy.flags.{TABLES[engine]}").FLAGS
    return rows


def read_flags(engine: str, words: Sequence[str]) -> EngineFlags:
    """Read an engine's command-line words.

    Raises InvalidValue for a known flag whose value is missing or cannot be read.
    """
    table = {spelling: flag for flag in _table(engine) for spelling in flag[0]}
    options: dict[str, object] = {}
    unknown: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        spelling, joined, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if engine == "vllm" and spelling.startswith("--"):
            spelling = "--" + spelling[2:].replace("_", "-")
        flag = table.get(spelling)
        if flag is None:
            unknown.append(word)
            while queue and not queue[0].startswith("-"):
                queue.pop(0)
            continue
        _, name, reader = flag
        if reader is None:
            options[name.removeprefix("!")] = _switch_value(name, value if joined else "")
            continue
        if not joined:
            if name == "flash_attn" and (not queue or queue[0].startswith("-")):
                value = "on"
            elif not queue:
                raise _unreadable(engine, spelling, "nothing")
            else:
                value = queue.pop(0)
        try:
            options[name] = reader(value)
        except ValueError:
            raise _unreadable(engine, spelling, f"'{value}'") from None
    return EngineFlags(tuple(options.items()), tuple(unknown))


def _switch_value(name: str, value: str) -> bool:
    given = True if not value else switch(value)
    return not given if name.startswith("!") else given


def _unreadable(engine: str, spelling: str, found: str) -> InvalidValue:
    return InvalidValue(
        f"{engine}: {spelling} cannot be read",
        why=f"its value is {found}",
        hint=f"see {engine}'s own help for {spelling}",
    )
