"""LoRA slots under SGLang: buffers for every adapter of a batch, taken before the pools.

SGLang 0.5.23 srt/lora/mem_pool.py: ``max_loras_per_batch`` slots of ``max_lora_rank`` rows for each
projection. Which modules are adapted and how a rank splits them was not modelled: the bounds are all
of them split, and none.
"""

from functools import lru_cache

from kvplan.engines.sglang.reading import whole_or_none
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity, exact
from kvplan.workload import Workload

SLOTS = 8
# Ranks that adapters are published in, where the command line names none.
COMMON_RANKS = (8, 32, 128)
ADAPTED_ROLES = frozenset(("attention", "mlp", "shared_expert"))
WHY = "LoRA slots: attention and MLP projections, split over the ranks or not"


def adapters_of(model: ModelSpec, workload: Workload, tensor: int) -> Quantity:
    """Return the bytes of a rank's LoRA slots; 0 without --enable-lora, --lora-paths or a rank."""
    rank = whole_or_none(workload.option("max_lora_rank"))
    if rank is None and not (workload.option("enable_lora") or workload.option("lora_paths")):
        return exact(0)
    slots = whole_or_none(workload.option("max_loras_per_batch")) or SLOTS
    low, usual, high = (rank, rank, rank) if rank else COMMON_RANKS
    row = _row_bytes(model) * slots
    return Quantity(row * low // tensor, row * usual, row * high, "assumed", WHY)


@lru_cache(maxsize=256)
def _row_bytes(model: ModelSpec) -> int:
    """Return the bytes that one row of rank takes over all projections, in 16 bits."""
    return sum(
        2 * (tensor.shape[0] + tensor.shape[1]) * group.count
        for group in model.layers
        for tensor in group.layer.tensors
        if tensor.role in ADAPTED_ROLES and len(tensor.shape) == 2
    )
