"""vLLM's recipes: one model, several variants, each with its flags and the memory it is said to need."""

from dataclasses import replace

from kvplan.deploy.carriers.context import Context, launches_of, whole_number
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Text, dig, listing, table, text


def is_recipe(document: Table) -> bool:
    """Tell whether a document is a recipe."""
    return text(dig(document, "model", "model_id")) is not None and bool(table(document.get("variants")))


def launches(document: Table, context: Context) -> list[Launch]:
    """Return one launch a variant; the hardware is the reader's choice."""
    model = table(document.get("model"))
    hub = text(model.get("model_id"))
    if hub is None:
        return []
    found: list[Launch] = []
    for name, value in table(document.get("variants")).items():
        variant = table(value)
        own = text(variant.get("model_id")) or hub
        args = [*listing(model.get("base_args")), *listing(variant.get("extra_args"))]
        words = [
            Word(str(own), own.line),
            *(Word(str(arg), arg.line) for arg in args if isinstance(arg, Text)),
        ]
        least = whole_number(variant.get("vram_minimum_gb"))
        notes = (f"the recipe asks for {least} GB of GPU memory",) if least else ()
        started = Started("vllm", tuple(words), own.line)
        for launch in launches_of([started], context, str(name), GpuHint(), extra_notes=notes):
            found.append(replace(launch, spreads=True))
    return found
