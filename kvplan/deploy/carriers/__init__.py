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
    dockerfile,
    dynamo,
    engine_config,
    helm_release,
    kserve,
    kubeai,
    kubernetes,
    llama_preset,
    llama_swap,
    llm_d,
    makefile,
    markdown,
    modelfile,
    policy_file,
    production_stack,
    python_lists,
    ray_serve,
    recipe,
    settings_file,
    skypilot,
    systemd,
    windows_scripts,
    workflow,
)
from kvplan.deploy.carriers.context import Context
from kvplan.deploy.files import SourceFile
from kvplan.deploy.images import pinned_version
from kvplan.deploy.launch import Launch
from kvplan.deploy.program_names import MENTIONS
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Value, load_documents
from kvplan.errors import UnreadableDeployment
from kvplan.frozen import dataclass

Reader = Callable[[Table, Context], list[Launch]]
YAML_SUFFIXES = (".yaml", ".yml", ".json")
SHELL_SUFFIXES = (".sh", ".bash", ".zsh", ".bashrc", ".sbatch", ".slurm")
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
    (workflow.is_workflow, workflow.launches),
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
    launches = [_completed(launch, file) for launch in _by_kind(file.name.casefold(), context)]
    if not launches and not context.notes and not policy_file.is_policy(_base(file), file.text):
        context.note(0, "no engine found")
    return Reading(tuple(launches), tuple(context.notes))


def _base(file: SourceFile) -> str:
    return file.name.casefold().rsplit("/", 1)[-1]


def _completed(launch: Launch, file: SourceFile) -> Launch:
    """Add what the rest of the file, and the file of settings beside it, say of a launch."""

    def find(path: str) -> list[Value] | None:
        beside = file.beside(path)
        return None if beside is None else load_documents(beside.text, beside.name)

    version = launch.version or pinned_version(file.text, launch.engine)
    whole = settings_file.with_settings(replace(launch, version=version), find, elsewhere=True)
    # A file that is not there says what we do not know.
    return settings_file.left_open(whole)


def _by_kind(path: str, context: Context) -> list[Launch]:
    """Return the launches of a context's file, read as a file of this name in small letters."""
    file = context.file
    name, text = path.rsplit("/", 1)[-1], file.text
    if policy_file.is_policy(name, text):
        return policy_file.launches(context)
    if modelfile.is_modelfile(name, text) and not name.endswith(YAML_SUFFIXES):
        return modelfile.launches(text, context)
    if name.endswith((".md", ".markdown")):
        return [launch for block in markdown.blocks(text) for launch in _block(block, context)]
    if name.endswith(".ini"):
        return llama_preset.launches(text, context) if llama_preset.is_preset(text) else []
    if name.endswith(SHELL_SUFFIXES) or text.startswith("#!"):
        return command_lines.script_launches(text, context)
    if name.endswith(YAML_SUFFIXES):
        return _yaml(file, context)
    if dockerfile.is_dockerfile(name):
        return dockerfile.launches(text, context)
    if makefile.is_makefile(name):
        return makefile.launches(text, context)
    if name.endswith(systemd.SUFFIXES):
        return systemd.launches(text, context)
    if name.endswith(windows_scripts.SUFFIXES):
        return windows_scripts.launches(text, name, context)
    if name == "procfile":
        commands = (line.partition(":")[2] for line in text.split("\n"))
        return command_lines.script_launches("\n".join(commands), context)
    if name.endswith(".py"):
        return python_lists.launches(text, context)
    return _by_content(file, context)


def _block(block: markdown.Block, context: Context) -> list[Launch]:
    """Return the launches of a fenced block. What cannot be read of prose is a note, not a failure."""
    file = SourceFile(context.file.name, block.in_place(), context.file.path, context.file.root)
    inner = Context(file, context.variables, (), context.notes)
    try:
        if block.language in markdown.KINDS:
            return _by_kind(markdown.KINDS[block.language], inner)
        if block.language not in markdown.SHELLS:
            return []
        return _unnamed(file, inner) or command_lines.block_launches(
            block.text, block.line, block.language, inner
        )
    except UnreadableDeployment as error:
        if MENTIONS.search(block.text):
            context.note(error.line or block.line, f"a block that cannot be read: {error.problem}")
        return []


def _unnamed(file: SourceFile, context: Context) -> list[Launch]:
    """Read a block whose language is not said as YAML where it has a shape that is known."""
    try:
        documents = load_documents(file.text, file.name)
    except UnreadableDeployment:
        return []
    known = [
        document
        for document in documents
        if isinstance(document, Table)
        and (kubernetes.is_object(document) or any(fits(document) for fits, _ in SHAPES))
    ]
    return _yaml(file, context) if known else []


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
    if kind == "Kustomization":
        context.note(document.line, "Kustomize: what it builds counts: kustomize build … | kvplan check -")
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
