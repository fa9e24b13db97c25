"""What this machine itself showed: used by later plans on the same device and engine.

A server's overhead replaces an engine's estimate of what lies beside weights and cache
(``--overhead``): llama.cpp's runtime for any model, vLLM's runtime, activations and graphs for the
model and the scheduler's settings it was read from. A cache that was allocated on the device widens
the cache by what the allocator rounded, and tells how much of the device a process sees. Nothing here
reads a file: the measurements are handed in.
"""

from collections.abc import Sequence
from copy import copy

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Engine, Notice, Plan
from kvplan.frozen import dataclass, replace
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity
from kvplan.workload import Workload

# How far the next start may lie from those measured.
SPREAD_PERCENT = 5
# The settings that vLLM's overhead follows; a measurement holds for the same ones only.
SCOPE_OPTIONS = ("max_num_seqs", "max_num_batched_tokens", "enforce_eager", "tensor_parallel_size")
WHY = "calibrated on this machine"
CACHE_COMPONENTS = ("kv_cache", "recurrent_state")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One server's overhead on one device.

    ``model`` and ``options`` are empty where it holds for every model. ``planned_bytes`` is what the
    plan said before, ``when`` a date.
    """

    device: str
    engine: str
    version: str
    overhead_bytes: int
    planned_bytes: int
    model: str = ""
    options: tuple[tuple[str, object], ...] = ()
    when: str = ""
    driver: str = ""


@dataclass(frozen=True, slots=True)
class CacheMeasurement:
    """One cache as it was allocated on a device (or as a server said it holds it).

    ``device`` is the driver's name of it, ``also`` the catalogue's where it has one. ``measured_bytes``
    is what the allocator set aside for ``planned_bytes``; ``usable_bytes`` what a process sees of the
    device, 0 where nobody was asked.
    """

    device: str
    engine: str
    version: str
    planned_bytes: int
    measured_bytes: int
    usable_bytes: int = 0
    also: str = ""
    model: str = ""
    when: str = ""
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that was measured on this machine.

    ``unreadable`` says why it could not be read: every plan then carries that as a warning.
    """

    overheads: tuple[Measurement, ...] = ()
    caches: tuple[CacheMeasurement, ...] = ()
    unreadable: str = ""

    def __bool__(self) -> bool:
        return bool(self.overheads or self.caches or self.unreadable)


