"""judge(): a Plan becomes a Verdict.

``fits`` when the upper bound passes every check, ``tight`` when only the expected value does,
``offload`` when it works with weights or cache in system memory, ``does_not_fit``, ``refused`` when
the engine will not start whatever the memory, ``unknown`` when the facts are not there.
"""

from typing import Literal

from kvplan.engines.base import Check, DevicePlan, Plan, Trial
from kvplan.frozen import dataclass
from kvplan.quantity import Quantity, total

Status = Literal["fits", "tight", "offload", "does_not_fit", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: a status, the least headroom of any device, and what decided it.

    ``device_index`` is the device that binds, -1 where none does; ``check`` the test that decided;
    ``why`` is a sentence fragment for people.
    """

    status: Status
    headroom_bytes: int
    device_index: int
    check: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as success.

    ``strict`` refuses ``tight``; ``min_headroom_bytes`` asks for more room; ``allow_offload`` and
    ``allow_unknown`` accept what they name.
    """

    strict: bool = False
    allow_offload: bool = False
    allow_unknown: bool = False
    min_headroom_bytes: int = 0


DEFAULT_RULES = Rules()


def judge(plan: Plan | Trial, rules: Rules = DEFAULT_RULES) -> Verdict:
    """Judge a plan against every check on every device and in system memory."""
    index, device, headroom_bytes = _tightest(plan)
    if plan.refusals:
        return Verdict("refused", headroom_bytes, index, "engine", plan.refusals[0].message)
    if device is None and not plan.host:
        why = f"{plan.engine_name} without a GPU is not modelled: name a GPU"
        return Verdict("unknown", 0, -1, "host_memory", why)
    if device is None and plan.workload.cpu_memory_bytes is None:
        why = "the machine's memory is not known: give --cpu-memory"
        return Verdict("unknown", 0, -1, "host_memory", why)
    status: Status = "fits"
    decided: tuple[int, Check | None] = (index, None)
    judged: DevicePlan | None = None
    for position, candidate in enumerate(plan.devices):
        if candidate is judged:
            # Equal ranks share one plan.
            continue
        judged = candidate
        for check in candidate.checks:
            room = check.limit_bytes - (rules.min_headroom_bytes if check.name == "budget" else 0)
            if check.required.high <= room and check.required.expected <= room:
                continue
            outcome = _outcome(check.required, room)
            if _WORSE[outcome] > _WORSE[status]:
                status, decided = outcome, (position, check)
    if plan.host and plan.workload.cpu_memory_bytes is not None:
        host = total(component.bytes for component in plan.host)
        outcome = _outcome(host, plan.workload.cpu_memory_bytes)
        if _WORSE[outcome] > _WORSE[status]:
            status, decided = outcome, (-1, Check("host_memory", host, plan.workload.cpu_memory_bytes))
    if status == "fits" and (plan.cache_basis == "assumed" or plan.model.assumptions):
        status = "tight"
    if plan.offloaded and status in ("fits", "tight"):
        status = "offload"
    position, decisive = decided
    if status == "does_not_fit" and position >= 0 and position != index:
        headroom_bytes = plan.devices[position].headroom_bytes
    name = decisive.name if decisive else (device.binding if device else "host_memory")
    return Verdict(status, headroom_bytes, position, name, decisive.note if decisive else "")


def exit_code(status: Status, rules: Rules = DEFAULT_RULES) -> int:
    """Return the exit code of a verdict: 0 success, 1 failure, 3 cannot tell."""
    if status == "fits":
        return 0
    if status == "tight":
        return 1 if rules.strict else 0
    if status == "offload":
        return 0 if rules.allow_offload else 1
    if status == "unknown":
        return 0 if rules.allow_unknown else 3
    return 1


def succeeds(plan: Plan, rules: Rules = DEFAULT_RULES) -> bool:
    """Tell whether a plan's exit code would be 0."""
    return exit_code(judge(plan, rules).status, rules) == 0


def spare_bytes(plan: Plan, rules: Rules = DEFAULT_RULES) -> int:
    """Return the room in the closest check that ``rules`` ask for; negative when short.

    A plan that spills where ``rules`` do not allow it is as short as the one that does not.
    """
    if plan.on_devices is not None and not rules.allow_offload:
        return spare_bytes(plan.on_devices, rules)
    checks = [check for device in plan.devices for check in device.checks]
    if not checks:
        return _host_headroom(plan)
    if rules.strict:
        return min(check.limit_bytes - check.required.high for check in checks)
    return min(check.limit_bytes - check.required.expected for check in checks)


def pooled_spare_bytes(plan: Plan) -> int:
    """Return the room for what may lie in devices or system memory, negative when short.

    That in both, in system memory once it spills, in the closest device where that is not counted.
    """
    if plan.offloaded and plan.workload.cpu_memory_bytes is None:
        return min(device.headroom_bytes for device in plan.devices)
    on_devices = 0 if plan.offloaded else sum(device.headroom_bytes for device in plan.devices)
    return on_devices + _host_headroom(plan)


_WORSE: dict[Status, int] = {
    "fits": 0,
    "tight": 1,
    "offload": 2,
    "does_not_fit": 3,
    "refused": 4,
    "unknown": 5,
}


def _outcome(required: Quantity, room: int) -> Status:
    if required.expected > room:
        return "does_not_fit"
    return "tight" if required.high > room else "fits"


def _tightest(plan: Plan | Trial) -> tuple[int, DevicePlan | None, int]:
    """Return the device with the least headroom, its position and the headroom; the machine's without."""
    if not plan.devices:
        return -1, None, _host_headroom(plan)
    tightest, least = 0, plan.devices[0].headroom_bytes
    seen = plan.devices[0]
    for index, device in enumerate(plan.devices):
        if device is seen:
            continue
        seen = device
        headroom_bytes = device.headroom_bytes
        if headroom_bytes < least:
            tightest, least = index, headroom_bytes
    return tightest, plan.devices[tightest], least


def _host_headroom(plan: Plan | Trial) -> int:
    if plan.workload.cpu_memory_bytes is None:
        return 0
    return plan.workload.cpu_memory_bytes - total(component.bytes for component in plan.host).expected
