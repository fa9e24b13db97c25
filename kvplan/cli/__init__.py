"""The command line: ``main(argv)`` runs one and returns its exit code.

Typer only reads the words; what a command does runs afterwards, here, so that this is the one place
that turns errors into exit codes: 0 fits, 1 checked and does not fit, 2 usage or input, 3 cannot
tell, 4 a bug in kvplan, 130 interrupted. A closed pipe keeps the verdict's code.
"""

import gc
import itertools
import os
import sys
from collections.abc import Sequence

from kvplan.errors import KvplanError

BUG = 4
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line in this process and return its exit code; nothing here exits."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = _wants_json(words)
    try:
        from kvplan.cli.app import outcome_of

        outcome = outcome_of(words)
        return outcome.write()
    except KeyboardInterrupt:
        return INTERRUPTED
    except KvplanError as error:
        return _report(error, as_json=as_json)
    except Exception as error:
        if os.environ.get("KVPLAN_DEBUG"):
            raise
        _print_error(
            f"kvplan has a bug: {type(error).__name__}: {error}",
            "",
            "run again with KVPLAN_DEBUG=1 and report the traceback",
        )
        return BUG


def run() -> None:
    """Run as the console script."""
    # One short command makes little garbage; collecting it while modules load costs a tenth of the time.
    gc.disable()
    code = main()
    # The interpreter collects once more as it ends; walking everything that goes anyway costs as much again.
    gc.freeze()
    sys.exit(code)


def _wants_json(words: Sequence[str]) -> bool:
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own or "--format=json" in own or ("--format", "json") in itertools.pairwise(own)


def _report(error: KvplanError, *, as_json: bool) -> int:
    if as_json:
        from kvplan.cli.outcome import Outcome
        from kvplan.report.json_report import error as error_json

        return Outcome(error.exit_code, text=error_json(error)).write()
    _print_error(error.message, error.why, error.hint)
    return error.exit_code


def _print_error(message: str, why: str, hint: str) -> None:
    lines = [f"error: {message}", *(f"  {line}" for line in (why, hint) if line)]
    text = "\n".join(lines) + "\n"
    try:
        sys.stderr.write(text)
    except UnicodeEncodeError:
        sys.stderr.write(text.encode("ascii", "replace").decode("ascii"))
