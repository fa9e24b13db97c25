"""vLLM: what changed from one version to the next, resolved for one version."""

from functools import lru_cache

from kvplan.frozen import dataclass

KNOWN = ("0.10", "0.16", "0.17", "0.18", "0.19", "0.21", "0.23", "0.26", "0.33")
NEWEST = "0.33"
# Between 0.19 and 0.23.1 the printed tokens changed their meaning; the version is not known.
TOKENS_CHANGED_AFTER, TOKENS_CHANGED_BY = (0, 19), (0, 23)
# The V1 engine is the default since 0.8 on Ampere and later (0.8 engine/arg_utils.py
# _is_v1_supported_oracle) and the only one since 0.11.
V1_SINCE, V1_GENERATION, V1_ONLY_SINCE = (0, 8), 8, (0, 11)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one version does.

    ``gpu_memory_utilization`` is its default (0.90 in every log up to 0.19, 0.92 in config/cache.py
    of 0.33). ``graphs_inside``: captured graphs come off the pool (0.21 on: envs.py
    VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS). ``keeps_null_block``: one block is never handed out, so
    an exact fit is refused. ``counts_requests``: the printed tokens are concurrency x length (0.23.1
    on); before, blocks of a group x block size. ``steps_in_flight`` batches are scheduled ahead.
    ``one_line``: size and concurrency are printed together (0.33 v1/core/kv_cache_utils.py).
    """

    version: tuple[int, int]
    gpu_memory_utilization: float
    graphs_inside: bool
    keeps_null_block: bool
    counts_requests: bool
    steps_in_flight: int
    one_line: bool
    tokens_uncertain: bool


@lru_cache(maxsize=64)
def behaviour(version: tuple[int, int]) -> Behaviour:
    """Return the behaviour of a version (major, minor)."""
    return Behaviour(
        version=version,
        gpu_memory_utilization=0.92 if version >= (0, 20) else 0.90,
        graphs_inside=version >= (0, 21),
        keeps_null_block=version >= TOKENS_CHANGED_BY,
        counts_requests=version >= TOKENS_CHANGED_BY,
        steps_in_flight=2 if version >= (0, 20) else 1,
        one_line=version >= (0, 33),
        tokens_uncertain=TOKENS_CHANGED_AFTER < version < TOKENS_CHANGED_BY,
    )


def runs_v1(version: tuple[int, int], generation: int) -> bool:
    """Tell whether the V1 engine runs, which works on prompts in parts; ``generation`` 0 is unknown."""
    if version >= V1_ONLY_SINCE:
        return True
    return version >= V1_SINCE and (not generation or generation >= V1_GENERATION)
