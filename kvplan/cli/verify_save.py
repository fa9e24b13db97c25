"""``kvplan verify --save``: keep what was measured, under the name that later plans give the device."""

from datetime import date
from pathlib import Path

from kvplan.calibration import CacheMeasurement
from kvplan.cli.asked import Asked
from kvplan.engines.base import Plan
from kvplan.errors import CannotTell, InputError, InvalidValue
from kvplan.hardware.detect import catalogue_name, local_devices
from kvplan.verify.allocate import Measured
from kvplan.verify.calibration import save
from kvplan.verify.log_comparison import Replan
from kvplan.verify.measurements import of_blocks, of_log, of_pool
from kvplan.verify.readings import Readings


def keep_allocation(asked: Asked, plan: Plan, measured: Measured, planned_bytes: int) -> Path:
    """Save what the device's allocator set aside for ``planned_bytes`` of cache.

    Raises InvalidValue when ``--gpu`` names another device than the one that was measured, CannotTell
    where the allocator cannot be asked.
    """
    name, also = _names(measured)
    if asked.gpus and not {one.device.name for one in plan.devices} <= {name, also}:
        known = also or ("" if measured.device == "cpu" else "local")
        raise InvalidValue(
            f"--save measured {name}, and --gpu names {', '.join(asked.gpus)}",
            why="later plans would take one device's measurement for another's",
            hint=f"write --gpu {known}" if known else "leave out --gpu, or name the card: --device cuda",
        )
    taken = measured.reserved_bytes
    if taken is None:
        usable = [group.usable_bytes for group in measured.groups]
        taken = None if None in usable else sum(amount or 0 for amount in usable)
    if taken is None:
        raise CannotTell(
            "the allocator of this machine cannot be asked what it set aside",
            why="neither torch nor the C library tells it here",
            hint="leave out --save",
        )
    return save(
        CacheMeasurement(
            device=name,
            also=also,
            engine=plan.engine_name,
            version=plan.engine_version,
            planned_bytes=planned_bytes,
            measured_bytes=taken,
            usable_bytes=measured.total_bytes or 0,
            model=plan.model.name,
            when=_today(),
            driver=measured.driver,
        )
    )


def keep_log(asked: Asked, plan: Plan, readings: Readings) -> Path:
    """Save what a log says lies beside weights and cache. Raises CannotTell where it does not say it."""
    _needs_name(asked)
    found = of_log(plan, readings, when=_today())
    if found is None:
        raise CannotTell(
            f"this {readings.engine} log does not say what lies beside weights and cache",
            why="vLLM prints it after profiling, llama.cpp in its memory table ('unaccounted')",
            hint="give the whole start-up log",
        )
    return save(found)


def keep_server(asked: Asked, plan: Plan, readings: Readings, replan: Replan) -> Path:
    """Save what a server's pool tells: vLLM's overhead, SGLang's cache. Raises CannotTell for the others."""
    _needs_name(asked)
    found = of_blocks(plan, readings, replan, when=_today()) or of_pool(plan, readings, when=_today())
    if found is None:
        raise CannotTell(
            f"this {readings.engine} server does not say what it measured",
            why="vLLM tells its blocks and SGLang its pool; llama-server and Ollama tell no buffers",
            hint="save from its log: kvplan verify --log FILE --gpu NAME --save",
        )
    return save(found)


def _needs_name(asked: Asked) -> None:
    if not asked.gpus:
        raise InputError(
            "--save needs the GPU's name",
            why="later plans use the measurement for that GPU",
            hint="name it as later plans will: --gpu h100, or --gpu local",
        )


def _names(measured: Measured) -> tuple[str, str]:
    """Return the device under its driver's name, as ``--gpu local`` finds it, and the catalogue's."""
    if measured.device == "cpu":
        return "cpu", ""
    if measured.device == "mps":
        return local_devices()[0].name, ""
    return measured.device_name, catalogue_name(measured.device_name, measured.total_bytes or 0)


def _today() -> str:
    return date.today().isoformat()
