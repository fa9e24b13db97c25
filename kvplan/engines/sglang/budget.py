"""What lies beside weights and pools on a rank under SGLang, as intervals.

SGLang measures free memory and profiles nothing: what comes after the pools must fit into the slack
``(1 - mem_fraction_static) x free``. Constants are read off start-up logs of real servers (the table
and its script are in tests/calibration/sglang_logs.py) or, for activations, off a published model of
its kernels; where no log isolates a part it is ``assumed`` and wide.
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.sglang.settings import Settings
from kvplan.layers import FullAttention, LatentAttention
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.units import GIB, MIB

BEFORE_WHY = "CUDA context and NCCL before the weights; start-up logs show 0.6 GiB (4090 x2) to 2.5 (H200 x8)"
LEFTOVER_WHY = "allocator rounding and leftovers of loading; start-up logs show 0.2 to 2.4 percent"
GRAPHS_WHY = "captured graphs; start-up logs show 0.1 to 2.7 GiB, SGLang reserves 2 MiB a decode batch"
WORKSPACE_WHY = "attention workspaces; start-up logs show 0.1 to 0.6 GiB"
ACTIVATION_WHY = "activations of one chunk: 2 x tokens x heads x head size x a factor by tp (aiconfigurator)"
DENSE_FACTORS = ((1, 14.0), (2, 8.5), (4, 6.5))
EXPERT_FACTORS = ((1, 28.0), (2, 17.0), (4, 13.0))
ACTIVATION_FLOOR = 90 * MIB
NVLINK_ARCHITECTURES = frozenset(("hopper", "blackwell", "ampere", "cdna3", "cdna4"))


def gib(low: float, expected: float, high: float, why: str) -> Quantity:
    """Return an assumed interval given in GiB."""
    return Quantity(int(low * GIB), int(expected * GIB), int(high * GIB), "assumed", why)


def before_loading(ranks: int, device: Device) -> Quantity:
    """Return what a process holds before it measures free memory for the first time."""
    if ranks == 1:
        return gib(0.25, 0.5, 1.0, BEFORE_WHY)
    if device.architecture in NVLINK_ARCHITECTURES:
        return gib(0.7, 1.6, 2.8, BEFORE_WHY)
    return gib(0.4, 0.7, 1.5, BEFORE_WHY)


def leftovers(weight_bytes: int) -> Quantity:
    """Return what loading keeps beyond the weights themselves."""
    high = weight_bytes * 25 // 1000 + 64 * MIB
    return Quantity(0, weight_bytes * 6 // 1000, high, "assumed", LEFTOVER_WHY)


def graphs(settings: Settings) -> Quantity:
    """Return the memory of captured graphs."""
    if not (settings.decode_graphs or settings.prefill_graphs):
        return exact(0, "--disable-cuda-graph")
    reserve = settings.decode_graph_batch * 2 * MIB if settings.decode_graphs else 0
    if settings.prefill_graphs:
        reserve += settings.num_prefill_graphs * 8 * MIB
    low = int(0.03 * GIB)
    expected = max(int(0.26 * GIB), reserve // 2)
    return Quantity(low, expected, max(int(2.8 * GIB), reserve), "assumed", GRAPHS_WHY)


def workspaces() -> Quantity:
    """Return the attention backend's buffers."""
    return gib(0.1, 0.3, 0.6, WORKSPACE_WHY)


@lru_cache(maxsize=4096)
def activations(model: ModelSpec, num_tokens: int, tensor: int) -> Quantity:
    """Return the working memory of a prefill chunk of ``num_tokens``."""
    is_moe = any(part.role == "expert" for group in model.layers for part in group.layer.tensors)
    factor = max(
        (value for ranks, value in (EXPERT_FACTORS if is_moe else DENSE_FACTORS) if ranks <= tensor),
        key=lambda value: -value,
    )
    amount = max(ACTIVATION_FLOOR, int(2 * num_tokens * _attention_width(model) * factor))
    return Quantity(amount // 4, amount // 2, amount * 115 // 100, "assumed", ACTIVATION_WHY)


def _attention_width(model: ModelSpec) -> int:
    widths = [model.structure.hidden_size]
    for cache, _ in cache_kinds(model):
        if isinstance(cache, FullAttention):
            widths.append(cache.num_attention_heads * cache.head_dim)
        elif isinstance(cache, LatentAttention):
            widths.append(cache.num_attention_heads * cache.v_head_dim)
    return max(widths)
