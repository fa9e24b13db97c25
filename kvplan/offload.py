"""What does not fit may run with a part in system memory: the engine's own way, where it has one."""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.judge import DEFAULT_RULES, Rules, judge
from kvplan.model import ModelSpec
from kvplan.plan import plan
from kvplan.workload import Workload


def plan_or_offload(
    model: ModelSpec,
    workload: Workload,
    devices: Sequence[Device],
    engine: Engine,
    rules: Rules = DEFAULT_RULES,
) -> Plan:
    """Plan ``workload``, and where the devices are too small, as the engine spills it.

    Only where the machine's memory is known, or the rules accept spilling: how much memory a machine
    has is not guessed. A spilled plan keeps the one without as ``on_devices``. Raises what ``plan``
    raises.
    """
    return settled(plan(model, workload, devices, engine), devices, engine, rules)


def settled(result: Plan, devices: Sequence[Device], engine: Engine, rules: Rules = DEFAULT_RULES) -> Plan:
    """Return ``result``, or the plan that spills where ``result`` does not fit and one can."""
    counts = engine.spills_by_itself or rules.allow_offload or result.workload.cpu_memory_bytes is not None
    if not counts:
        return result
    spilled = alternative(result, devices, engine, rules)
    if spilled is None or judge(spilled, rules).status != "offload":
        return result
    return spilled


def alternative(
    result: Plan,
    devices: Sequence[Device],
    engine: Engine,
    rules: Rules = DEFAULT_RULES,
    *,
    least: bool = True,
) -> Plan | None:
    """Return how ``result``, which does not fit, would run with a part in system memory; None if nohow.

    Without ``least`` the part is as large as it may be, which is found sooner.
    """
    if result.offloaded or judge(result, rules).status != "does_not_fit":
        return None
    return engine.spilled(result, devices, least=least)
