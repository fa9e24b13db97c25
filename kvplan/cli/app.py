"""Reading the words: commands by name, and the engine's own flags behind the first bare ``--``.

Only the command that is called is imported. Typer gets its words without the engine's, so that a
stray positional stays a usage error; its messages are turned into kvplan's three lines.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO

import typer

from kvplan import __version__
from kvplan.cli.outcome import Outcome
from kvplan.cli.settings import told, with_origin, with_settings
from kvplan.errors import InputError, KvplanError

COMMANDS: dict[str, str] = {
    "fit": "fit",
    "show": "show",
    "compare": "compare",
    "find": "find",
    "sweep": "sweep",
    "capacity": "capacity",
    "check": "check",
    "verify": "verify",
    "diff": "diff",
    "doctor": "doctor",
    "list": "listing",
    "schema": "schema",
}
TAKES_ENGINE_FLAGS = ("fit", "show", "compare", "sweep", "capacity", "verify")

# What Typer exits with when it is interrupted while it reads the words.
INTERRUPTED = 130

Job = Callable[[tuple[str, ...]], Outcome]
_jobs: list[Job] = []


def submit(job: Job) -> None:
    """Hand over what a command is to do; it runs when the words have been read."""
    _jobs.append(job)


def outcome_of(words: Sequence[str]) -> Outcome:
    """Read a command line and run it. Raises KvplanError; never exits.

    The job receives the engine's own words, those behind the first bare ``--``.
    """
    typed, engine_words = _cut(list(words))
    own, settings = with_settings(typed, engine_words)
    try:
        return told(_run(own, engine_words), settings)
    except KvplanError as error:
        raise with_origin(error, settings) from None


def _run(own: list[str], engine_words: Sequence[str]) -> Outcome:
    _jobs.clear()
    complaints = StringIO()
    try:
        with redirect_stderr(complaints):
            _build(own)(args=own, prog_name="kvplan")
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt from None
        if code:
            from kvplan.cli.usage import usage_error

            raise usage_error(complaints.getvalue(), own, tuple(COMMANDS)) from None
    if not _jobs:
        return Outcome(0)
    if engine_words and own[0] not in TAKES_ENGINE_FLAGS:
        raise InputError(
            f"'kvplan {own[0]}' takes no engine flags",
            why=f"found {' '.join(engine_words[:3])} behind --",
            hint=f"engine flags go with {', '.join(TAKES_ENGINE_FLAGS)}",
        )
    return _jobs.pop()(tuple(engine_words))


def _cut(words: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _build(words: Sequence[str]) -> typer.Typer:
    called = next((word for word in words if not word.startswith("-")), "")
    is_alone = called in COMMANDS and not _completing()
    app = typer.Typer(
        name="kvplan",
        # Options of kvplan itself stand before the command; where none does, none is built but --help.
        add_completion=not is_alone or words[0] != called,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Does this model fit on this GPU at this context length, and what makes it fit?",
        epilog="Exit codes: 0 fits, 1 does not fit, 2 usage or input error, 3 cannot tell, 4 bug, "
        "130 interrupted.",
    )
    app.callback()(_callback)
    names = [called] if is_alone else list(COMMANDS)
    for name in names:
        import_module(f"kvplan.cli.{COMMANDS[name]}").register(app)
    return app


def _completing() -> bool:
    return any(key.endswith("_COMPLETE") for key in os.environ)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"kvplan {__version__}")
        raise typer.Exit


def _callback(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Does this model fit on this GPU at this context length, and what makes it fit?"""
