"""What one device holds under llama.cpp: weights, cache, compute buffer, and what lies beside them."""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import CacheUse, Check, Component, DevicePlan
from kvplan.engines.llama_cpp.devices import one_memory_check, runtime_of
from kvplan.engines.llama_cpp.placement import Holding, Placed
from kvplan.quantity import Quantity, exact, total
from kvplan.units import ceil_div
from kvplan.workload import Workload


def cache_on(placed: Placed, index: int, cache: CacheUse) -> Quantity:
    """Return one device's part of the cache; an even share of the interval where no rule is known."""
    if not placed.unmodelled:
        return exact(placed.devices[index].cache_bytes)
    whole, num_gpus = cache.total, len(placed.devices)
    return Quantity(
        ceil_div(whole.low, num_gpus),
        ceil_div(whole.expected, num_gpus),
        ceil_div(whole.high, num_gpus),
        "assumed",
    )


def _by_share(amount: Quantity) -> Quantity:
    why = "a part of every layer, taken to be the device's share"
    return Quantity(amount.low * 85 // 100, amount.expected, amount.high * 115 // 100, "assumed", why)


def device_plan(
    device: Device,
    budget_bytes: int,
    held: Holding,
    kv_cache: Quantity,
    compute: Quantity,
    workload: Workload,
    host: Sequence[Component],
    extras: Sequence[Component],
    by_parts: bool,
) -> DevicePlan:
    """Return what a device holds and the tests that must hold there.

    ``host`` lies in system memory, which one memory shares; ``extras`` lie here beside the model;
    ``by_parts`` says that every layer is divided over the devices.
    """
    weights = exact(held.weight_bytes)
    if by_parts:
        weights, kv_cache = _by_share(weights), _by_share(kv_cache)
    parts = [Component("weights", weights), Component("kv_cache", kv_cache)]
    if held.state_bytes:
        parts.append(Component("recurrent_state", exact(held.state_bytes)))
    parts.append(Component("activations", compute, "compute buffer"))
    parts += extras
    runtime = runtime_of(device, workload.option("device"))
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    parts.append(Component("runtime", runtime))
    components = tuple(parts)
    required = total(part.bytes for part in components)
    checks = [Check("budget", required, budget_bytes, "the card is full")]
    if device.unified_memory:
        checks.append(one_memory_check(device, components, host))
    return DevicePlan(device, budget_bytes, components, tuple(checks), reads=held.reads)
