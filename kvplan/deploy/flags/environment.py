"""Settings that stand in the environment instead of on the command line."""

from collections.abc import Mapping
from importlib import import_module

from kvplan.deploy.flags import TABLES, EngineFlags, read_flags
from kvplan.deploy.flags.readers import switch
from kvplan.errors import InvalidValue

# Flags that take no value: their variable says on or off.
_SWITCHES: frozenset[str] = frozenset((
    "--kv-unified", "--no-kv-unified", "--swa-full", "--cpu-moe", "--kv-offload", "--no-kv-offload", "--mmap",
    "--no-mmap", "--mlock", "--mmproj-offload", "--no-mmproj-offload", "--embeddings", "--reranking",
))  # fmt: skip


def options_of_environment(engine: str, environment: Mapping[str, str]) -> EngineFlags:
    """Read an engine's settings from environment variables: ``LLAMA_ARG_*``, ``OLLAMA_*``.

    A flag on the command line wins over its variable: give its options precedence. Variables of other
    programs are passed over; one with the engine's prefix that is not known is listed. Raises
    InvalidValue for a known variable whose value cannot be read.
    """
    if engine not in TABLES:
        return EngineFlags(())
    module = import_module(f"kvplan.deploy.flags.{TABLES[engine]}")
    variables: dict[str, str] = getattr(module, "ENVIRONMENT", {})
    switches: dict[str, str] = getattr(module, "ENVIRONMENT_SWITCHES", {})
    prefixes = {name.partition("_")[0] + "_" for name in variables}
    words: list[str] = []
    unknown: list[str] = []
    options: list[tuple[str, object]] = []
    for name, value in environment.items():
        if name in switches and value:
            options.append((switches[name], _on_or_off(name, value)))
            continue
        flag = variables.get(name)
        if flag is None:
            if name.partition("_")[0] + "_" in prefixes:
                unknown.append(name)
            continue
        if not value:
            continue
        if flag not in _SWITCHES:
            words += [flag, value]
        elif (turned := _switched(name, flag, value)) is not None:
            words.append(turned)
    flags = read_flags(engine, words)
    return EngineFlags((*options, *flags.options), (*flags.unknown, *unknown))


def _switched(name: str, flag: str, value: str) -> str | None:
    """Return the flag that a switch's variable comes to, None where it asks for the default."""
    on = _on_or_off(name, value)
    if on or flag.startswith("--no-"):
        # llama.cpp's negative variables count whatever their value (common/arg.cpp).
        return flag
    negative = f"--no-{flag.removeprefix('--')}"
    return negative if negative in _SWITCHES else None


def _on_or_off(name: str, value: str) -> bool:
    try:
        return switch(value)
    except ValueError:
        raise InvalidValue(
            f"{name}={value} cannot be read", why="it switches something on or off", hint=f"write {name}=on"
        ) from None
