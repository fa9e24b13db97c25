"""The plan's cache, allocated: what was measured against what was planned."""

from collections.abc import Mapping

from kvplan.engines.base import Notice, Plan
from kvplan.errors import CannotTell
from kvplan.frozen import dataclass
from kvplan.quantity import exact
from kvplan.units import format_gib
from kvplan.verify import device_memory
from kvplan.verify.allocate import Measured, Progress, measure, room_bytes
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup, layout_of, scaled_down
from kvplan.verify.comparison import Comparison, of_quantity

# How far the device's own count may lie from the tensors': pages and small pools round up.
LOST_PERCENT = 2
LOST_SLACK_BYTES = 64 * 2**20
# What must be back after freeing, beside the noise of a running interpreter.
LEFT_SLACK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Allocation:
    """What allocating showed."""

    rows: tuple[Comparison, ...]
    facts: Mapping[str, object]
    warnings: tuple[Notice, ...]
    measured: Measured


def prepare(
    plan: Plan, device_name: str, max_memory_bytes: int | None
) -> tuple[CacheLayout, CacheLayout, str]:
    """Return (the whole layout, what will be allocated of it, the device).

    Raises CannotTell when it would not fit in what is free and ``--max-memory`` does not allow a part,
    InvalidValue for a device there is none of.
    """
    torch = device_memory.torch_module()
    device = device_memory.device_of(torch, device_name)
    whole = layout_of(plan)
    if not whole.cache_bytes:
        raise CannotTell(
            f"{plan.model.name} keeps no cache under {plan.engine_name}",
            why="its layers store nothing between tokens",
            hint="see: kvplan show",
        )
    allowed, free = room_bytes(device, max_memory_bytes)
    if whole.num_bytes > allowed and max_memory_bytes is None:
        raise CannotTell(
            f"the cache takes {format_gib(whole.num_bytes)}, and {format_gib(free)} are free on {device}",
            why="a tenth of the free memory is left to the rest of the machine",
            hint=f"measure fewer layers: --max-memory {max(1, allowed // 2**30)}GiB",
        )
    return whole, scaled_down(whole, allowed), device


def allocate(
    plan: Plan, whole: CacheLayout, part: CacheLayout, device: str, progress: Progress
) -> Allocation:
    """Allocate ``part`` of a plan's layout and compare. Raises CannotTell when memory runs out."""
    measured = measure(part, device, progress)
    return Allocation(
        _rows(plan, whole, part, measured), _facts(part, measured), _warnings(part, measured), measured
    )


def _rows(plan: Plan, whole: CacheLayout, part: CacheLayout, measured: Measured) -> tuple[Comparison, ...]:
    rows = [
        of_quantity(
            one.group.name,
            None if one.group.planned_bytes is None else exact(one.group.planned_bytes),
            one.storage_bytes,
            where=_where(one.group),
            why=f"{one.seconds:.2f} s"
            + (f", allocator {one.usable_bytes:,} B" if one.usable_bytes is not None else ""),
        )
        for one in measured.groups
    ]
    if part.num_layers_left_out:
        where = "its shapes added up, not allocated"
        rows.append(of_quantity("whole_cache", plan.cache.total, whole.cache_bytes, where=where))
    else:
        rows.append(of_quantity("whole_cache", plan.cache.total, measured.cache_bytes))
    return tuple(rows)


def _where(group: LayoutGroup) -> str:
    if group.beside:
        return f"{group.detail}, beside the cache" if group.detail else "beside the cache"
    layers = f"{group.num_layers} {group.unit}{'s' if group.num_layers != 1 else ''}"
    return f"{layers}, {group.detail}" if group.detail else layers


def _facts(part: CacheLayout, measured: Measured) -> dict[str, object]:
    usable = [group.usable_bytes for group in measured.groups]
    reserved = measured.reserved_bytes
    if reserved is None and None not in usable:
        reserved = sum(amount for amount in usable if amount is not None)
    return {
        "device": measured.device,
        "device_name": measured.device_name,
        "driver": measured.driver,
        "free_before_bytes": measured.free_before_bytes,
        "storage_bytes": measured.storage_bytes,
        "allocator_bytes": reserved,
        "device_lost_bytes": measured.lost_bytes,
        "left_after_bytes": measured.left_bytes,
        "layers_left_out": part.num_layers_left_out,
        "seconds": round(measured.seconds, 3),
    }


def _warnings(part: CacheLayout, measured: Measured) -> tuple[Notice, ...]:
    warnings: list[Notice] = []
    if part.num_layers_left_out:
        whole = part.num_layers + part.num_layers_left_out
        warnings.append(
            Notice(
                "scaled-down",
                f"only {part.num_layers} of {whole} layers were allocated: --max-memory allows no more",
            )
        )
    if part.beside_left_out:
        names = ", ".join(name.replace("_", " ") for name in part.beside_left_out)
        warnings.append(
            Notice("beside-left-out", f"not allocated beside the cache: {names}: --max-memory allows no more")
        )
    lost = measured.lost_bytes
    slack = max(LOST_SLACK_BYTES, measured.storage_bytes * LOST_PERCENT // 100)
    if lost is not None and abs(lost - measured.storage_bytes) > slack:
        warnings.append(
            Notice(
                "device-lost-differs",
                f"the device lost {format_gib(lost)} for {format_gib(measured.storage_bytes)} of tensors: "
                "others allocate on it, or its allocator rounds",
            )
        )
    if measured.left_bytes is not None and measured.left_bytes > LEFT_SLACK_BYTES:
        warnings.append(
            Notice("memory-left", f"{format_gib(measured.left_bytes)} were not given back after freeing")
        )
    return tuple(warnings)
