"""What SGLang keeps in system memory when told to: weights (--cpu-offload-gb) and cache (hierarchical).

SGLang 0.5.23 srt/utils/offloader.py (that many GiB of weights on each rank) and
srt/mem_cache/memory_pool_host.py (``hicache_ratio`` times the device's pool, 2 by default, or
``hicache_size`` gigabytes a rank).
"""

from collections.abc import Sequence

from kvplan.engines.base import Component
from kvplan.engines.sglang.reading import share_or, whole_or_none
from kvplan.quantity import exact
from kvplan.units import GB, GIB
from kvplan.workload import Workload

HICACHE_RATIO = 2.0


def offloaded_bytes(workload: Workload, weight_bytes: int) -> int:
    """Return the weights of a rank that lie in system memory."""
    return min(weight_bytes, int(share_or(workload.option("cpu_offload_gb"), 0.0) * GIB))


def host_components(
    workload: Workload, weights: Sequence[int], pool_bytes: Sequence[int]
) -> tuple[Component, ...]:
    """Return what all ranks together keep in system memory; one amount a rank."""
    parts: list[Component] = []
    moved = sum(offloaded_bytes(workload, each) for each in weights)
    if moved:
        parts.append(Component("weights", exact(moved, "--cpu-offload-gb"), "on every rank"))
    if workload.option("enable_hierarchical_cache"):
        size = whole_or_none(workload.option("hicache_size"))
        ratio = share_or(workload.option("hicache_ratio"), HICACHE_RATIO)
        amount = size * GB * len(pool_bytes) if size else int(ratio * sum(pool_bytes))
        parts.append(Component("kv_cache", exact(amount, "--enable-hierarchical-cache")))
    return tuple(parts)
