"""Engines whose cache gets a share of what is left: what is taken before, and the test that follows.

None of it was measured here: the activation peak follows aiconfigurator's formula (sdk/backends,
``2 x tokens x width x factor``, the factor by tensor ranks), the runtime is what such processes have
been reported to take. Both are ``assumed`` and wide.
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Check
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity, worse_basis
from kvplan.units import GIB, MIB

NVLINK_ARCHITECTURES = frozenset(("hopper", "blackwell", "ampere"))
RUNTIME_WHY = "CUDA context, NCCL and the runtime's buffers; not measured here"
DENSE_FACTORS = ((1, 11.0), (2, 6.5), (4, 5.0))
EXPERT_FACTORS = ((1, 22.0), (2, 13.0), (4, 10.0))


@lru_cache(maxsize=2048)
def activation_peak(model: ModelSpec, num_tokens: int, tensor: int, why: str) -> Quantity:
    """Return the most that a forward pass of ``num_tokens`` holds beside weights and cache."""
    is_moe = any(part.role == "expert" for group in model.layers for part in group.layer.tensors)
    factor = min(value for ranks, value in (EXPERT_FACTORS if is_moe else DENSE_FACTORS) if ranks <= tensor)
    amount = max(70 * MIB, int(2 * num_tokens * model.structure.hidden_size * factor))
    return Quantity(amount // 3, amount, amount * 3 // 2 + GIB, "assumed", why)


def runtime_bytes(ranks: int, device: Device) -> Quantity:
    """Return what a rank's process holds before it loads anything, communication included."""
    low, expected, high = (0.4, 1.0, 2.5)
    if ranks > 1:
        low, expected, high = (
            (0.8, 2.0, 4.0) if device.architecture in NVLINK_ARCHITECTURES else (0.6, 1.4, 3.0)
        )
    return Quantity(int(low * GIB), int(expected * GIB), int(high * GIB), "assumed", RUNTIME_WHY)


def left_over(taken_bytes: int, limit_bytes: int, share: float) -> int:
    """Return what stays free of what ``taken_bytes`` leave when the cache gets ``share`` of it."""
    return max(0, limit_bytes - taken_bytes) - int(max(0, limit_bytes - taken_bytes) * share)


def share_check(taken: Quantity, cache: Quantity, limit_bytes: int, share: float, note: str) -> Check:
    """Return the test that ``cache`` lies within ``share`` of what ``taken`` leaves.

    What stays free shrinks as more is taken, so each bound is worked out by itself.
    """
    low, expected, high = (
        used + left_over(used, limit_bytes, share) + held
        for used, held in (
            (taken.low, cache.low),
            (taken.expected, cache.expected),
            (taken.high, cache.high),
        )
    )
    basis = worse_basis(taken.basis, cache.basis)
    return Check("budget", Quantity(low, expected, high, basis), limit_bytes, note)
