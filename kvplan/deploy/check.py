"""Check a launch: is it known what it runs, on what, and does that fit?

In this order: what is not known makes the row ``unknown``; what the engine would refuse whatever the
memory, ``refused``; then the plan is judged. A failure that holds on every possible card is a failure
even where the card is not known for sure.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from kvplan.deploy.budgets import broken_budgets
from kvplan.deploy.devices import Choice, Choices, choices_for, taken
from kvplan.deploy.drafting import draft_named
from kvplan.deploy.launch import Launch
from kvplan.deploy.model_names import Models, Resolved, Unresolved
from kvplan.deploy.planning import (
    CONTEXT_OPTIONS,
    RANKS,
    TAKES_ALL,
    Command,
    engine_of,
    planned,
    read_command,
    workload_of,
)
from kvplan.deploy.rows import SEVERITY, Place, Row
from kvplan.deploy.settings import Settings
from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.errors import CannotTell, KvplanError, UnknownEngine
from kvplan.judge import Status, Verdict, exit_code, judge
from kvplan.solve import limits

MAX_SHOWN = 400
SettingsOf = Callable[[Launch], Settings]
# What decides a failed test: the options to point at, the first that was given.
DECISIVE: dict[str, tuple[str, ...]] = {
    "heads-not-divisible": ("tensor_parallel_size", "tp_size"),
    "vocabulary-not-divisible": ("tensor_parallel_size", "tp_size"),
    "too-few-layers": ("pipeline_parallel_size", "pp_size"),
    "context-exceeds-model": CONTEXT_OPTIONS,
    "free_at_start": ("gpu_memory_utilization", "mem_fraction_static"),
    "outside_pool": ("gpu_memory_utilization", "mem_fraction_static"),
    "host_memory": ("n_cpu_moe", "cpu_moe", "n_gpu_layers"),
}


def check_launch(launch: Launch, settings: Settings, models: Models) -> Row:
    """Return the row of a launch. Raises KvplanError only for settings that are wrong themselves."""
    row = _checked(launch, settings, models)
    # What files say goes to terminals and logs: nothing in it may steer them.
    return replace(
        row,
        name=printable(row.name),
        engine=printable(row.engine),
        model=printable(row.model),
        gpu=printable(row.gpu),
        why=printable(row.why),
        fix=printable(row.fix),
        flag=printable(row.flag),
        notes=tuple(printable(note) for note in row.notes),
        unknown_flags=tuple((printable(flag), line) for flag, line in row.unknown_flags),
    )


def printable(text: str) -> str:
    """Return a text on one line, without control characters, at a length that can be read."""
    line = " ".join(text.split())
    clean = "".join(char if char.isprintable() else "?" for char in line)
    return clean if len(clean) <= MAX_SHOWN else f"{clean[:MAX_SHOWN]}…"


def _checked(launch: Launch, settings: Settings, models: Models) -> Row:
    command = read_command(launch)
    row = _blank(launch, command)
    try:
        engine, version_notes = engine_of(launch, settings)
    except UnknownEngine:
        return _unknown(row, settings, f"kvplan has no rules of {launch.engine or 'this engine'}", "")
    row = replace(row, engine_version=engine.version, notes=(*row.notes, *version_notes))
    choices = choices_for(launch, settings)
    row = replace(row, notes=(*row.notes, choices.note) if choices.note else row.notes)
    undefined = command.undefined()
    unreadable = command.unreadable()
    if unreadable is not None and not undefined:
        flag, value, line = unreadable
        why = f"{flag} cannot be read: its value is '{value}'"
        return _failed(row, settings, "refused", why, "", flag, line)
    if command.wrong_variable:
        return _failed(row, settings, "refused", command.wrong_variable, "", "", 0)
    too_few = _too_few_gpus(launch, command, choices)
    if too_few is not None and not undefined:
        return _failed(row, settings, "refused", *too_few)
    resolved = models.resolve(launch, settings)
    if isinstance(resolved, Unresolved):
        return _unknown(row, settings, _both(resolved.why, choices), resolved.fix)
    row = replace(row, model_id=resolved.model.name, notes=(*row.notes, *resolved.notes))
    if undefined:
        why = f"{', '.join(undefined)} is not defined"
        return _unknown(row, settings, _both(why, choices), f"--env {undefined[0]}=VALUE")
    if launch.missing:
        return _unknown(row, settings, _both(launch.missing[0], choices), "")
    draft = draft_named(command.options.items())
    resolved = models.drafted(resolved, draft, launch, settings) if draft else resolved
    if not choices.choices:
        refused = _refused_anywhere(row, command, resolved, settings, engine)
        return refused or _unknown(row, settings, choices.why, choices.fix)
    rows: list[Row] = []
    for choice in choices.choices:
        devices = _devices(launch, command, choice)
        if devices is None:
            return _unknown(row, settings, "its GPUs cannot be told apart", "--gpu GPU")
        try:
            workload = workload_of(command, resolved, settings)
            result = planned(command, resolved, devices, engine, workload, settings.rules)
        except CannotTell as error:
            return _unknown(row, settings, f"{error.message}: {error.why}", error.hint)
        except KvplanError as error:
            rows.append(_failed(row, settings, "refused", f"{error.message}: {error.why}", error.hint, "", 0))
            continue
        named = replace(row, gpu=gpu_text(choice, devices), notes=(*row.notes, *_idle(choice, devices)))
        rows.append(judged(named, command, result, settings, engine))
    return _combined(rows, choices, settings)


def _refused_anywhere(
    row: Row, command: Command, resolved: Resolved, settings: Settings, engine: Engine
) -> Row | None:
    """Return the row of what the engine refuses on any card, None where it refuses nothing."""
    try:
        workload = workload_of(command, resolved, settings)
        result = planned(command, resolved, (), engine, workload, settings.rules)
    except KvplanError:
        # Without a card there is no plan, and so nothing proven.
        return None
    if not result.refusals:
        return None
    found = judged(row, command, result, settings, engine)
    return replace(found, plan=None, headroom_bytes=None)


def _blank(launch: Launch, command: Command) -> Row:
    line = launch.model.line if launch.model is not None and launch.model.line else launch.line
    return Row(
        name=launch.name,
        at=Place(launch.file, line),
        engine=launch.engine,
        engine_version=launch.version,
        model=launch.model.text if launch.model is not None else "",
        model_id="",
        gpu=", ".join(launch.gpus.names),
        status="unknown",
        exit_code=3,
        unknown_flags=command.unknown_flags(),
        notes=launch.notes,
    )


def _both(why: str, choices: Choices) -> str:
    return why if choices.choices or not choices.why else f"{why}; {choices.why}"


def _unknown(row: Row, settings: Settings, why: str, fix: str) -> Row:
    return replace(row, status="unknown", exit_code=exit_code("unknown", settings.rules), why=why, fix=fix)


def _failed(row: Row, settings: Settings, status: Status, why: str, fix: str, flag: str, line: int) -> Row:
    at = Place(row.at.file, line) if flag else None
    code = exit_code(status, settings.rules)
    return replace(row, status=status, exit_code=code, why=why, fix=fix, flag=flag, flag_at=at)


def _too_few_gpus(launch: Launch, command: Command, choices: Choices) -> tuple[str, str, str, int] | None:
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


def _devices(launch: Launch, command: Command, choice: Choice) -> tuple[Device, ...] | None:
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


def _idle(choice: Choice, devices: Sequence[Device]) -> tuple[str, ...]:
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


def judged(row: Row, command: Command, result: Plan, settings: Settings, engine: Engine) -> Row:
    """Judge a plan and say what decided, where, and what would do."""
    rules = settings.rules
    if settings.budget.min_headroom_bytes is not None:
        # A budget is judged beside the verdict, so that a report can tell them apart.
        rules = replace(rules, min_headroom_bytes=0)
    verdict = judge(result, rules)
    left_out = [notice.message for notice in result.warnings if notice.code.endswith("-not-counted")]
    if left_out and verdict.status == "fits":
        # What has a part missing may fit, and is not certain to.
        verdict = replace(verdict, status="tight")
    code = exit_code(verdict.status, rules)
    broken = broken_budgets(result, verdict, settings.budget)
    why, fix = _explained(result, verdict, engine)
    if left_out and verdict.status == "tight":
        why = left_out[0]
    options = _decisive(result, verdict, fix)
    given = command.line_of(*options) if code == 1 or verdict.status == "tight" else None
    notes = list(row.notes)
    notes += [
        notice.message
        for notice in result.warnings
        if notice.code != "context-exceeds-model" or not result.refusals
    ]
    return replace(
        row,
        status=verdict.status,
        exit_code=1 if broken and code in (0, 3) else code,
        headroom_bytes=verdict.headroom_bytes if result.devices or result.host else None,
        why=why,
        fix=fix,
        flag=given[0] if given else "",
        flag_at=Place(row.at.file, given[1]) if given else None,
        plan=result,
        notes=tuple(dict.fromkeys(notes)),
        broken_budgets=broken,
        settings=dict(result.engine_options),
    )


def _decisive(result: Plan, verdict: Verdict, fix: str) -> tuple[str, ...]:
    if result.refusals:
        return DECISIVE.get(result.refusals[0].code, ())
    if verdict.check in DECISIVE:
        return DECISIVE[verdict.check]
    shorter = CONTEXT_OPTIONS if "tokens" in fix else ()
    return (
        *shorter,
        "tensor_parallel_size",
        "tp_size",
        "gpu_memory_utilization",
        "mem_fraction_static",
        "n_gpu_layers",
        "max_model_len",
    )


def _explained(result: Plan, verdict: Verdict, engine: Engine) -> tuple[str, str]:
    """Return (why it fails or is in doubt, what would do); empty for what fits."""
    if result.refusals:
        return result.refusals[0].message, result.refusals[0].fix
    if verdict.status == "unknown":
        return verdict.why, "--gpu GPU or --cpu-memory SIZE"
    if verdict.status == "tight":
        return "fits as expected, but the uncertainty reaches over the limit", ""
    if verdict.status == "offload":
        return "weights or cache lie in system memory: it runs, slowly", ""
    if verdict.status == "fits":
        return "", ""
    devices = tuple(part.device for part in result.devices)
    found = limits(result, devices, engine)
    why = verdict.why or "weights, overhead and cache exceed the budget"
    if found.max_context_tokens:
        return why, f"{found.max_context_tokens} tokens fit"
    weights = sum(part.bytes.expected for part in result.devices[0].components if part.name == "weights")
    if result.devices and weights > result.devices[0].budget_bytes:
        why = "the weights alone exceed the budget"
    return why, ""


def _combined(rows: Sequence[Row], choices: Choices, settings: Settings) -> Row:
    """Return one row for several candidate cards: the worst where any may come, else what they share."""
    worst = max(rows, key=lambda row: (row.exit_code == 1, SEVERITY.index(row.status)))
    if len(rows) == 1 or choices.any_of:
        return worst
    if len({row.exit_code for row in rows}) == 1:
        return worst
    parts = "; ".join(f"on {row.gpu}: {row.status.replace('_', ' ')}" for row in rows)
    return replace(
        _unknown(worst, settings, f"the GPU's name leaves its size open: {parts}", "--gpu GPU"),
        plan=None,
        headroom_bytes=None,
        flag="",
        flag_at=None,
    )
