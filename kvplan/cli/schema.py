"""``kvplan schema``: the JSON Schema of kvplan's own output."""

import typer

from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schema")(schema)


def schema() -> None:
    """Print the JSON Schema of --json output (kvplan/1)."""

    def job(_: tuple[str, ...]) -> Outcome:
        from importlib.resources import files

        text = files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8")
        return Outcome(0, text=text)

    submit(job)
