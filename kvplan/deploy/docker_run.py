"""``docker run``: its image, what the container runs, its environment and its GPUs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvplan.deploy.launch import GpuHint
from kvplan.deploy.words import Word
from kvplan.frozen import dataclass

SWITCHES = frozenset(
    [
        "-d",
        "--detach",
        "-i",
        "--interactive",
        "-t",
        "--tty",
        "-it",
        "-ti",
        "-itd",
        "-dit",
        "--rm",
        "--init",
        "--privileged",
        "-P",
        "--publish-all",
        "--read-only",
        "--no-healthcheck",
        "--oom-kill-disable",
        "--sig-proxy",
        "--disable-content-trust",
        "--quiet",
        "-q",
        "--replace",
        "--tls-verify",
    ]
)


@dataclass(frozen=True, slots=True)
class DockerRun:
    """A container that a command line starts."""

    image: Word
    entrypoint: tuple[Word, ...]
    arguments: tuple[Word, ...]
    env: Mapping[str, Word]
    gpus: GpuHint | None
    name: str


def read_docker_run(words: Sequence[Word], env: Mapping[str, Word]) -> DockerRun | None:
    """Read what stands behind ``docker``; None for anything but ``run``."""
    queue = list(words)
    while (queue and queue[0].text in ("container", "--context", "compose")) or _is_global(queue):
        queue.pop(0)
    if not queue or queue[0].text not in ("run", "create"):
        return None
    queue.pop(0)
    inside: dict[str, Word] = {}
    entrypoint: tuple[Word, ...] = ()
    gpus: GpuHint | None = None
    name = ""
    while queue and queue[0].text.startswith("-"):
        option = queue.pop(0)
        spelling, joined, text = option.text.partition("=")
        if not joined and (spelling in SWITCHES or _is_switches(spelling)):
            continue
        if joined:
            value = replace(option, text=text)
        elif queue:
            value = queue.pop(0)
        else:
            return None
        if spelling in ("-e", "--env"):
            key, given, rest = value.text.partition("=")
            if given:
                inside[key] = replace(value, text=rest)
            elif key in env:
                inside[key] = env[key]
        elif spelling == "--entrypoint":
            entrypoint = (value,) if value.text else ()
        elif spelling in ("--gpus", "--device") and "/dev/" not in value.text:
            gpus = gpus_of(value) or gpus
        elif spelling == "--name":
            name = value.text
    if not queue:
        return None
    return DockerRun(queue[0], entrypoint, tuple(queue[1:]), inside, gpus, name)


def _is_global(queue: Sequence[Word]) -> bool:
    return bool(queue) and queue[0].text.startswith("-")


def _is_switches(spelling: str) -> bool:
    """Tell whether this is several one-letter switches in one word: ``-dit``."""
    return re.fullmatch(r"-[ditqP]+", spelling) is not None


def gpus_of(value: Word) -> GpuHint | None:
    """Read ``--gpus``: ``all``, a count, ``device=0,1``, or ``nvidia.com/gpu=0``."""
    text = value.text.strip("'\" ")
    if not value.known:
        return GpuHint(line=value.line, chosen_elsewhere=True)
    if text.isdigit():
        return GpuHint(line=value.line, count=int(text), indices=tuple(range(min(int(text), 64))))
    match = re.search(r"(?:device|gpu)=\"?([0-9]+(?:,[0-9]+)*)", text)
    if match:
        indices = tuple(int(part) for part in match.group(1).split(","))
        return GpuHint(line=value.line, count=len(indices), indices=indices)
    return GpuHint(line=value.line) if "all" in text else None
