"""SkyPilot tasks: the run script, its environment, and the accelerators asked for."""

import re
from dataclasses import replace

from kvplan.deploy.carriers.context import Context, environment, launches_of, whole_number
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Listing, Table, Text, Value, listing, table, text
from kvplan.errors import UnreadableDeployment

# SkyPilot's names mean one card each: A100 is the one of 40 GB (sky show-gpus).
SKY_NAMES: dict[str, str] = {"A100": "a100-40gb", "V100": "v100-16gb", "H100-MEGA": "h100"}
_ACCELERATOR = re.compile(r"\s*(?P<name>[A-Za-z][\w.-]*)\s*(?::\s*(?P<count>\d+))?\s*")


def is_task(document: Table) -> bool:
    """Tell whether a document is a task: a run script, and resources or nodes."""
    return text(document.get("run")) is not None and (
        "resources" in document or "num_nodes" in document or "service" in document
    )


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the engines that the run script starts."""
    run = text(document.get("run"))
    if run is None:
        return []
    candidates = _accelerators(table(document.get("resources")))
    by_count: dict[int | None, list[str]] = {}
    for gpu, number, _ in candidates:
        by_count.setdefault(number, []).append(gpu)
    line = candidates[0][2] if candidates else 0
    label = str(text(document.get("name")) or "task")
    found: list[Launch] = []
    for count, names in (by_count or {None: []}).items():
        hint = GpuHint(tuple(dict.fromkeys(names)), line, count, (), exclusive=True)
        # Candidates of other numbers of GPUs start with other flags: a launch each.
        name = f"{label} on {count} GPUs" if len(by_count) > 1 else label
        found += _started(document, run, context, name, hint)
    if len(candidates) > 1:
        any_of = ", ".join(f"{name}:{count}" for name, count, _ in dict.fromkeys(candidates))
        found = [replace(item, notes=(*item.notes, f"may get any of {any_of}")) for item in found]
    return found


def _started(document: Table, run: Text, context: Context, name: str, hint: GpuHint) -> list[Launch]:
    """Return the engines of the run script on one kind of node."""
    nodes = whole_number(document.get("num_nodes")) or 1
    env = {**environment(document.get("envs")), **context.variables}
    if hint.count is not None:
        env["SKYPILOT_NUM_GPUS_PER_NODE"] = Word(str(hint.count), hint.line)
    env["SKYPILOT_NUM_NODES"] = Word(str(nodes))
    # What runs on the head node decides; the others are its ranks.
    env["SKYPILOT_NODE_RANK"] = Word("0")
    try:
        started = follow(Word(str(run), run.line, spans=run.spans), env)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    whole = replace(hint, count=None if hint.count is None else hint.count * nodes)
    return launches_of(started, context, name, whole, visible=False)


def _accelerators(resources: Table) -> list[tuple[str, int, int]]:
    """Return (name, GPUs a node, line); several where any of them will do."""
    places = (
        resources,
        *map(table, listing(resources.get("any_of"))),
        *map(table, listing(resources.get("ordered"))),
    )
    return [entry for place in places for entry in _read(place.get("accelerators"))]


def _read(value: Value) -> list[tuple[str, int, int]]:
    if isinstance(value, Table):
        found = []
        for key, count in value.items():
            # {A100-80GB:8} is one key without a value, as YAML reads it.
            written = f"{key}:{count}" if isinstance(count, Text) else str(key)
            found += _one(written, key.line if isinstance(key, Text) else value.line)
        return found
    if isinstance(value, Listing):
        return [entry for item in value if isinstance(item, Text) for entry in _one(str(item), item.line)]
    if isinstance(value, Text):
        return [entry for part in value.strip("{} ").split(",") for entry in _one(part, value.line)]
    return []


def _one(written: str, line: int) -> list[tuple[str, int, int]]:
    match = _ACCELERATOR.fullmatch(written.strip("{} "))
    if match is None or match.group("name").startswith("tpu"):
        return []
    name = match.group("name")
    return [(SKY_NAMES.get(name, name), int(match.group("count") or 1), line)]
