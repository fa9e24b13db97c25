"""An engine's own command line: its flags, read into options under its own names.

One table an engine, one file a table: a flag's spellings, the option it sets, how its value is read.
Flags that do not touch memory are known by name; all others are listed, not refused, because engines
add them weekly.
"""

import json
from collections.abc import Sequence
from dataclasses import field
from importlib import import_module

from kvplan.deploy.flags.readers import LISTS, OBJECTS, Flag, switch
from kvplan.deploy.flags.without_effect import WITHOUT_EFFECT, Harmless
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass

# Engine -> module with its table.
TABLES: dict[str, str] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llama.cpp": "llama_cpp",
    "ollama": "ollama",
    "tensorrt-llm": "tensorrt_llm",
    "lmdeploy": "lmdeploy",
    "tgi": "tgi",
    "transformers": "transformers",
}
# Engines whose parser is Python's argparse: underscores for dashes, and any prefix that is unique.
ARGPARSE = ("vllm", "sglang", "tensorrt-llm", "lmdeploy")
MIN_PREFIX = 6


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """What a command line said: options by the engine's names, and the flags nobody knows."""

    options: tuple[tuple[str, object], ...]
    unknown: tuple[str, ...] = ()

    def get(self, name: str) -> object:
        """Return an option's value, or None."""
        return dict(self.options).get(name)


@dataclass(slots=True)
class Scan:
    """A command line taken apart, word by word.

    ``flag_at`` and ``value_at`` are the indices of an option's flag and value. ``roles`` says for each
    word which option it belongs to: "" for one without effect on memory, None for one that nobody
    knows. ``positional``, ``unknown`` and ``unreadable`` are indices.
    """

    options: dict[str, object] = field(default_factory=dict)
    flag_at: dict[str, int] = field(default_factory=dict)
    value_at: dict[str, int] = field(default_factory=dict)
    roles: list[str | None] = field(default_factory=list)
    positional: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)


def table_of(engine: str) -> tuple[Flag, ...]:
    """Return an engine's table, empty for an engine that has none."""
    if engine not in TABLES:
        return ()
    rows: tuple[Flag, ...] = import_module(f"kvplan.deploy.flags.{TABLES[engine]}").FLAGS
    return rows


def read_flags(engine: str, words: Sequence[str]) -> EngineFlags:
    """Read an engine's command-line words.

    Raises InvalidValue for a known flag whose value is missing or cannot be read.
    """
    found = scan(engine, words)
    for index in found.unreadable:
        spelling, joined_by, value = words[index].partition("=")
        if not joined_by:
            value = words[index + 1] if index + 1 < len(words) else ""
        raise InvalidValue(
            f"{engine}: {spelling} cannot be read",
            why=f"its value is '{value}'" if value else "no value follows it",
            hint=f"see {engine}'s own help for {spelling}",
        )
    unread = sorted((*found.unknown, *found.positional))
    return EngineFlags(tuple(found.options.items()), tuple(words[index] for index in unread))


def scan(engine: str, words: Sequence[str]) -> Scan:
    """Take an engine's command line apart; nothing raises, what cannot be read is listed."""
    return _Scanner(engine, words).run()


