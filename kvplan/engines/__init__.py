"""The engines, by the name that ``--engine`` takes: a plain table, imported when needed.

``--engine vllm@0.19`` selects a version's behaviour; without one the newest known is used and
printed. Generic or common spellings are aliases.
"""

from functools import lru_cache
from importlib import import_module

from kvplan.engines.base import Engine
from kvplan.errors import UnknownEngine, did_you_mean

ENGINES: dict[str, str] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "tensorrt-llm": "tensorrt_llm",
    "lmdeploy": "lmdeploy",
    "tgi": "tgi",
    "llama.cpp": "llama_cpp",
    "ollama": "ollama",
    "transformers": "transformers",
    "ideal": "ideal",
}
ALIASES: dict[str, str] = {
    "llamacpp": "llama.cpp",
    "llama-cpp": "llama.cpp",
    "llama_cpp": "llama.cpp",
    "llama-server": "llama.cpp",
    "hf": "transformers",
    "trtllm": "tensorrt-llm",
    "trt-llm": "tensorrt-llm",
    "tensorrt_llm": "tensorrt-llm",
    "text-generation-inference": "tgi",
}


@lru_cache(maxsize=64)
def engine_named(text: str) -> Engine:
    """Return the policy of ``NAME`` or ``NAME@VERSION``.

    Each engine module offers ``engine(version: str | None) -> Engine``. Raises UnknownEngine for a
    name that is not in the table and InvalidValue (from the module) for an unreadable version.
    """
    name, _, version = text.strip().partition("@")
    key = name.casefold()
    key = ALIASES.get(key, key)
    module = ENGINES.get(key)
    if module is None:
        known = (*ENGINES, *ALIASES)
        raise UnknownEngine(
            f"'{name}' is not an engine",
            why=did_you_mean(name, known) or f"known are {', '.join(ENGINES)}",
            hint="see: kvplan list engines",
        )
    policy: Engine = import_module(f"kvplan.engines.{module}").engine(version or None)
    return policy
