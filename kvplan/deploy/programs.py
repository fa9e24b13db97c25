"""From a command's words to the engine it starts: wrappers peeled off, scripts in quotes followed.

``exec env A=1 nohup python3 -m vllm.entrypoints.openai.api_server …`` starts vLLM; so does
``docker run … vllm/vllm-openai …`` and ``bash -c "… && vllm serve …"``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from kvplan.deploy.docker_run import DockerRun, read_docker_run
from kvplan.deploy.images import WITHOUT_RULES, engine_of_flags, engine_of_image, version_of_image
from kvplan.deploy.launch import GpuHint
from kvplan.deploy.program_names import (
    CONTAINERS,
    LLAMA_SERVER,
    MENTIONS,
    MODULES,
    PROGRAMS,
    SHELLS,
    WRAPPERS,
)
from kvplan.deploy.shell import commands_of
from kvplan.deploy.words import Word, joined
from kvplan.frozen import dataclass

MAX_NESTING = 8
_LOOK_AHEAD = 24


@dataclass(frozen=True, slots=True)
class Started:
    """An engine that a command starts: its own words, its environment, what is known of the card."""

    engine: str
    words: tuple[Word, ...]
    line: int
    env: Mapping[str, Word] = field(default_factory=dict)
    version: str = ""
    gpus: GpuHint | None = None
    name: str = ""


def started_by(words: Sequence[Word], env: Mapping[str, Word], depth: int = 0) -> list[Started]:
    """Return the engines that a command starts; more than one where it is a script.

    Raises ShellError for a script in quotes that cannot be read.
    """
    words = list(words)
    if not words or depth > MAX_NESTING:
        return []
    program = _base(words[0].text)
    if program in SHELLS:
        return _shell(words, env, depth)
    if program in CONTAINERS:
        run = read_docker_run(words[1:], env)
        return [] if run is None else _container_run(run, depth)
    if program.startswith("python"):
        return _python(words, env)
    if program == "ollama":
        return _ollama(words, env)
    if LLAMA_SERVER.match(program):
        return [Started("llama.cpp", tuple(words[1:]), words[0].line, env)]
    if program in PROGRAMS:
        return _program(program, words, env)
    if program in WRAPPERS:
        return _wrapped(words, env, depth)
    return []


def follow(
    script: Word,
    env: Mapping[str, Word],
    arguments: Sequence[Word] | None = None,
    depth: int = 0,
) -> list[Started]:
    """Return the engines that a script starts."""
    if not MENTIONS.search(script.text) and not (arguments and '"$@"' in script.text):
        return []
    run = commands_of(script.text, script.line_at, env, arguments)
    found: list[Started] = []
    for command in run.commands:
        merged = {**env, **dict(command.env)}
        found += started_by(command.words, merged, depth + 1)
    return _without_repeats(found)


def container(
    image: Word | None,
    entrypoint: Sequence[Word],
    arguments: Sequence[Word],
    env: Mapping[str, Word],
    depth: int = 0,
) -> list[Started]:
    """Return the engines that a container starts.

    ``entrypoint`` replaces the image's own, empty where the image's own holds.
    """
    image_text = image.text if image is not None else ""
    engine = engine_of_image(image_text)
    found = started_by([*entrypoint, *arguments], env, depth) if entrypoint or arguments else []
    if not found and not entrypoint and _starts_itself(engine, arguments, env):
        first = arguments[0] if arguments else image
        guessed = engine or engine_of_flags([word.text for word in arguments])
        own = _behind_serve(guessed, arguments)
        found = [Started(guessed, tuple(own), first.line if first else 0, env)]
    return of_image(found, image)


def of_image(started: Sequence[Started], image: Word | None) -> list[Started]:
    """Return engines as an image has them: the fork it is, and the version that its tag names."""
    text = image.text if image is not None else ""
    fork = "ik_llama.cpp" if engine_of_image(text) == "ik_llama.cpp" else ""
    return [
        replace(
            item,
            engine=fork or item.engine,
            version=item.version or version_of_image(text, fork or item.engine),
        )
        for item in started
    ]


def _starts_itself(engine: str, arguments: Sequence[Word], env: Mapping[str, Word]) -> bool:
    """Tell whether an image with these arguments is an engine although no program is named."""
    if not engine and not (arguments and engine_of_flags([word.text for word in arguments])):
        return False
    if engine == "ollama":
        return False
    if engine in WITHOUT_RULES:
        return True
    if arguments:
        return arguments[0].text.startswith("-") or engine in ("vllm", "tensorrt-llm")
    return (engine == "tgi" and "MODEL_ID" in env) or ("llama.cpp" in engine and _has_llama_env(env))


def _has_llama_env(env: Mapping[str, Word]) -> bool:
    return any(name.startswith("LLAMA_ARG_") for name in env)


def _behind_serve(engine: str, words: Sequence[Word]) -> list[Word]:
    rest = list(words)
    while rest and rest[0].text in ("vllm", "serve", "--"):
        rest.pop(0)
    return rest if engine else []


def _base(text: str) -> str:
    return text.rsplit("/", 1)[-1]


def _shell(words: list[Word], env: Mapping[str, Word], depth: int) -> list[Started]:
    for index, word in enumerate(words[1:], start=1):
        is_flag = word.text.startswith("-") and len(word.text) > 1
        if is_flag and word.text.strip("-").isalpha() and "c" in word.text.strip("-"):
            if index + 1 >= len(words):
                return []
            # The word after the script is its $0.
            return follow(words[index + 1], env, words[index + 3 :], depth)
        if not is_flag:
            return []
    return []


def _container_run(run: DockerRun, depth: int) -> list[Started]:
    found = container(run.image, run.entrypoint, run.arguments, run.env, depth + 1)
    return [replace(item, gpus=item.gpus or run.gpus, name=run.name) for item in found]


def _python(words: list[Word], env: Mapping[str, Word]) -> list[Started]:
    for index, word in enumerate(words):
        if word.text == "-m" and index + 1 < len(words):
            module = words[index + 1].text
            engine = MODULES.get(module)
            if engine is None:
                return []
            rest = words[index + 2 :]
            while rest and rest[0].text in ("serve", "server", "api_server", "launch_server"):
                rest = rest[1:]
            return [Started(engine, tuple(rest), words[0].line, env)]
        if index and not word.text.startswith("-"):
            # vLLM's image starts a file of its own package.
            if word.text.endswith("api_server.py") and "vllm" in word.text:
                return [Started("vllm", tuple(words[index + 1 :]), words[0].line, env)]
            return []
    return []


def _program(program: str, words: list[Word], env: Mapping[str, Word]) -> list[Started]:
    engine, verbs = PROGRAMS[program]
    rest = words[1:]
    if verbs:
        if not rest or rest[0].text not in verbs:
            return []
        rest = rest[1:]
    while rest and rest[0].text in ("serve", "api_server", "disaggregated") and engine != "vllm":
        rest = rest[1:]
    return [Started(engine, tuple(rest), words[0].line, env)]


def _ollama(words: list[Word], env: Mapping[str, Word]) -> list[Started]:
    if len(words) < 3 or words[1].text not in ("run", "pull"):
        return []
    model = next((word for word in words[2:] if not word.text.startswith("-")), None)
    return [] if model is None else [Started("ollama", (model,), words[0].line, env)]


def _wrapped(words: list[Word], env: Mapping[str, Word], depth: int) -> list[Started]:
    inner = dict(env)
    for index in range(1, min(len(words), _LOOK_AHEAD)):
        word = words[index]
        name, equals, value = word.text.partition("=")
        if equals and name.isidentifier():
            inner[name] = replace(word, text=value)
            continue
        program = _base(word.text)
        if (
            program in PROGRAMS
            or program in SHELLS
            or program in CONTAINERS
            or program in WRAPPERS
            or program == "ollama"
            or program.startswith("python")
            or LLAMA_SERVER.match(program)
        ):
            found = started_by(words[index:], inner, depth + 1)
            # A program's name may be a wrapper's argument: uv run --with vllm vllm serve.
            if found or program not in PROGRAMS:
                return found
    if words[0].text == "ssh" and len(words) > 2:
        return follow(joined(words[2:]), env, None, depth)
    # A whole command in quotes: tmux new-session -d "vllm serve …".
    quoted = next((word for word in words[1:] if " " in word.text and MENTIONS.search(word.text)), None)
    return [] if quoted is None else follow(quoted, env, None, depth)


def _without_repeats(found: list[Started]) -> list[Started]:
    """Keep one of several that start the same thing, as the two ways of a condition often do."""
    kept: dict[tuple[object, ...], Started] = {}
    for item in found:
        key = (item.engine, item.name, tuple(sorted(word.text for word in item.words)))
        kept.setdefault(key, item)
    return list(kept.values())
