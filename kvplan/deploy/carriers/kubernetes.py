"""Kubernetes objects: whatever has a pod template, and lists of such objects."""

from collections.abc import Iterator
from dataclasses import replace

from kvplan.deploy.carriers.containers import pod_launches
from kvplan.deploy.carriers.context import Context, resource_gpus, whole_number
from kvplan.deploy.launch import Launch
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, dig, listing, table, text

MAX_DEPTH = 24


def is_object(document: Table) -> bool:
    """Tell whether a document is a Kubernetes object."""
    return text(document.get("kind")) is not None and "apiVersion" in document


def name_of(document: Table) -> str:
    """Return an object's name."""
    return str(text(dig(document, "metadata", "name")) or "")


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the engines of a workload of any kind that has a pod template."""
    name = name_of(document)
    if document.get("kind") == "LeaderWorkerSet":
        found = _leader_worker_set(document, context, name)
    else:
        found = [launch for pod in pods(document) for launch in pod_launches(pod, context, name)]
    if not found:
        _note_idle_gpus(document, context)
    if whole_number(dig(document, "spec", "replicas")) == 0:
        found = [replace(item, notes=(*item.notes, "replicas: 0, not running now")) for item in found]
    return found


def pods(value: object, depth: int = 0) -> Iterator[Table]:
    """Yield every pod spec inside a value: a mapping with containers."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, Table):
        if isinstance(value.get("containers"), list):
            yield value
            return
        for inner in value.values():
            yield from pods(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner, depth + 1)


def _note_idle_gpus(document: Table, context: Context) -> None:
    """Say which containers ask for GPUs but start nothing that is known here."""
    for pod in pods(document):
        for item in listing(pod.get("containers")):
            count, profile, line = resource_gpus(table(item).get("resources"))
            if count or profile:
                name = text(table(item).get("name")) or "a container"
                context.note(line, f"{name} asks for GPUs but starts no engine that kvplan knows")


def _leader_worker_set(document: Table, context: Context, name: str) -> list[Launch]:
    template = table(dig(document, "spec", "leaderWorkerTemplate"))
    size = whole_number(template.get("size")) or 1
    env = {"LWS_GROUP_SIZE": Word(str(size), template.line)}
    leader = table(dig(template, "leaderTemplate", "spec"))
    worker = table(dig(template, "workerTemplate", "spec"))
    found = pod_launches(leader, context, name, pods=size, extra_env=env) if leader else []
    # The workers of a leader that serves are its other ranks, not engines of their own.
    return found or pod_launches(worker, context, name, pods=size, extra_env=env)
