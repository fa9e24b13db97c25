"""Values inside other objects: Flux HelmReleases, Argo CD Applications, Kustomize patches, ConfigMaps."""

from collections.abc import Iterator

from kvplan.deploy.yaml_values import Table, Text, Value, dig, listing, load_documents, table
from kvplan.errors import UnreadableDeployment


def inner_documents(document: Table, origin: str) -> Iterator[Value]:
    """Yield the chart values or files that an object carries, their lines counted in the outer file."""
    kind = document.get("kind")
    if kind == "HelmRelease":
        yield dig(document, "spec", "values")
    elif kind in ("Application", "ApplicationSet", "HelmChart", "HelmChartConfig"):
        sources = [dig(document, "spec", "source"), *_several(dig(document, "spec", "sources"))]
        template = dig(document, "spec", "template", "spec", "source")
        for source in (*sources, template):
            yield dig(source, "helm", "valuesObject")
            yield from yaml_in(dig(source, "helm", "values"), origin)
        yield from yaml_in(dig(document, "spec", "valuesContent"), origin)
    elif kind == "Kustomization":
        for patch in listing(document.get("patches")):
            yield from yaml_in(table(patch).get("patch"), origin)
        for strategic in listing(document.get("patchesStrategicMerge")):
            yield from yaml_in(strategic, origin)
    elif kind == "ConfigMap":
        for name, content in table(document.get("data")).items():
            if name.endswith((".yaml", ".yml")):
                yield from yaml_in(content, origin)


def yaml_in(value: Value, origin: str) -> Iterator[Value]:
    """Yield the documents of a text that is YAML itself, with lines of the outer file."""
    if not isinstance(value, Text) or "\n" not in value:
        return
    try:
        documents = load_documents(str(value), origin)
    except UnreadableDeployment as error:
        line = value.line + error.line
        raise UnreadableDeployment(origin, line, f"YAML inside YAML: {error.problem}") from None
    for document in documents:
        _shift(document, value.line)
        yield document


def _several(value: Value) -> list[Value]:
    return list(value) if isinstance(value, list) else []


def _shift(value: Value, lines: int, seen: set[int] | None = None) -> None:
    """Count lines from the outer file's start; a shared value is moved once."""
    seen = seen if seen is not None else set()
    pending: list[Value] = [value]
    while pending:
        item = pending.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        item.line += lines
        if isinstance(item, Text):
            item.spans = tuple((offset, line + lines) for offset, line in item.spans)
        elif isinstance(item, Table):
            pending += [*item.keys(), *item.values()]  # type: ignore[list-item]
        else:
            pending += item
