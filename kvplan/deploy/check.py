"""Check a launch: is it known what it runs, on what, and does that fit?

In this order: what is not known makes the row ``unknown``; what the engine would refuse whatever the
memory, ``refused``; then the plan is judged. A failure that holds on every possible card is a failure
even where the card is not known for sure.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from kvplan.deploy.budgets import broken_budgets
from kvplan.deploy.devices import Choices, choices_for
from kvplan.deploy.drafting import draft_named
from kvplan.deploy.launch import Launch
from kvplan.deploy.model_names import Models, Resolved, Unresolved
from kvplan.deploy.planning import Command, engine_of, planned, read_command, workload_of
from kvplan.deploy.ranks_on_gpus import devices_of, gpu_text, idle, too_few_gpus
from kvplan.deploy.reasons import decisive, explained, unproven
from kvplan.deploy.rows import SEVERITY, Place, Row
from kvplan.deploy.settings import Settings
from kvplan.engines.base import Engine, Plan
from kvplan.errors import CannotTell, KvplanError, UnknownEngine
from kvplan.judge import Status, exit_code, judge

MAX_SHOWN = 400
SettingsOf = Callable[[Launch], Settings]


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
        settings={
            name: printable(value) if isinstance(value, str) else value
            for name, value in row.settings.items()
        },
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
    too_few = too_few_gpus(launch, command, choices)
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
        devices = devices_of(launch, command, choice)
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
        named = replace(row, gpu=gpu_text(choice, devices), notes=(*row.notes, *idle(choice, devices)))
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
        settings=dict(command.options),
    )


def _both(why: str, choices: Choices) -> str:
    return why if choices.choices or not choices.why else f"{why}; {choices.why}"


def _unknown(row: Row, settings: Settings, why: str, fix: str) -> Row:
    return replace(row, status="unknown", exit_code=exit_code("unknown", settings.rules), why=why, fix=fix)


def _failed(row: Row, settings: Settings, status: Status, why: str, fix: str, flag: str, line: int) -> Row:
    at = Place(row.at.file, line) if flag else None
    code = exit_code(status, settings.rules)
    return replace(row, status=status, exit_code=code, why=why, fix=fix, flag=flag, flag_at=at)


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
    open_fact = unproven(result, verdict)
    if open_fact is not None:
        return _unknown(row, settings, open_fact, f"--model {draft_named(command.options.items())}=ID")
    code = exit_code(verdict.status, rules)
    broken = broken_budgets(result, verdict, settings.budget)
    why, fix = explained(result, verdict, engine)
    if left_out and verdict.status == "tight":
        why = left_out[0]
    options = decisive(result, verdict, fix)
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
