"""The command line that started a server, as its log (or whoever quotes the log) repeats it."""

import re
import shlex
from collections.abc import Iterator, Sequence

from kvplan.deploy.flags import read_flags
from kvplan.errors import InvalidValue
from kvplan.verify.log_text import Line

PROGRAMS: dict[str, re.Pattern[str]] = {
    "vllm": re.compile(r"\bvllm serve\b|vllm\.entrypoints\.\w+\.api_server\b"),
    "sglang": re.compile(r"sglang\.launch_server\b|\bsglang serve\b"),
    "llama.cpp": re.compile(r"\bllama-(?:server|cli|bench|run)(?:\.exe)?\b|\bllama_server\b"),
    "tensorrt-llm": re.compile(r"\btrtllm-serve(?: serve)?\b"),
    "lmdeploy": re.compile(r"\blmdeploy serve api_server\b"),
    "tgi": re.compile(r"\btext-generation-launcher\b|\btext-generation-inference:\S+"),
}
# Engines whose command names the model before its flags.
POSITIONAL = ("vllm", "tensorrt-llm", "lmdeploy")
# Advice that engines print names flags that were not given.
_ADVICE = re.compile(
    r"`--|\b(?:try|replace|consider|increas|decreas|suggest|equivalent|recommend|should|please|use)\w*\b",
    re.IGNORECASE,
)
_LONG_FLAG = re.compile(r"(?:^|[\s(])(--[a-z][\w-]*(?:[= ][^\s|,;()]+)?)")


def options_in(engine: str, lines: Sequence[Line]) -> tuple[dict[str, object], str]:
    """Return (options by the engine's own names, the model) of the command line a log repeats.

    The first mention of an option stands. What cannot be read is left out.
    """
    options: dict[str, object] = {}
    model = ""
    program = PROGRAMS[engine]
    for line in lines:
        called = program.search(line.text)
        if called:
            words = _words(line.text[called.end() :])
            if words and not words[0].startswith("-") and engine in POSITIONAL:
                model = model or words[0]
            groups = list(_groups(words))
        elif "--" in line.text and not _ADVICE.search(line.text):
            groups = [
                found.group(1).replace("=", " ", 1).split(" ") for found in _LONG_FLAG.finditer(line.text)
            ]
        else:
            continue
        for group in groups:
            for name, value in _read(engine, group):
                options.setdefault(name, value)
    named = options.pop("model", None)
    return options, model or str(named or "")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _groups(words: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", word):
            if group:
                yield group
            group = [word]
        elif group:
            group.append(word)
    if group:
        yield group


def _read(engine: str, group: list[str]) -> tuple[tuple[str, object], ...]:
    try:
        return read_flags(engine, group).options
    except InvalidValue:
        return ()