class CalibratedEngine(Engine):
    """An engine that was measured on this machine."""

    def __init__(self, inner: Engine, measurements: Measurements) -> None:
        self.uncalibrated = inner
        self._overheads = tuple(one for one in measurements.overheads if _is_same_engine(one, inner))
        self._caches = measurements.caches
        self._unreadable = measurements.unreadable
        self.name, self.version, self.versions = inner.name, inner.version, inner.versions
        self.kv_formats, self.weight_families = inner.kv_formats, inner.weight_families
        self.about, self.runs_on_cpu = inner.about, inner.runs_on_cpu
        self.spills_by_itself, self.loads_beside = inner.spills_by_itself, inner.loads_beside
        self.takes_what_fits, self.block_size = inner.takes_what_fits, inner.block_size

    def searching(self) -> Engine:
        """Return the same over the engine as searches use it."""
        searching = copy(self)
        searching.uncalibrated = self.uncalibrated.searching()
        return searching

    def spilled(self, plan: Plan, devices: Sequence[Device], *, least: bool = True) -> Plan | None:
        """Spill as the engine does."""
        return self.uncalibrated.spilled(plan, self._seen(devices), least=least)

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Plan as the engine does, with what was measured where it holds."""
        found = self._with_overhead(model, workload, self._seen(devices))
        notices = self._cache_notices(found)
        if self._unreadable:
            notices += (Notice("calibration-unreadable", self._unreadable),)
        held = self._held_here(found)
        if held and found.devices:
            planned = tuple(_with_allocator(device, held) for device in found.devices)
            found = replace(found, devices=planned)
        elif held:
            found = replace(found, host=tuple(_as_allocated(part, held) for part in found.host))
        return replace(found, warnings=(*found.warnings, *notices)) if notices else found

    def _seen(self, devices: Sequence[Device]) -> Sequence[Device]:
        """Return the devices with what a process was seen to have of them."""
        return tuple(_as_measured(device, self._caches) for device in devices)

    def _held_here(self, plan: Plan) -> tuple[CacheMeasurement, ...]:
        """Return the caches that this engine's layout took on the plan's device: the CPU's without one."""
        names = {device.device.name for device in plan.devices} or {"cpu"}
        return tuple(
            one
            for one in self._caches
            if one.planned_bytes > 0
            and names <= {one.device, one.also}
            and _is_same_engine(one, self.uncalibrated)
        )

    def _cache_notices(self, plan: Plan) -> tuple[Notice, ...]:
        held = self._held_here(plan)
        if not held:
            return ()
        worst = max(held, key=lambda one: abs(one.measured_bytes - one.planned_bytes) / one.planned_bytes)
        share = 100 * (worst.measured_bytes - worst.planned_bytes) / worst.planned_bytes
        return (
            Notice(
                "cache-calibrated-on-this-machine",
                f"cache {WHY}: {_times(len(held))}{_dates(held)}, at most {share:+.2f} % from the plan",
            ),
        )

    def _with_overhead(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        if workload.overhead_bytes is not None or not devices:
            return self.uncalibrated.plan(model, workload, devices)
        here = [one for one in self._overheads if all(device.name == one.device for device in devices)]
        if not here:
            return self.uncalibrated.plan(model, workload, devices)
        first = self.uncalibrated.plan(model, workload, devices)
        holding = [one for one in here if _holds(one, first)]
        if not holding:
            return first
        amounts = [one.overhead_bytes for one in holding]
        low = min(amounts) * (100 - SPREAD_PERCENT) // 100
        high = max(amounts) * (100 + SPREAD_PERCENT) // 100
        measured = Quantity(low, sorted(amounts)[len(amounts) // 2], high, "calibrated", WHY)
        told = self.uncalibrated.plan(model, replace(workload, overhead_bytes=measured.expected), devices)
        notice = Notice(
            "calibrated-on-this-machine", f"overhead {WHY}: {_times(len(holding))}{_dates(holding)}"
        )
        return replace(
            told,
            workload=workload,
            devices=tuple(_with_bounds(device, measured) for device in told.devices),
            warnings=(*told.warnings, notice),
        )


def _times(count: int) -> str:
    return f"{count} measurement{'s' if count > 1 else ''}"


def _dates(measured: Sequence[Measurement | CacheMeasurement]) -> str:
    dates = ", ".join(sorted({one.when for one in measured if one.when}))
    return f" of {dates}" if dates else ""


def _as_measured(device: Device, caches: Sequence[CacheMeasurement]) -> Device:
    """Return a device with the memory that a process last saw of it."""
    seen = [one.usable_bytes for one in caches if one.usable_bytes and device.name in (one.device, one.also)]
    if not seen:
        return device
    return replace(device, usable_bytes=seen[-1], usable_low_bytes=min(seen), usable_basis="calibrated")


def _with_allocator(device: DevicePlan, held: Sequence[CacheMeasurement]) -> DevicePlan:
    """Widen a device's cache by what the allocator took for it, and the budget's check with it."""
    components = tuple(_as_allocated(part, held) for part in device.components)
    pairs = list(zip(components, device.components, strict=True))
    low = sum(after.bytes.low - before.bytes.low for after, before in pairs)
    high = sum(after.bytes.high - before.bytes.high for after, before in pairs)
    if not low and not high:
        return replace(device, components=components)
    checks = tuple(
        replace(check, required=_moved(check.required, low, high)) if check.name == "budget" else check
        for check in device.checks
    )
    return replace(device, components=components, checks=checks)


def _as_allocated(part: Component, held: Sequence[CacheMeasurement]) -> Component:
    """Return a cache's component with bounds that hold what the allocator took for the measured ones."""
    amount = part.bytes
    if part.name not in CACHE_COMPONENTS or not amount.expected:
        return part
    shares = [amount.expected * one.measured_bytes // one.planned_bytes for one in held]
    low, high = min(amount.low, *shares), max(amount.high, *shares)
    note = f"{part.note}; {WHY}" if part.note else WHY
    if (low, high) == (amount.low, amount.high):
        return Component(part.name, amount, note)
    return Component(part.name, _moved(amount, low - amount.low, high - amount.high), note)


def _moved(amount: Quantity, low: int, high: int) -> Quantity:
    return Quantity(
        max(0, amount.low + low),
        amount.expected,
        amount.high + high,
        "assumed" if amount.basis == "assumed" else "calibrated",
        amount.why,
    )


def _is_same_engine(one: Measurement | CacheMeasurement, engine: Engine) -> bool:
    if one.engine != engine.name:
        return False
    # A llama.cpp build's number changes daily; releases of the others change what they hold.
    return engine.name in ("llama.cpp", "ollama") or _release(one.version) == _release(engine.version)


def _release(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def _holds(one: Measurement, plan: Plan) -> bool:
    if not one.model:
        return True
    options = dict(plan.engine_options)
    return one.model == plan.model.name and all(options.get(name) == value for name, value in one.options)


def _with_bounds(device: DevicePlan, measured: Quantity) -> DevicePlan:
    components = tuple(
        Component(part.name, measured, part.note) if _is_overhead(part, measured) else part
        for part in device.components
    )
    checks = tuple(_widened(check, measured) if check.name == "budget" else check for check in device.checks)
    return replace(device, components=components, checks=checks)


def _is_overhead(part: Component, measured: Quantity) -> bool:
    return part.name == "runtime" and part.bytes.expected == measured.expected


def _widened(check: Check, measured: Quantity) -> Check:
    required = check.required
    return replace(
        check,
        required=Quantity(
            max(0, required.low - measured.expected + measured.low),
            required.expected,
            required.high - measured.expected + measured.high,
            required.basis if required.basis == "assumed" else "calibrated",
            required.why,
        ),
    )
