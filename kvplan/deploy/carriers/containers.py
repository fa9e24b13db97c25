"""Containers as Kubernetes writes them: command, args, env, resources; and the pods around them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvplan.deploy.carriers.context import (
    Context,
    environment,
    launches_of,
    node_gpu,
    resource_gpus,
)
from kvplan.deploy.carriers.helm_release import yaml_in
from kvplan.deploy.carriers.settings_file import with_settings
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.parameters import expand, kubernetes_expand, lookup_in
from kvplan.deploy.program_names import SHELLS
from kvplan.deploy.programs import Started, container, follow, of_image, started_by
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.splitting import interpolated, piecewise, split_words
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Listing, Table, Text, Value, dig, listing, table, text
from kvplan.errors import UnreadableDeployment


def pod_launches(
    pod: Table,
    context: Context,
    name: str,
    *,
    pods: int = 1,
    extra_env: Mapping[str, Word] | None = None,
    hint: GpuHint | None = None,
) -> list[Launch]:
    """Return the engines of a pod's containers; ``pods`` of them work as one (LeaderWorkerSet)."""
    found: list[Launch] = []
    names, line = node_gpu(pod)
    for item in listing(pod.get("containers")):
        entry = table(item)
        label = name or str(text(entry.get("name")) or "")
        found += container_launches(
            entry, context, label, names, line, pods=pods, extra_env=extra_env, hint=hint, pod=pod
        )
    return found


def container_launches(
    entry: Table,
    context: Context,
    name: str,
    gpu_names: tuple[str, ...] = (),
    gpu_line: int = 0,
    *,
    pods: int = 1,
    extra_env: Mapping[str, Word] | None = None,
    hint: GpuHint | None = None,
    before: tuple[Word, ...] = (),
    pod: Table | None = None,
) -> list[Launch]:
    """Return the engines that a container starts.

    ``before`` are words put in front of its args; ``pod`` has the volumes it mounts.
    """
    env = {**(extra_env or {}), **_from_config_maps(entry, context), **environment(entry.get("env"))}
    image = image_word(entry.get("image"), context.variables)
    command = words_of(entry.get("command"), env, context)
    arguments = [*before, *words_of(entry.get("args"), env, context)]
    try:
        started = container(image, command, arguments, env)
        if not started and command:
            started = of_image(_mounted_script([*command, *arguments], entry, pod, env, context), image)
        started += _after_start(entry, env, context)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    started = [item if item.line else replace(item, line=entry.line) for item in started]
    found = launches_of(
        started, context, name, hint or hint_of(entry, gpu_names, gpu_line, pods), visible=False
    )
    return [with_settings(item, lambda path: _mounted_yaml(path, entry, pod, context)) for item in found]


def _after_start(entry: Table, env: Mapping[str, Word], context: Context) -> list[Started]:
    """Return what a ``postStart`` hook starts: the model that an Ollama container pulls."""
    hook = dig(entry, "lifecycle", "postStart", "exec", "command")
    return started_by(words_of(hook, env, context), env)


def _mounted_script(
    words: Sequence[Word], entry: Table, pod: Table | None, env: Mapping[str, Word], context: Context
) -> list[Started]:
    """Return what a script starts that a ConfigMap of this file puts where the command looks."""
    for index, word in enumerate(words[:3]):
        mounted = mounted_text(word.text, entry, pod or Table(), context) if "/" in word.text else None
        if mounted is not None:
            return follow(whole(mounted[1]), env, words[index + 1 :])
    return []


def _mounted_yaml(path: str, entry: Table, pod: Table | None, context: Context) -> list[Value] | None:
    mounted = mounted_text(path, entry, pod or Table(), context)
    return None if mounted is None else list(yaml_in(mounted[1], context.file.name))