class _Scanner:
    def __init__(self, engine: str, words: Sequence[str]) -> None:
        self.engine = engine
        self.words = words
        self.table = {spelling: flag for flag in table_of(engine) for spelling in flag[0]}
        self.harmless: Harmless = WITHOUT_EFFECT.get("llama.cpp" if engine == "ollama" else engine, {})
        self.found = Scan(roles=[None] * len(words))
        self.at = 0

    def run(self) -> Scan:
        while self.at < len(self.words):
            word = self.words[self.at]
            if not word.startswith("-") or word == "-" or _is_number(word):
                self.found.positional.append(self.at)
                self.at += 1
                continue
            self._flag(self.at, word)
        return self.found

    def _flag(self, index: int, word: str) -> None:
        spelling, joined, value = word.partition("=") if word.startswith("-") else (word, "", "")
        spelling = self._known(spelling)
        self.at += 1
        flag = self.table.get(spelling)
        if flag is not None:
            self._set(index, flag, value if joined else None)
        elif "." in spelling and (base := self.table.get(self._known(spelling.split(".")[0]))):
            self._dotted(index, spelling, base, value if joined else None)
        elif spelling in self.harmless:
            self.found.roles[index] = ""
            if not joined:
                self._skip(self.harmless[spelling], "")
        else:
            self.found.unknown.append(index)
            if not joined:
                self._skip(None, None)

    def _known(self, spelling: str) -> str:
        """Return the table's spelling of a flag: dashes, and a unique prefix completed."""
        if self.engine not in ARGPARSE or not spelling.startswith("--"):
            return spelling
        known = (*self.table, *self.harmless)
        for candidate in (spelling, "--" + spelling[2:].replace("_", "-")):
            if candidate in self.table or candidate in self.harmless:
                return candidate
        dashed = "--" + spelling[2:].replace("_", "-")
        if len(dashed) < MIN_PREFIX + 2:
            return spelling
        rows = {id(self.table.get(name, name)): name for name in known if name.startswith(dashed)}
        return next(iter(rows.values())) if len(rows) == 1 else spelling

    def _skip(self, num_values: int | None, role: str | None) -> None:
        """Pass over a flag's values: as many as it takes, or (None) all up to the next flag."""
        taken = 0
        while self.at < len(self.words) and (num_values is None or num_values < 0 or taken < num_values):
            word = self.words[self.at]
            is_flag = word.startswith("-") and not _is_number(word) and len(word) > 1
            if is_flag and (num_values is None or num_values < 0):
                break
            self.found.roles[self.at] = role
            self.at += 1
            taken += 1

    def _set(self, index: int, flag: Flag, value: str | None) -> None:
        _, name, reader = flag
        key = name.removeprefix("!")
        self.found.flag_at[key] = index
        self.found.roles[index] = key
        if reader is None:
            try:
                given = True if not value else switch(value)
            except ValueError:
                self.found.unreadable.append(index)
                return
            self.found.options[key] = not given if name.startswith("!") else given
            return
        if value is None:
            following = self.words[self.at] if self.at < len(self.words) else None
            if name == "flash_attn" and (following is None or following.startswith("-")):
                self.found.options[key] = "on"
                return
            if following is None:
                self.found.unreadable.append(index)
                return
            self.found.value_at[key] = self.at
            value = self._values(key) if reader in LISTS else self._value(key)
        else:
            self.found.value_at[key] = index
        try:
            self.found.options[key] = reader(value)
        except (ValueError, OverflowError):
            self.found.unreadable.append(index)

    def _value(self, key: str) -> str:
        self.found.roles[self.at] = key
        self.at += 1
        return self.words[self.at - 1]

    def _values(self, key: str) -> str:
        """Return every word up to the next flag."""
        first = self.at
        self._skip(None, key)
        return " ".join(self.words[first : self.at])

    def _dotted(self, index: int, spelling: str, flag: Flag, value: str | None) -> None:
        """Set one key inside an option that is an object: ``--speculative-config.method mtp``."""
        key = flag[1].removeprefix("!")
        if flag[2] not in OBJECTS:
            self.found.unknown.append(index)
            return
        self.found.flag_at[key] = index
        self.found.roles[index] = key
        if value is None and self.at < len(self.words):
            value = self.words[self.at]
            self.found.roles[self.at] = key
            self.at += 1
        outer = self.found.options.get(key)
        whole = dict(outer) if isinstance(outer, dict) else {}
        inner = whole
        *path, last = spelling.split(".")[1:]
        for part in path:
            deeper = inner.get(part)
            inner[part] = dict(deeper) if isinstance(deeper, dict) else {}
            inner = inner[part]
        inner[last] = _literal(value or "")
        self.found.options[key] = whole


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
