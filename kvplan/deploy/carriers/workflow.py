"""GitHub workflows: the ``run`` steps of their jobs, with ``env`` of workflow, job and step."""

import re
from dataclasses import replace

from kvplan.deploy.carriers.context import Context, environment, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.splitting import piecewise
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Text, Value, listing, table, text

EXPRESSION = re.compile(r"\$\{\{\s*(?P<body>.*?)\s*\}\}")


def is_workflow(document: Table) -> bool:
    """Tell whether a document is a workflow: jobs that have steps."""
    return any(listing(table(job).get("steps")) for job in table(document.get("jobs")).values())


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the engines that steps start; a step that no shell reads is a note."""
    found: list[Launch] = []
    outer = {**_env(document.get("env")), **context.variables}
    for job_name, job in table(document.get("jobs")).items():
        inside = {**outer, **_env(table(job).get("env"))}
        for step in listing(table(job).get("steps")):
            run = table(step).get("run")
            if not isinstance(run, Text):
                continue
            env = {**inside, **_env(table(step).get("env"))}
            # What GitHub puts in is the shell's to look up: ${{ env.A }} is ${A}.
            script = piecewise(run, lambda piece: Word(EXPRESSION.sub(_looked_up, piece)))
            name = str(text(table(step).get("name")) or job_name)
            try:
                started = follow(script, env)
            except ShellError:
                context.note(run.line, f"{name}: a step that no shell would read")
                continue
            for item in started:
                found += launches_of([item], context, name, item.gpus or GpuHint())
    return found


def _looked_up(found: re.Match[str]) -> str:
    name = re.sub(r"\W+", ".", found.group("body").removeprefix("env.")).strip(".")
    return f"${{{name if name[:1].isalpha() else 'expression'}}}"


def _env(value: Value) -> dict[str, Word]:
    return {
        name: replace(word, undefined=(word.text[:40],)) if "${{" in word.text else word
        for name, word in environment(value).items()
    }