def hint_of(entry: Table, gpu_names: tuple[str, ...], gpu_line: int, pods: int = 1) -> GpuHint:
    """Return what a container's resources say of its GPUs."""
    count, profile, line = resource_gpus(entry.get("resources"))
    if profile and gpu_names:
        gpu_names = tuple(f"{gpu}-mig-{profile}" for gpu in gpu_names)
    elif profile:
        gpu_names = (f"mig-{profile}",)
    total = None if count is None else count * pods
    return GpuHint(gpu_names, gpu_line or line, total, (), exclusive=True)


def image_word(value: Value, variables: Mapping[str, Word]) -> Word | None:
    """Return an image as one word; charts write repository and tag apart."""
    if isinstance(value, Text):
        return interpolated(value, variables, escape="")
    entry = table(value)
    repository = text(entry.get("repository")) or text(entry.get("name"))
    if repository is None:
        return None
    tag = text(entry.get("tag"))
    return Word(f"{repository}:{tag}" if tag else str(repository), repository.line)


def words_of(value: Value, env: Mapping[str, Word], context: Context) -> list[Word]:
    """Return ``command`` or ``args`` as words: ``$(NAME)`` and substitutions made, scripts left whole."""
    if isinstance(value, Text):
        if "\n" in value.strip():
            return [Word("sh"), Word("-c"), whole(value)]
        return [_replaced(word, env, context) for word in split_words(value, value.line_at)]
    items = [item for item in listing(value) if isinstance(item, Text)]
    is_shell = bool(items) and str(items[0]).rsplit("/", 1)[-1] in SHELLS
    found: list[Word] = []
    for item in items:
        if "\n" in item.strip() or is_shell or _is_script(item):
            # An unresolved $(NAME) in a script is the shell's to judge, where it stands.
            found.append(replace(piecewise(item, lambda piece: kubernetes_expand(piece, env)), undefined=()))
        else:
            found.append(_replaced(Word(str(item), item.line), env, context))
    return found


def _is_script(item: Text) -> bool:
    return " " in item.strip() and ("&&" in item or ";" in item or " --" in item) and not item.startswith("{")


def whole(item: Text) -> Word:
    """Return a text as one word that keeps the lines of its parts."""
    return Word(str(item), item.line, spans=item.spans)


def _replaced(word: Word, env: Mapping[str, Word], context: Context) -> Word:
    first = kubernetes_expand(word.text, env)
    if "$" not in first.text:
        return replace(first, line=word.line)
    # ${NAME} is no Kubernetes syntax: envsubst or Flux will have put a value there.
    second = expand(first.text, lookup_in(context.variables)) if "${" in first.text else first
    return replace(second, line=word.line, undefined=(*first.undefined, *second.undefined))


def _from_config_maps(entry: Table, context: Context) -> dict[str, Word]:
    env: dict[str, Word] = {}
    for item in listing(entry.get("envFrom")):
        wanted = text(dig(item, "configMapRef", "name"))
        for document in context.documents:
            if wanted is None or dig(document, "metadata", "name") != wanted:
                continue
            if table(document).get("kind") == "ConfigMap":
                env.update(environment(table(document).get("data")))
    return env


def mounted_text(path: str, entry: Table, pod: Table, context: Context) -> tuple[Text, Text] | None:
    """Return (file name, text) of a ConfigMap of this file that is mounted at ``path``."""
    mounts = {
        str(table(item).get("name")): str(table(item).get("mountPath") or "")
        for item in listing(entry.get("volumeMounts"))
    }
    volumes = pod.get("volumes")
    for item in listing(volumes if isinstance(volumes, Listing) else entry.get("volumes")):
        mount = mounts.get(str(table(item).get("name")))
        wanted = text(dig(item, "configMap", "name"))
        if not mount or wanted is None or not path.startswith(mount.rstrip("/")):
            continue
        for document in context.documents:
            if dig(document, "metadata", "name") == wanted:
                for name, content in table(table(document).get("data")).items():
                    if path.endswith(str(name)) and isinstance(content, Text) and isinstance(name, Text):
                        return name, content
    return None
