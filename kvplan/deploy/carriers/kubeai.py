"""KubeAI: the chart's model catalog, and Model objects."""

import re
from dataclasses import replace

from kvplan.deploy.carriers.context import Context, environment, launches_of
from kvplan.deploy.carriers.option_keys import without_scheme
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Text, dig, listing, table, text

ENGINES = {"vllm": "vllm", "ollama": "ollama", "sglang": "sglang"}
_PROFILE = re.compile(r"(?P<profile>.+?)(?::(?P<count>\d+))?$")


def catalog_of(document: Table) -> Table:
    """Return the catalog of the chart's values, empty for other documents."""
    for place in (document, table(document.get("models"))):
        catalog = table(place.get("catalog"))
        if any("url" in table(entry) for entry in catalog.values()):
            return catalog
    return Table()


def launches(document: Table, context: Context) -> list[Launch]:
    """Return one launch a model."""
    if document.get("kind") == "Model":
        name = str(text(dig(document, "metadata", "name")) or "model")
        return _model(name, table(document.get("spec")), context)
    found: list[Launch] = []
    for name, entry in catalog_of(document).items():
        found += _model(str(name), table(entry), context)
    return found


def _model(name: str, spec: Table, context: Context) -> list[Launch]:
    url = text(spec.get("url"))
    if url is None:
        return []
    engine = ENGINES.get(str(text(spec.get("engine")) or "vllm").casefold())
    if engine is None:
        context.note(spec.key_line("engine"), f"{name}: {spec.get('engine')} serves no language model")
        return []
    word = without_scheme(Word(str(url), url.line))
    if engine == "ollama":
        word = replace(word, text=word.text.removeprefix("ollama://").split("?", maxsplit=1)[0])
    args = [Word(str(arg), arg.line) for arg in listing(spec.get("args")) if isinstance(arg, Text)]
    started = Started(engine, (word, *args), url.line, environment(spec.get("env")))
    found = launches_of([started], context, name, _gpus(spec))
    if spec.get("enabled") == "false":
        found = [replace(item, notes=(*item.notes, "enabled: false, not running now")) for item in found]
    return found


def _gpus(spec: Table) -> GpuHint:
    """Read ``nvidia-gpu-l4:8``: eight of the profile's GPU; ``cpu:4`` is none."""
    profile = text(spec.get("resourceProfile"))
    match = _PROFILE.fullmatch(profile.strip()) if profile is not None else None
    if profile is None or match is None:
        return GpuHint()
    kind = match.group("profile").casefold()
    count = int(match.group("count") or 1)
    if kind.startswith("cpu"):
        return GpuHint(line=profile.line, count=0, cpu=True)
    name = re.sub(r"^(nvidia|amd)-gpu-", "", kind)
    return GpuHint((name,), profile.line, count, (), exclusive=True)
