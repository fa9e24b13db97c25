"""A launch's ranks on the GPUs it is given: are there enough, which does it take, which stay idle."""

from collections.abc import Sequence

from kvplan.deploy.devices import Choice, Choices, taken
from kvplan.deploy.launch import Launch
from kvplan.deploy.planning import RANKS, TAKES_ALL, Command
from kvplan.device import Device


def too_few_gpus(launch: Launch, command: Command, choices: Choices) -> tuple[str, str, str, int] | None:
    """Return (why, fix, flag, line) where a launch asks for more GPUs than it is given."""
    if launch.engine not in RANKS:
        return None
    in_all, local = command.ranks()
    have = launch.gpus.count
    nodes = _nodes(launch)
    for choice in choices.choices:
        if choice.multiplied and (have is None or len(choice.devices) < have) and nodes == 1:
            have = len(choice.devices)
    if have is None or have == 0 or min(in_all, local * nodes) <= have * nodes or _spans_nodes(launch):
        return None
    names = RANKS[launch.engine]
    given = command.line_of(*(name for name in names if name))
    flag, line = given or ("", 0)
    return (
        f"it needs {local} GPUs and is given {have}",
        f"give it {local} GPUs, or lower {flag or 'its ranks'}",
        flag,
        line,
    )


def _nodes(launch: Launch) -> int:
    for index, word in enumerate(launch.flags):
        spelling, joined, value = word.text.partition("=")
        if spelling == "--nnodes":
            text = value if joined else launch.flags[index + 1].text if index + 1 < len(launch.flags) else ""
            return max(1, int(text)) if text.isdigit() and len(text) < 6 else 1
    return 1


def _spans_nodes(launch: Launch) -> bool:
    """Tell whether a Ray cluster may bring GPUs that the file does not show."""
    return any(word.text in ("ray", "--distributed-executor-backend=ray") for word in launch.flags)


def devices_of(launch: Launch, command: Command, choice: Choice) -> tuple[Device, ...] | None:
    """Return the devices that a launch's ranks take of a choice, None where they cannot be told apart."""
    in_all, _ = command.ranks()
    if launch.engine not in TAKES_ALL and not choice.devices:
        return ()
    if launch.spreads and in_all == 1:
        return choice.devices
    found = taken(choice, launch, in_all, takes_all=launch.engine in TAKES_ALL)
    if found is None and choice.devices and len(set(choice.devices)) == 1:
        # Several nodes of the same kind: what one shows holds for all.
        return choice.devices[:1] * in_all
    return found


def idle(choice: Choice, devices: Sequence[Device]) -> tuple[str, ...]:
    """Say where a launch leaves GPUs idle that it is given: its ranks decide, not their number."""
    given = len(choice.devices)
    if not choice.multiplied or len(devices) >= given:
        return ()
    return (f"it runs on {len(devices)} of the {given} GPUs it is given",)


def gpu_text(choice: Choice, devices: Sequence[Device]) -> str:
    """Name the devices of a plan: ``2 × h100-sxm``."""
    if not devices:
        return "CPU"
    names = [device.name for device in devices]
    if len(set(names)) > 1:
        return choice.text
    return names[0] if len(names) == 1 else f"{len(names)} × {names[0]}"
