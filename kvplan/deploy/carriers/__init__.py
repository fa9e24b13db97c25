"""Carriers: the kinds of files that people deploy engines with, one small module each.

``read_file`` tells a file's kind by its name and its shape, never by running anything, and returns the
launches in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from kvplan.deploy.carriers import (
    anywhere,
    command_lines,
    compose,
    dynamo,
    engine_config,
    helm_release,
    kserve,
    kubeai,
    kubernetes,
    llama_preset,
    llama_swap,
    llm_d,
    modelfile,
    production_stack,
    ray_serve,
    recipe,
    skypilot,
)
from kvplan.deploy.carriers.context import Context
from kvplan.deploy.files import SourceFile
from kvplan.deploy.launch import Launch
from kvplan.deploy.programs import MENTIONS
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Value, load_documents
from kvplan.errors import UnreadableDeployment
from kvplan.frozen import dataclass

Reader = Callable[[Table, Context], list[Launch]]
YAML_SUFFIXES = (".yaml", ".yml", ".json")
SHELL_SUFFIXES = (".sh", ".bash", ".zsh", ".bashrc")
# What charts call a container that needs no name of its own.
GENERIC_NAMES = ("app", "main", "container", "server")
TEMPLATE_MARKS = ("{{- ", "{{ if", "{{ range", "{{ include", "{{ end", "{% ")

# Kubernetes kinds with a shape of their own.
KINDS: dict[str, Reader] = {
    "DynamoGraphDeployment": dynamo.launches,
    "Model": kubeai.launches,
    **dict.fromkeys(ray_serve.KINDS, ray_serve.launches),
    **dict.fromkeys(kserve.KINDS, kserve.launches),
}
# Documents that are no Kubernetes objects: (test, reader), the first that fits.
SHAPES: tuple[tuple[Callable[[Table], object], Reader], ...] = (
    (llama_swap.is_config, llama_swap.launches),
    (production_stack.is_values, production_stack.launches),
    (llm_d.is_values, llm_d.launches),
    (llm_d.is_scenario, llm_d.scenario_launches),
    (compose.is_compose, compose.launches),
    (kubeai.catalog_of, kubeai.launches),
    (ray_serve.is_serve_config, ray_serve.launches),
    (skypilot.is_task, skypilot.launches),
    (recipe.is_recipe, recipe.launches),
    (engine_config.engine_of, engine_config.launches),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file held: its launches, and (line, text) notes on what was left out."""

    launches: tuple[Launch, ...]
    notes: tuple[tuple[int, str], ...]


def read_file(file: SourceFile, variables: Mapping[str, Word]) -> Reading:
    """Return the launches of a file.

    Raises UnreadableDeployment, with the line, for a file that is not what its name says.
    """
    context = Context(file, variables)
    launches = _by_kind(file, context)
    if not launches and not context.notes:
        context.note(0, "no engine found")
    return Reading(tuple(launches), tuple(context.notes))


def _by_kind(file: SourceFile, context: Context) -> list[Launch]:
    name = file.name.casefold()
    text = file.text
    if modelfile.is_modelfile(name.rsplit("/", 1)[-1], text) and not name.endswith(YAML_SUFFIXES):
        return modelfile.launches(text, context)
    if name.endswith((".md", ".markdown")):
        return command_lines.markdown_launches(text, context)
    if name.endswith(".ini"):
        return llama_preset.launches(text, context) if llama_preset.is_preset(text) else []
    if name.endswith(SHELL_SUFFIXES) or text.startswith("#!"):
        return command_lines.script_launches(text, context)
    if name.endswith(YAML_SUFFIXES):
        return _yaml(file, context)
    return _by_content(file, context)


def _by_content(file: SourceFile, context: Context) -> list[Launch]:
    """Read a file whose name says nothing: YAML if it is a mapping, else a preset, else a command."""
    try:
        documents = load_documents(file.text, file.name)
    except UnreadableDeployment:
        documents = []
    if any(isinstance(document, Table) for document in documents):
        return _yaml(file, context)
    if llama_preset.is_preset(file.text):
        return llama_preset.launches(file.text, context)
    return command_lines.script_launches(file.text, context)


def _yaml(file: SourceFile, context: Context) -> list[Launch]:
    try:
        documents = load_documents(file.text, file.name)
    except UnreadableDeployment:
        if any(mark in file.text for mark in TEMPLATE_MARKS):
            context.note(0, "a template, not YAML yet: render it first (helm template …)")
            return []
        raise
    whole = Context(file, context.variables, tuple(documents), context.notes)
    found: list[Launch] = []
    for document in documents:
        found += _document(document, whole)
    return found


def _document(document: Value, context: Context, depth: int = 0) -> list[Launch]:
    if not isinstance(document, Table) or depth > 4:
        return []
    if kubernetes.is_object(document):
        return _object(document, context, depth)
    for fits, reader in SHAPES:
        if fits(document):
            return reader(document, context)
    return anywhere.launches(document, context) if MENTIONS.search(context.file.text) else []


def _object(document: Table, context: Context, depth: int) -> list[Launch]:
    kind = str(document.get("kind"))
    if kind == "List":
        items = document.get("items")
        inner = items if isinstance(items, list) else []
        return [launch for item in inner for launch in _document(item, context, depth + 1)]
    if kind == "Model" and "kubeai" not in str(document.get("apiVersion")):
        return []
    if kind in KINDS:
        return KINDS[kind](document, context)
    name = kubernetes.name_of(document)
    found = [
        replace(launch, name=name if launch.name in GENERIC_NAMES else launch.name)
        for inner in helm_release.inner_documents(document, context.file.name)
        for launch in _document(inner, context, depth + 1)
        # Settings in a ConfigMap belong to the engine that mounts them.
        if kind != "ConfigMap" or launch.model is not None
    ]
    found = found or kubernetes.launches(document, context)
    return found or (anywhere.launches(document, context) if MENTIONS.search(context.file.text) else [])
