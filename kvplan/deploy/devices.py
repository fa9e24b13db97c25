"""Which devices a launch gets: what was typed, what the file names, how many its ranks take."""

import re
from collections.abc import Sequence
from dataclasses import replace

from kvplan.deploy.gpu_names import AMBIGUOUS, MEANS, kvplan_names
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.settings import Settings
from kvplan.device import Device
from kvplan.errors import KvplanError, UnknownGpu
from kvplan.frozen import dataclass
from kvplan.hardware.parse import parse_gpu, parse_gpus

_COUNTED = re.compile(r"\s*(\d+)\s*[xX×*]\s*(.+)")


@dataclass(frozen=True, slots=True)
class Choice:
    """One possible set of devices: all that the launch can see; ``multiplied`` when their number is said."""

    devices: tuple[Device, ...]
    multiplied: bool
    text: str


@dataclass(frozen=True, slots=True)
class Choices:
    """The devices a launch may get: one choice, or several where the file lists candidates.

    ``any_of`` says that every candidate must do (a scheduler picks); otherwise several mean that the
    name is ambiguous. ``why`` says what is missing where there is none.
    """

    choices: tuple[Choice, ...] = ()
    any_of: bool = False
    why: str = ""
    fix: str = ""
    note: str = ""


def choices_for(launch: Launch, settings: Settings) -> Choices:
    """Return the devices of a launch. Raises KvplanError for a ``--gpu`` that is none."""
    hint = launch.gpus
    sliced = bool(hint.names) and all(name.startswith("mig-") for name in hint.names)
    gpus = settings.gpus or (settings.default_gpus if sliced or not (hint.names or hint.cpu) else ())
    if gpus:
        return _typed(hint, gpus)
    if hint.cpu:
        if launch.engine in ("llama.cpp", "ollama"):
            return Choices((Choice((), True, "CPU"),))
        return Choices(why=f"{launch.engine} on the CPU is not modelled", fix="--gpu GPU")
    if not hint.names:
        return Choices(why="the GPU is not named", fix="--gpu GPU")
    found: list[Choice] = []
    for name in hint.names:
        for gpu in _readings(name, settings):
            device = _device(gpu)
            if device is None:
                return Choices(why=f"'{name}' is no GPU that kvplan knows", fix="--gpu GPU")
            count = hint.count or 1
            found.append(Choice((device,) * count, hint.count is not None, device.name))
    return Choices(tuple(found), any_of=len(hint.names) > 1)


def _typed(hint: GpuHint, gpus: Sequence[str]) -> Choices:
    """Return what ``--gpu`` names; a MIG profile in the file narrows it."""
    devices = parse_gpus(gpus)
    if not devices:
        return Choices((Choice((), True, "CPU"),))
    text = " + ".join(gpus)
    multiplied = len(devices) > 1 or _COUNTED.fullmatch(gpus[0]) is not None
    profile = next((name.removeprefix("mig-") for name in hint.names if name.startswith("mig-")), None)
    if profile is not None and len(devices) == 1 and ":mig-" not in gpus[0]:
        text = f"{gpus[0]}:mig-{profile}"
        devices = parse_gpu(text)
    note = ""
    if hint.names and profile is None and not _same(hint, devices):
        note = f"the file names {', '.join(hint.names)}; --gpu {text} is what was planned"
    return Choices((Choice(devices, multiplied, text),), note=note)


def _same(hint: GpuHint, devices: Sequence[Device]) -> bool:
    named = [_device(gpu) for name in hint.names for gpu in kvplan_names(name)]
    return any(device is not None and device.name == devices[0].name for device in named)


def _readings(name: str, settings: Settings) -> tuple[str, ...]:
    """Return the ``--gpu`` spellings that a file's name may mean; several where it is ambiguous."""
    if name in settings.gpu_names:
        return (settings.gpu_names[name],)
    spellings = kvplan_names(name)
    # A label that is known to mean one card comes before the shorter spellings that leave its size open.
    if spellings[0] not in MEANS.values():
        for spelling in spellings:
            if spelling in AMBIGUOUS:
                return AMBIGUOUS[spelling]
    return (next((spelling for spelling in spellings if _device(spelling) is not None), spellings[-1]),)


def _device(gpu: str) -> Device | None:
    try:
        found = parse_gpu(gpu)
    except UnknownGpu:
        return None
    except KvplanError:
        return None
    return found[0] if len(found) == 1 else None


def taken(choice: Choice, launch: Launch, needed: int, *, takes_all: bool) -> tuple[Device, ...] | None:
    """Return the devices a launch runs on, None where it needs more than there are.

    An engine that takes what it sees (llama.cpp) gets all; others their first ``needed``.
    """
    devices = choice.devices
    hint = launch.gpus
    if choice.multiplied and len(devices) > 1 and hint.indices and max(hint.indices) < len(devices):
        devices = tuple(devices[index] for index in hint.indices)
    visible = hint.count
    if takes_all:
        if choice.multiplied or not devices:
            return devices if visible is None else devices[: max(1, visible)]
        return devices * max(1, visible or needed)
    if choice.multiplied:
        return devices[:needed] if len(devices) >= needed else None
    if visible is not None and visible and needed > visible:
        return None
    return tuple(replace(device) for device in devices) * needed if len(devices) == 1 else devices[:needed]
