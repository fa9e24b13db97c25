"""Caches with a bound: what StreamingLLM and H2O keep, what is lost, and who can really do it.

StreamingLLM (arXiv 2309.17453) keeps the first tokens ("sinks") and a window of the last ones; H2O
(arXiv 2306.14048) the tokens that gathered most attention ("heavy hitters") and the last ones. Both
bound the cache of full-attention layers whatever the length; what is dropped cannot be attended to
again, so recall of the middle is lost. Memory is only saved where the engine implements it.
"""

from typing import Literal

from kvplan.engines.base import Plan
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass

Name = Literal["streaming-llm", "h2o"]
BOUNDED = ("full_attention", "latent_attention")

# Which engine has it, in its own words; an engine that is not here has not.
SUPPORT: dict[Name, dict[str, str]] = {
    "streaming-llm": {"tensorrt-llm": "sink_token_length with max_attention_window_size"},
    "h2o": {},
}
LOST: dict[Name, str] = {
    "streaming-llm": "everything between the sinks and the window; perplexity stays near the window's own "
    "(6.31 to 6.48 at a window of 1,024, llama.cpp PR 27583, not merged)",
    "h2o": "tokens that drew little attention so far, also when a later question needs them",
}
PAPER: dict[Name, str] = {
    "streaming-llm": "arXiv 2309.17453",
    "h2o": "arXiv 2306.14048, research code only",
}


@dataclass(frozen=True, slots=True)
class Eviction:
    """A policy's effect on one sequence: tokens kept, bytes before and after, and who has it.

    ``available`` is how this plan's engine does it, empty when it does not; then nothing is saved.
    """

    name: Name
    kept_first: int
    kept_recent: int
    bytes_per_sequence: int
    bounded_bytes_per_sequence: int
    lost: str
    source: str
    available: str
    engines: tuple[str, ...]


def parse_eviction(text: str) -> tuple[Name, int, int]:
    """Read ``streaming-llm``, ``streaming-llm:4+4096`` (sinks + window) or ``h2o:512+512``."""
    word, _, sizes = text.strip().casefold().partition(":")
    names: dict[str, tuple[Name, int, int]] = {
        "streaming-llm": ("streaming-llm", 4, 4096),
        "streamingllm": ("streaming-llm", 4, 4096),
        "h2o": ("h2o", 512, 512),
    }
    found = names.get(word)
    if found is None:
        raise InvalidValue(
            f"'{text}' is not an eviction policy",
            why="known are streaming-llm (sinks + window) and h2o (heavy hitters + recent)",
            hint="write it like --evict streaming-llm:4+4096",
        )
    if not sizes:
        return found
    first, plus, recent = sizes.partition("+")
    if not (plus and first.isdigit() and recent.isdigit() and int(recent)):
        raise InvalidValue(
            f"'{text}' does not say what is kept",
            why="it takes two token counts, kept first and kept last",
            hint=f"write it like --evict {found[0]}:{found[1]}+{found[2]}",
        )
    return found[0], int(first), int(recent)


def evicted(result: Plan, name: Name, kept_first: int, kept_recent: int) -> Eviction:
    """Return what a policy would keep of one sequence at the planned context."""
    kept = min(kept_first + kept_recent, result.context_tokens)
    now = result.cache.bytes_per_sequence
    growing = sum(group.bytes_per_token for group in result.cache.groups if group.kind in BOUNDED)
    bounded = now - growing * (result.context_tokens - kept)
    return Eviction(
        name,
        kept_first,
        kept_recent,
        now,
        max(0, min(now, bounded)),
        LOST[name],
        PAPER[name],
        SUPPORT[name].get(result.engine_name, ""),
        tuple(SUPPORT[name]),
    )
