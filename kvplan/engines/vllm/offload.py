"""vLLM: what lies in system memory: weights, cache blocks, swapped requests.

vLLM 0.33 config/offload.py (``--cpu-offload-gb`` a GPU), config/cache.py (``--kv-offloading-size`` over
all tensor ranks); ``--swap-space`` was a GPU's until the V0 engine went.
"""

from kvplan.engines.base import Component
from kvplan.quantity import Quantity, exact
from kvplan.units import GIB
from kvplan.workload import Workload


def _gib(workload: Workload, name: str) -> int:
    value = workload.option(name)
    return int(value * GIB) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def on_device(weights: Quantity, workload: Workload) -> Quantity:
    """Return what of a rank's weights stays on its device."""
    moved = _gib(workload, "cpu_offload_gb")
    if not moved:
        return weights
    return Quantity(
        max(0, weights.low - moved),
        max(0, weights.expected - moved),
        max(0, weights.high - moved),
        weights.basis,
        "less --cpu-offload-gb",
    )


def ipc_bytes(workload: Workload) -> int:
    """Return what is kept on the device for decoded frames (multimodal/gpu_ipc_memory.py): off the pool."""
    return _gib(workload, "mm_ipc_gpu_memory_gb")


def host_components(workload: Workload, weight_bytes: int, num_ranks: int) -> tuple[Component, ...]:
    """Return what all ranks together keep in system memory."""
    if not workload.engine_options:
        return ()
    found: list[Component] = []
    moved = min(_gib(workload, "cpu_offload_gb") * num_ranks, weight_bytes)
    if moved:
        found.append(Component("weights", exact(moved, "--cpu-offload-gb"), "--cpu-offload-gb"))
    blocks = _gib(workload, "kv_offloading_size") + _gib(workload, "swap_space") * num_ranks
    if blocks:
        found.append(Component("kv_cache", exact(blocks), "--kv-offloading-size, --swap-space"))
    images = _gib(workload, "mm_processor_cache_gb")
    if images:
        # One for the API server, one for the engine (config/multimodal.py).
        found.append(Component("multimodal", exact(2 * images), "--mm-processor-cache-gb, twice"))
    return tuple(found)
