"""``kvplan diff``: what a change of deployment files costs."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.cli import checking as chk
from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

if TYPE_CHECKING:
    from kvplan.cli.checking import Checker
    from kvplan.deploy.diff import DiffResult, Facts

SidesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="BASE HEAD",
        help="Two files, folders or saved checks (--json); or git revisions: origin/main..HEAD [PATH]...",
    ),
]
TwoEngines = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--engine", metavar="BEFORE AFTER", help="Two versions for the same files: vllm@0.20 vllm@0.33."
    ),
]
DiffFormatOption = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="auto, table, plain, json, markdown, csv, github.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("diff")(diff)


def diff(
    sides: SidesArgument,
    engine: TwoEngines = None,
    gpu: opt.GpuOption = None,
    model: chk.ModelMapping = None,
    env: chk.EnvOption = None,
    env_file: chk.EnvFileOption = None,
    policy: chk.PolicyOption = None,
    batch: opt.BatchOption = None,
    reserve: opt.ReserveOption = None,
    cpu_memory: opt.CpuMemoryOption = None,
    min_headroom: opt.MinHeadroomOption = None,
    max_kv_gib: chk.MaxKvOption = None,
    min_concurrency: chk.MinConcurrencyOption = None,
    min_context: chk.MinContextOption = None,
    allow_unknown: opt.AllowUnknownChoice = None,
    offline: opt.OfflineChoice = None,
    format_: DiffFormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Say what a change costs: bytes, headroom, requests and verdict of every deployment, and why.

    Exit 1 when a verdict gets worse (fits, tight, offload, does not fit) or a budget breaks.
    """

    def job(_: tuple[str, ...]) -> Outcome:
        from dataclasses import replace

        from kvplan.cli.checking import CheckAsked, checker
        from kvplan.report.diff_answer import DiffAnswer

        asked = CheckAsked(
            # Its own --engine takes two, so that this one variable does not become the flag.
            engine=os.environ.get("KVPLAN_ENGINE", "").strip() or None,
            gpu=tuple(gpu or ()),
            models=tuple(model or ()),
            env=tuple(env or ()),
            env_files=tuple(env_file or ()),
            policy=policy,
            batch=batch,
            reserve=reserve,
            cpu_memory=cpu_memory,
            min_headroom=min_headroom,
            max_kv_gib=max_kv_gib,
            min_concurrency=min_concurrency,
            min_context=min_context,
            allow_unknown=allow_unknown,
            offline=offline,
        )
        if engine is not None:
            before, after = engine
            ready = checker(replace(asked, engine=before), sides)
            both = (ready, checker(replace(asked, engine=after), sides))
            result, names = _two_engines(sides, both), (before, after)
        else:
            ready = checker(asked, [side for side in sides if ".." not in side])
            result, names = _two_sides(sides, ready)
        answer = DiffAnswer(result, *names, result.exit_code)
        where = Output("json" if json_ else format_, output, tuple(export or ()), quiet)
        return Outcome(result.exit_code, answer, where, settings=ready.said)

    submit(job)


def _two_engines(paths: Sequence[str], ready: Sequence["Checker"]) -> "DiffResult":
    from kvplan.deploy.checking import check_paths
    from kvplan.deploy.diff import DiffResult, compared, facts_of_result

    results = [check_paths(paths, each.settings_of, each.models, each.variables) for each in ready]
    base, head = (facts_of_result(result) for result in results)
    problems = tuple(f"{item.at}: {item.message}" for item in results[0].problems)
    return DiffResult(compared(base, head), problems)


def _two_sides(sides: Sequence[str], ready: "Checker") -> tuple["DiffResult", tuple[str, str]]:
    from pathlib import Path

    from kvplan.deploy.diff import DiffResult, compared
    from kvplan.deploy.git_files import is_range
    from kvplan.errors import InputError

    if is_range(sides[0]) and not Path(sides[0]).exists():
        return _revisions(sides[0], sides[1:], ready)
    if len(sides) != 2:
        raise InputError(
            f"diff takes two sides, not {len(sides)}",
            why="a base and a head: files, folders, saved checks, or a range of revisions",
            hint="write it like: kvplan diff old.yml new.yml, or kvplan diff origin/main..HEAD",
        )
    problems: list[str] = []
    base, head = (_side(side, ready, problems) for side in sides)
    return DiffResult(compared(base, head), tuple(problems)), (sides[0], sides[1])


def _side(side: str, ready: "Checker", problems: list[str]) -> "list[Facts]":
    from pathlib import Path

    from kvplan.deploy.checking import check_paths
    from kvplan.deploy.diff import facts_of_json, facts_of_result

    path = Path(side)
    if path.suffix == ".json" and path.is_file():
        saved = _saved(path)
        if saved is not None:
            return facts_of_json(saved, side)
    result = check_paths([side], ready.settings_of, ready.models, ready.variables)
    problems += [f"{item.at}: {item.message}" for item in result.problems]
    return facts_of_result(result, side if path.is_dir() else "")


def _saved(path: object) -> object:
    """Return a saved check, None for JSON that is something else (a manifest)."""
    import json
    from pathlib import Path

    from kvplan.deploy.files import decoded

    try:
        data = json.loads(decoded(Path(str(path)).read_bytes(), str(path)))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and "schema" in data else None


def _revisions(text: str, under: Sequence[str], ready: "Checker") -> tuple["DiffResult", tuple[str, str]]:
    from kvplan.deploy.diff import DiffResult, compared
    from kvplan.deploy.git_files import changed_files, ends_of

    base_commit, head_commit = ends_of(text)
    problems: list[str] = []
    base: list[Facts] = []
    head: list[Facts] = []
    for name in changed_files(base_commit, head_commit, under):
        # What was unreadable before is no fault of the change.
        base += _facts_at(base_commit, name, ready, [])
        head += _facts_at(head_commit, name, ready, problems)
    names = (base_commit[:12], head_commit[:12])
    return DiffResult(compared(base, head), tuple(problems)), names


def _facts_at(commit: str, name: str, ready: "Checker", problems: list[str]) -> "list[Facts]":
    from kvplan.deploy.checking import check_file
    from kvplan.deploy.diff import facts_of_result
    from kvplan.deploy.git_files import file_at
    from kvplan.errors import UnreadableDeployment

    try:
        file = file_at(commit, name)
        if file is None:
            return []
        return facts_of_result(check_file(file, ready.settings_of, ready.models, ready.variables))
    except UnreadableDeployment as error:
        problems.append(error.message)
        return []
