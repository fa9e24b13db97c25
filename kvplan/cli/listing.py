"""``kvplan list``: the models, GPUs, formats and engines that kvplan knows."""

from typing import Annotated

import typer

from kvplan.cli import options as opt
from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome, Output

LISTS = ("models", "gpus", "formats", "engines")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list")(list_)


def list_(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="models, gpus, formats or engines.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILTER]...", help="Only rows that have all these words.")
    ] = None,
    format_: opt.FormatOption = "auto",
    json_: opt.JsonOption = False,
    output: opt.OutputOption = None,
) -> None:
    """List the models, GPUs, formats or engines that kvplan knows."""

    def job(_: tuple[str, ...]) -> Outcome:
        from kvplan.cli.listings import listing
        from kvplan.errors import InvalidValue, did_you_mean

        if what not in LISTS:
            raise InvalidValue(
                f"'{what}' is not a list",
                why=did_you_mean(what, LISTS) or f"lists are {', '.join(LISTS)}",
                hint="write it like: kvplan list models llama",
            )
        answer = listing(what, tuple(words or ()))
        return Outcome(0, answer, Output("json" if json_ else format_, output))

    submit(job)
