"""Which engine wrote a log, and what it said."""

import re
from collections.abc import Callable, Sequence

from kvplan.errors import CannotTell
from kvplan.verify import (
    llama_cpp_log,
    lmdeploy_log,
    sglang_log,
    tensorrt_llm_log,
    tgi_log,
    vllm_log,
)
from kvplan.verify.log_text import Line, lines_of
from kvplan.verify.readings import Readings

# Where a line has the words of two, the first stands: TensorRT-LLM's, LMDeploy's and TGI's are theirs alone.
READERS: dict[str, tuple[re.Pattern[str], Callable[[Sequence[Line]], Readings]]] = {
    "tensorrt-llm": (tensorrt_llm_log.MARKS, tensorrt_llm_log.read),
    "lmdeploy": (lmdeploy_log.MARKS, lmdeploy_log.read),
    "tgi": (tgi_log.MARKS, tgi_log.read),
    "vllm": (vllm_log.MARKS, vllm_log.read),
    "sglang": (sglang_log.MARKS, sglang_log.read),
    "llama.cpp": (llama_cpp_log.MARKS, llama_cpp_log.read),
}


def engine_of(lines: tuple[Line, ...]) -> str:
    """Return the engine whose own words a log holds most of; empty where none is known."""
    marks = {
        name: sum(bool(words.search(line.text)) for line in lines) for name, (words, _) in READERS.items()
    }
    best = max(marks, key=lambda name: marks[name])
    return best if marks[best] else ""


def read_log(text: str, engine: str = "") -> Readings:
    """Read a log of any known engine; ``engine`` says which where it is known.

    Raises CannotTell when no engine's words are found in it, or none of the lines that tell memory.
    """
    lines = tuple(lines_of(text))
    name = engine or engine_of(lines)
    reader = READERS.get("llama.cpp" if name == "ollama" else name)
    if reader is None:
        raise CannotTell(
            "no known engine wrote this log",
            why=f"none of the words of {', '.join(READERS)} or ollama is in its {len(lines)} lines",
            hint="give the engine's start-up log, from its first line",
        )
    readings = reader[1](lines)
    if not (readings.amounts or readings.counts or readings.out_of_memory or readings.refusal):
        raise CannotTell(
            f"this {readings.engine} log says nothing about memory",
            why=f"none of the lines about weights, caches or buffers is in its {len(lines)} lines",
            hint="give the log from the start of the server, with its INFO lines",
        )
    return readings
