"""vLLM: what changed from one version to the next, resolved for one version."""

from functools import lru_cache

from kvplan.frozen import dataclass

KNOWN = ("0.10", "0.16", "0.17", "0.18", "0.19", "0.20", "0.21", "0.23", "0.26", "0.28", "0.29", "0.33")
NEWEST = "0.33"
# The V1 engine is the default since 0.8 on Ampere and later (0.8 engine/arg_utils.py
# _is_v1_supported_oracle) and the only one since 0.11.
V1_SINCE, V1_GENERATION, V1_ONLY_SINCE = (0, 8), 8, (0, 11)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one version does.

    Each was read in the sources of the releases around its change.

    ``gpu_memory_utilization`` is its default (config/cache.py: 0.92 since 0.20). ``graphs_inside``:
    captured graphs come off the pool (envs.py VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS: on since 0.20).
    ``counts_requests``: the printed tokens are concurrency x length (v1/core/kv_cache_utils.py: since
    0.21); before, blocks of a group x block size. ``steps_in_flight`` batches are scheduled ahead
    (config/vllm.py max_in_flight_tokens: since 0.26). ``one_line``: size and concurrency are printed
    together (since 0.28). ``keeps_null_block``: the fit test leaves out the block that is never handed
    out, so an exact fit is refused (since 0.29).
    """

    version: tuple[int, int]
    gpu_memory_utilization: float
    graphs_inside: bool
    keeps_null_block: bool
    counts_requests: bool
    steps_in_flight: int
    one_line: bool


@lru_cache(maxsize=64)
def behaviour(version: tuple[int, int]) -> Behaviour:
    """Return the behaviour of a version (major, minor)."""
    return Behaviour(
        version=version,
        gpu_memory_utilization=0.92 if version >= (0, 20) else 0.90,
        graphs_inside=version >= (0, 20),
        counts_requests=version >= (0, 21),
        steps_in_flight=2 if version >= (0, 26) else 1,
        one_line=version >= (0, 28),
        keeps_null_block=version >= (0, 29),
    )


def runs_v1(version: tuple[int, int], generation: int) -> bool:
    """Tell whether the V1 engine runs, which works on prompts in parts; ``generation`` 0 is unknown."""
    if version >= V1_ONLY_SINCE:
        return True
    return version >= V1_SINCE and (not generation or generation >= V1_GENERATION)
