"""What this machine's own servers showed: used by later plans on the same device and engine.

One measurement replaces an engine's estimate of what lies beside weights and cache (``--overhead``):
llama.cpp's runtime for any model, vLLM's runtime, activations and graphs for the model and the
scheduler's settings it was read from. Nothing here reads a file: the measurements are handed in.
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Engine, Notice, Plan
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity
from kvplan.workload import Workload

# How far the next start may lie from those measured.
SPREAD_PERCENT = 5
# The settings that vLLM's overhead follows; a measurement holds for the same ones only.
SCOPE_OPTIONS = ("max_num_seqs", "max_num_batched_tokens", "enforce_eager", "tensor_parallel_size")
WHY = "calibrated on this machine"


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


class CalibratedEngine(Engine):
    """An engine whose overhead was measured on this machine."""

    def __init__(self, inner: Engine, measurements: Sequence[Measurement]) -> None:
        self.uncalibrated = inner
        self._measurements = tuple(one for one in measurements if _is_same_engine(one, inner))
        self.name, self.version, self.versions = inner.name, inner.version, inner.versions
        self.kv_formats, self.weight_families = inner.kv_formats, inner.weight_families
        self.about, self.runs_on_cpu = inner.about, inner.runs_on_cpu
        self.spills_by_itself = inner.spills_by_itself

    def most_spare_bytes(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> int | None:
        """Return the engine's own bound, which counts no overhead."""
        return self.uncalibrated.most_spare_bytes(model, workload, devices)

    def spilled(self, plan: Plan, devices: Sequence[Device]) -> Plan | None:
        """Spill as the engine does."""
        return self.uncalibrated.spilled(plan, devices)

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Plan as the engine does, with the measured overhead where one holds."""
        if workload.overhead_bytes is not None or not devices:
            return self.uncalibrated.plan(model, workload, devices)
        here = [one for one in self._measurements if all(device.name == one.device for device in devices)]
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
        dates = ", ".join(sorted({one.when for one in holding if one.when}))
        notice = Notice(
            "calibrated-on-this-machine",
            f"overhead {WHY}: {len(holding)} measurement{'s' if len(holding) > 1 else ''}"
            + (f" of {dates}" if dates else ""),
        )
        return replace(
            told,
            workload=workload,
            devices=tuple(_with_bounds(device, measured) for device in told.devices),
            warnings=(*told.warnings, notice),
        )


def _is_same_engine(one: Measurement, engine: Engine) -> bool:
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
