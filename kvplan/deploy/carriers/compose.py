"""Docker Compose: services, their commands and entrypoints, anchors, ``.env`` and the GPUs reserved."""

from collections.abc import Mapping
from dataclasses import replace

from kvplan.deploy.carriers.compose_mounts import mounted_script, mounted_yaml
from kvplan.deploy.carriers.context import Context, launches_of, whole_number
from kvplan.deploy.carriers.settings_file import with_settings
from kvplan.deploy.env_files import read_env
from kvplan.deploy.images import engine_of_image
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started, container, of_image
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.splitting import interpolated, interpolated_words
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Listing, Table, Text, Value, dig, listing, table, text
from kvplan.errors import UnreadableDeployment


def is_compose(document: Table) -> bool:
    """Tell whether a document is a Compose file: services that have an image, a build or a command."""
    services = table(document.get("services"))
    return any(
        {"image", "build", "command", "entrypoint", "extends"}.intersection(table(service))
        for service in services.values()
    )


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the engines of a Compose file."""
    services = table(document.get("services"))
    variables = {**_dot_env(context), **context.variables}
    found: list[Launch] = []
    for order, name in enumerate(_start_order(services)):
        service = _extended(table(services[name]), services)
        try:
            found += _service(name, service, context, variables, order)
        except ShellError as error:
            raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    return found + _model_runner(document, context)


def _model_runner(document: Table, context: Context) -> list[Launch]:
    """Return the models that Compose has Docker's Model Runner serve (top-level ``models``)."""
    found: list[Launch] = []
    for name, value in table(document.get("models")).items():
        model = text(table(value).get("model"))
        if model is not None:
            words = (Word("--model", model.line), Word(str(model), model.line))
            started = [Started("docker-model-runner", words, model.line)]
            found += launches_of(started, context, str(name), GpuHint())
    return found


def _service(
    name: str, service: Table, context: Context, variables: Mapping[str, Word], order: int
) -> list[Launch]:
    image = text(service.get("image"))
    env = _environment(service, context, variables)
    entrypoint = _words(service.get("entrypoint"), variables)
    command = _words(service.get("command"), variables)
    image_word = interpolated(image, variables) if image is not None else None
    started = container(image_word, entrypoint, command, env) or of_image(
        mounted_script([*entrypoint, *command], service, context, variables, env), image_word
    )
    profiles = tuple(str(item) for item in listing(service.get("profiles")) if item)
    groups = tuple(f"profile {profile}" for profile in profiles) or ("docker compose up",)
    line = services_line(name)
    started = [item if item.line else replace(item, line=line) for item in started]
    if service.get("scale") == "0" or dig(service, "deploy", "replicas") == "0":
        groups = ()
    gpus = gpus_of(service, variables)
    if not started:
        _note_silence(name, image_word, context, has_gpus=gpus != GpuHint())
    replicas = whole_number(service.get("scale")) or whole_number(dig(service, "deploy", "replicas")) or 1
    notes = (
        (f"{replicas} replicas: those on one machine share its GPUs, which is not added up",)
        if replicas > 1
        else ()
    )
    found = launches_of(started, context, name, gpus, groups=groups, order=order, extra_notes=notes)
    return [
        with_settings(item, lambda path: mounted_yaml(path, service, context, variables), elsewhere=True)
        for item in found
    ]


def _note_silence(name: str, image: Word | None, context: Context, *, has_gpus: bool) -> None:
    """Say of a service that might be an engine why there is no row of it."""
    if image is not None and engine_of_image(image.text) == "ollama":
        context.note(
            services_line(name), f"{name}: Ollama loads what it is asked for; no model is named here"
        )
    elif has_gpus:
        context.note(services_line(name), f"{name} asks for GPUs but starts no engine that kvplan knows")


def services_line(name: str) -> int:
    """Return the line of a service's name."""
    return name.line if isinstance(name, Text) else 0


def _extended(service: Table, services: Table) -> Table:
    """Apply ``extends`` within the file; another file is not followed."""
    extends = service.get("extends")
    base_name = text(extends) or text(table(extends).get("service"))
    if base_name is None or "file" in table(extends) or base_name not in services:
        return service
    merged = Table({**table(services[base_name]), **service})
    merged.line = service.line
    return merged


def _start_order(services: Table) -> list[str]:
    """Return service names so that what others depend on comes first."""
    ordered: list[str] = []
    waiting = list(services)
    while waiting:
        ready = [name for name in waiting if not _depends(services[name]).intersection(waiting) - {name}]
        # A circle is Compose's to refuse; here its members keep their order.
        taken = ready or waiting
        ordered += taken
        waiting = [name for name in waiting if name not in taken]
    return ordered


def _depends(service: Value) -> set[str]:
    depends = table(service).get("depends_on")
    return {str(item) for item in (depends if isinstance(depends, Listing | Table) else ())}


def _words(value: Value, variables: Mapping[str, Word]) -> list[Word]:
    if isinstance(value, Text):
        return interpolated_words(value, variables)
    return [interpolated(item, variables) for item in listing(value) if isinstance(item, Text)]


def _dot_env(context: Context) -> dict[str, Word]:
    beside = context.file.beside(".env")
    return read_env(beside.text) if beside is not None else {}


def _environment(service: Table, context: Context, variables: Mapping[str, Word]) -> dict[str, Word]:
    env: dict[str, Word] = {}
    listed = service.get("env_file")
    files = listed if isinstance(listed, Listing) else Listing([listed])
    for item in files:
        name = text(item) or text(table(item).get("path"))
        if name is None:
            continue
        beside = context.file.beside(interpolated(name, variables).text)
        if beside is None:
            context.note(name.line, f"env_file {name} was not read: it is not among the files given")
        else:
            env.update(read_env(beside.text))
    for key, value in table(service.get("environment")).items():
        if isinstance(value, Text):
            env[key] = interpolated(value, variables)
        elif key in variables:
            env[key] = variables[key]
    for entry in listing(service.get("environment")):
        if not isinstance(entry, Text):
            continue
        key, given, rest = interpolated(entry, variables).text.partition("=")
        if given:
            undefined = interpolated(entry, variables)
            env[key] = replace(undefined, text=rest, spans=())
        elif key in variables:
            env[key] = variables[key]
    return env


def gpus_of(service: Table, variables: Mapping[str, Word]) -> GpuHint:
    """Return what a service reserves: a count, all, or devices by number."""
    devices = listing(dig(service, "deploy", "resources", "reservations", "devices")) or listing(
        service.get("gpus")
    )
    for device in devices:
        entry = table(device)
        capabilities = [str(item) for item in listing(entry.get("capabilities"))]
        if "gpu" not in capabilities and text(entry.get("driver")) != "nvidia":
            continue
        ids = [
            interpolated(item, variables)
            for item in listing(entry.get("device_ids"))
            if isinstance(item, Text)
        ]
        line = entry.line
        if ids:
            parts = [part for word in ids for part in word.text.split(",")]
            chosen = any(word.defaulted or word.undefined for word in ids)
            if all(part.strip().isdigit() for part in parts):
                indices = tuple(int(part) for part in parts)
                return GpuHint(line=line, count=len(indices), indices=indices, chosen_elsewhere=chosen)
            return GpuHint(line=line, count=len(parts), chosen_elsewhere=chosen)
        counted = text(entry.get("count"))
        if counted is not None:
            word = interpolated(counted, variables)
            count = whole_number(Text(word.text)) if word.known else None
            if count is not None:
                return GpuHint(line=line, count=count, indices=tuple(range(min(count, 64))))
        return GpuHint(line=line)
    return GpuHint()
