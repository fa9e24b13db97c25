"""Changes made and planned: what they give, what they lose and what they cost.

A change is an ``Option``; made together in a ``Situation``, options give a ``Suggestion``: its plan,
judged, with what each costs in quality and who measured it. Nothing is guessed, and what the engine
refuses is no suggestion.
"""

from collections.abc import Callable, Iterator, Sequence

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.errors import KvplanError
from kvplan.frozen import dataclass, replace
from kvplan.judge import DEFAULT_RULES, Rules, Verdict, exit_code, judge
from kvplan.model import ModelSpec
from kvplan.offload import plan_or_offload
from kvplan.plan import as_it_is, default_engine, plan
from kvplan.quality import kv_loss, weight_loss
from kvplan.solve import is_short
from kvplan.weights import format_name_of, weights_exceed
from kvplan.workload import Workload


@dataclass(frozen=True, slots=True)
class Option:
    """One change: what it sets, the quality it loses, and what else it costs."""

    key: str
    value: str
    loss: int = 0
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """What one change costs in quality, as published; ``text`` is empty where nobody measured it."""

    key: str
    value: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Changes that, made together, give ``verdict``; ``loss`` and ``cost`` rank it."""

    changes: tuple[tuple[str, str], ...]
    verdict: Verdict
    plan: Plan
    loss: int
    cost: int = 0
    prices: tuple[Price, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """What is being changed: the question, its devices and whether the engine was chosen by name.

    ``measured`` gives another engine that a change calls for what was measured on this machine.
    """

    model: ModelSpec
    workload: Workload
    devices: tuple[Device, ...]
    engine: Engine
    engine_chosen: bool
    rules: Rules = DEFAULT_RULES
    measured: Callable[[Engine], Engine] = as_it_is


def changed(situation: Situation, options: Sequence[Option]) -> tuple[Workload, tuple[Device, ...], Engine]:
    """Return the workload, the devices and the engine with ``options`` made."""
    workload, devices, engine = situation.workload, situation.devices, situation.engine
    for option in options:
        match option.key:
            case "kv":
                workload = replace(workload, kv_cache_dtype_k=option.value, kv_cache_dtype_v=option.value)
            case "weights":
                workload = replace(workload, weights_format=option.value)
                if not situation.engine_chosen:
                    engine = situation.measured(default_engine(situation.model, option.value)).searching()
            case "gpu":
                devices = (devices[0],) * int(option.value)
            case "ctx":
                workload = replace(workload, context_tokens=int(option.value), context_source="flag")
            case "batch":
                workload = replace(workload, num_sequences=int(option.value))
            case "allow_offload":
                pass
            case _:
                value = _read(option.value)
                kept = tuple(pair for pair in workload.engine_options if pair[0] != option.key)
                workload = replace(workload, engine_options=(*kept, (option.key, value)))
    return workload, devices, engine


def _read(text: str) -> object:
    if text == "true":
        return True
    return int(text) if text.isdigit() else float(text)


def weights_alone_exceed(model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> bool:
    """Tell whether the weights alone are more than the devices, so that nothing needs to be planned."""
    name = format_name_of(model, workload.weights_format)
    return weights_exceed(model, name, sum(device.usable_bytes for device in devices))


def attempt(situation: Situation, options: Sequence[Option], rules: Rules | None = None) -> Suggestion | None:
    """Return what ``options`` together give, None where that is not a success or cannot be planned.

    What runs only by spilling is a success where ``rules`` allow it.
    """
    judged_by = rules or situation.rules
    workload, devices, engine = changed(situation, options)
    if engine.name != situation.engine.name and (
        workload.engine_options
        or any(option.key == "kv" and option.value not in engine.kv_formats for option in options)
    ):
        # Flags and formats of one engine mean nothing to another.
        return None
    try:
        if rules is not None and rules.allow_offload:
            result = plan_or_offload(situation.model, workload, devices, engine, rules)
        elif (
            not judged_by.allow_offload and weights_alone_exceed(situation.model, workload, devices)
        ) or is_short(situation.model, workload, devices, engine):
            return None
        else:
            result = plan(situation.model, workload, devices, engine)
    except KvplanError:
        return None
    verdict = judge(result, judged_by)
    if exit_code(verdict.status, judged_by) != 0 or (verdict.status == "offload" and rules is None):
        return None
    return Suggestion(
        tuple((option.key, option.value) for option in options),
        verdict,
        result,
        sum(option.loss for option in options),
        sum(option.cost for option in options),
        tuple(_prices(result.engine_name, options)),
    )


def _prices(engine_name: str, options: Sequence[Option]) -> Iterator[Price]:
    for option in options:
        if option.key in ("kv", "weights"):
            loss = kv_loss(engine_name, option.value) if option.key == "kv" else weight_loss(option.value)
            yield Price(option.key, option.value, loss.text, loss.source)
