"""``kvplan check``: do the deployments in these files fit the GPUs they are meant for?"""

from typing import Annotated

import typer

from kvplan.cli import checking as chk
from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

CheckFormatOption = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help="auto, table, plain, json, markdown, csv, github, junit, sarif."
    ),
]
FilesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="Deployment files, folders, or - for stdin. Default: what the nearest kvplan.yaml names.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    files: FilesArgument = None,
    gpu: opt.GpuOption = None,
    model: chk.ModelMapping = None,
    env: chk.EnvOption = None,
    env_file: chk.EnvFileOption = None,
    engine: opt.EngineOption = None,
    policy: chk.PolicyOption = None,
    batch: opt.BatchOption = None,
    reserve: opt.ReserveOption = None,
    cpu_memory: opt.CpuMemoryOption = None,
    min_headroom: opt.MinHeadroomOption = None,
    max_kv_gib: chk.MaxKvOption = None,
    min_concurrency: chk.MinConcurrencyOption = None,
    min_context: chk.MinContextOption = None,
    strict: opt.StrictChoice = None,
    allow_offload: opt.AllowOffloadChoice = None,
    allow_unknown: opt.AllowUnknownChoice = None,
    offline: opt.OfflineChoice = None,
    format_: CheckFormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
    export: opt.ExportOption = None,
    quiet: opt.QuietOption = False,
) -> None:
    """Check the engines that deployment files start: command lines, Compose, Kubernetes, Helm values, …

    Nothing in the files is run. What they do not say (the GPU, a variable, what a path of the server's
    holds) makes a row 'cannot tell', never a guess.
    """

    def job(_: tuple[str, ...]) -> Outcome:
        from kvplan.cli.checking import CheckAsked, checker
        from kvplan.deploy.checking import check_paths
        from kvplan.errors import InputError
        from kvplan.report.check_answer import CheckAnswer

        asked = CheckAsked(
            gpu=tuple(gpu or ()),
            models=tuple(model or ()),
            env=tuple(env or ()),
            env_files=tuple(env_file or ()),
            engine=engine,
            policy=policy,
            batch=batch,
            reserve=reserve,
            cpu_memory=cpu_memory,
            min_headroom=min_headroom,
            max_kv_gib=max_kv_gib,
            min_concurrency=min_concurrency,
            min_context=min_context,
            strict=strict,
            allow_offload=allow_offload,
            allow_unknown=allow_unknown,
            offline=offline,
        )
        paths = list(files or ())
        ready = checker(asked, paths)
        if not paths:
            if ready.loaded is None or not (ready.loaded.policy.paths or ready.loaded.policy.deployments):
                raise InputError(
                    "nothing to check",
                    why="no file is named, and no kvplan.yaml here names deployments or paths",
                    hint="name a file or folder: kvplan check docker-compose.yml --gpu 24GB",
                )
            origin = ready.loaded.origin
            paths = [origin, *(str(_beside(origin, path)) for path in ready.loaded.policy.paths)]
        result = check_paths(paths, ready.settings_of, ready.models, ready.variables)
        answer = CheckAnswer(result, result.exit_code)
        where = Output("json" if json_ else format_, output, tuple(export or ()), quiet)
        return Outcome(result.exit_code, answer, where, settings=ready.said)

    submit(job)


def _beside(origin: str, path: str) -> str:
    from pathlib import Path

    return str(Path(origin).parent / path)
