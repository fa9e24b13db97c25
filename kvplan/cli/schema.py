"""``kvplan schema``: the JSON Schemas of kvplan's own output and of its policy file."""

from typing import Annotated

import typer

from kvplan.cli.app import submit
from kvplan.cli.outcome import Outcome

SCHEMAS = ("output", "policy")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schema")(schema)


def schema(
    what: Annotated[
        str, typer.Argument(metavar="[WHAT]", help="output (--json, kvplan/1) or policy (kvplan.yaml).")
    ] = "output",
) -> None:
    """Print the JSON Schema of --json output (kvplan/1), or of kvplan.yaml for editors."""

    def job(_: tuple[str, ...]) -> Outcome:
        from kvplan.errors import InvalidValue, did_you_mean

        if what == "policy":
            return Outcome(0, text=_policy())
        if what != "output":
            raise InvalidValue(
                f"'{what}' is not a schema",
                why=did_you_mean(what, SCHEMAS) or f"schemas are {', '.join(SCHEMAS)}",
                hint="write it like: kvplan schema policy",
            )
        from importlib.resources import files

        text = files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8")
        return Outcome(0, text=text)

    submit(job)


def _policy() -> str:
    import json

    from kvplan.deploy.policy import Policy

    data = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema()}
    return json.dumps(data, indent=2) + "\n"
