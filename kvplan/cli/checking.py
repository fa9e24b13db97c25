"""What ``check`` and ``diff`` share: their options as settings, and the policy that applies."""

import os
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvplan.deploy.check import SettingsOf
from kvplan.deploy.env_files import read_env
from kvplan.deploy.model_names import Models
from kvplan.deploy.policy_place import find_policy
from kvplan.deploy.settings import Budget, Settings, parse_model_choice
from kvplan.deploy.typed_settings import typed_over
from kvplan.deploy.words import Word
from kvplan.errors import InputError, InvalidValue
from kvplan.frozen import dataclass
from kvplan.judge import Rules
from kvplan.units import GIB, parse_size, parse_tokens

if TYPE_CHECKING:
    from kvplan.deploy.policy import Loaded

ModelMapping = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME=ID",
        help="What a model's name in a file stands for: /model=qwen3-32b, a.gguf=qwen3-8b,weights=q4_k_m.",
    ),
]
EnvOption = Annotated[
    list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Define a variable that files use.")
]
EnvFileOption = Annotated[
    list[str] | None, typer.Option("--env-file", metavar="FILE", help="Define variables from a file.")
]
PolicyOption = Annotated[
    str | None,
    typer.Option("--policy", metavar="FILE", help="A kvplan.yaml; default: the nearest, going up."),
]
MaxKvOption = Annotated[
    float | None, typer.Option("--max-kv-gib", metavar="GIB", help="Most GiB the KV cache may take.")
]
MinConcurrencyOption = Annotated[
    float | None,
    typer.Option("--min-concurrency", metavar="N", help="Requests of full length that must run at once."),
]
MinContextOption = Annotated[
    str | None, typer.Option("--min-context", metavar="TOKENS", help="Tokens that must be configured.")
]


@dataclass(frozen=True, slots=True)
class CheckAsked:
    """The options of a check as typed."""

    gpus: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    engine: str | None = None
    policy: str | None = None
    batch: str | None = None
    reserve: str | None = None
    cpu_memory: str | None = None
    min_headroom: str | None = None
    max_kv_gib: float | None = None
    min_concurrency: float | None = None
    min_context: str | None = None
    strict: bool = False
    allow_offload: bool = False
    allow_unknown: bool = False
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Checker:
    """Everything a check needs beside its files."""

    settings_of: SettingsOf
    models: Models
    variables: dict[str, Word] = field(default_factory=dict)
    loaded: "Loaded | None" = None


def with_environment(asked: CheckAsked) -> CheckAsked:
    """Return the options with ``KVPLAN_*`` variables where nothing was typed."""
    changes: dict[str, object] = {}
    for name in ("gpus", "engine", "policy", "batch", "reserve", "cpu_memory", "min_headroom", "min_context"):
        value = os.environ.get(f"KVPLAN_{name.removesuffix('s').upper()}", "").strip()
        if value and not getattr(asked, name):
            changes[name] = tuple(value.split(",")) if name == "gpus" else value
    for name in ("max_kv_gib", "min_concurrency"):
        value = os.environ.get(f"KVPLAN_{name.upper()}", "").strip()
        if value and getattr(asked, name) is None:
            changes[name] = _number(name, value)
    for name in ("strict", "allow_offload", "allow_unknown", "offline"):
        if os.environ.get(f"KVPLAN_{name.upper()}", "").casefold() in ("1", "true", "yes", "on"):
            changes[name] = True
    return replace(asked, **changes)  # type: ignore[arg-type]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidValue(
            f"KVPLAN_{name.upper()}={text} is not a number",
            why="it is a budget",
            hint=f"write it like KVPLAN_{name.upper()}=8",
        ) from None


def checker(asked: CheckAsked, paths: Sequence[str]) -> Checker:
    """Read the options and the policy. Raises KvplanError for what cannot be read."""
    from kvplan.sources import open_model

    asked = with_environment(asked)
    settings = settings_from(asked)
    loaded = _policy(asked.policy, paths)
    models = Models(lambda ref, offline: open_model(ref, offline=offline))
    if loaded is None:
        return Checker(lambda _: settings, models, _variables(asked))
    from kvplan.deploy.policy_settings import layered

    return Checker(
        lambda launch: typed_over(layered(launch, loaded), settings), models, _variables(asked), loaded
    )


def settings_from(asked: CheckAsked) -> Settings:
    """Return the options as settings. Raises KvplanError naming the one that cannot be read."""
    from kvplan.cli.question import number_of_sequences

    if asked.gpus:
        from kvplan.hardware.parse import parse_gpus

        parse_gpus(asked.gpus)
    if asked.engine is not None:
        from kvplan.engines import engine_named

        engine_named(asked.engine)
    for name, value in (("--max-kv-gib", asked.max_kv_gib), ("--min-concurrency", asked.min_concurrency)):
        if value is not None and not 0 < value < 1e9:
            raise InvalidValue(
                f"{name} {value:g} is no budget",
                why="it takes a number above 0",
                hint=f"write it like {name} 8",
            )
    return Settings(
        gpus=asked.gpus,
        models=dict(parse_model_choice(text) for text in asked.models),
        engine=asked.engine,
        offline=asked.offline,
        rules=Rules(asked.strict, asked.allow_offload, asked.allow_unknown),
        budget=Budget(
            min_headroom_bytes=_size(asked.min_headroom),
            max_kv_bytes=int(asked.max_kv_gib * GIB) if asked.max_kv_gib is not None else None,
            min_concurrency=asked.min_concurrency,
            min_context_tokens=parse_tokens(asked.min_context) if asked.min_context else None,
        ),
        reserve_bytes=_size(asked.reserve) or 0,
        cpu_memory_bytes=_size(asked.cpu_memory),
        num_sequences=number_of_sequences(asked.batch) if asked.batch is not None else None,
    )


def _size(text: str | None) -> int | None:
    return parse_size(text).num_bytes if text else None


def _policy(given: str | None, paths: Sequence[str]) -> "Loaded | None":
    if given is not None:
        if not Path(given).is_file():
            raise InputError(
                f"--policy {given} is not there", why="no file has that name", hint="check the path"
            )
        return _loaded(Path(given), given)
    first = next((Path(path) for path in paths if path != "-"), Path())
    start = first if first.is_dir() else first.parent
    found = find_policy(start)
    if found is None:
        return None
    try:
        shown = str(found.relative_to(Path.cwd()))
    except ValueError:
        shown = str(found)
    return _loaded(found, shown)


def _loaded(path: Path, shown: str) -> "Loaded":
    # pydantic is imported only where there is a policy to check.
    from kvplan.deploy.policy import load_policy

    return load_policy(path, shown)


def _variables(asked: CheckAsked) -> dict[str, Word]:
    found: dict[str, Word] = {}
    for name in asked.env_files:
        try:
            found |= read_env(Path(name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {name}", why=str(error), hint="check the path") from None
    for text in asked.env:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidValue(
                f"--env {text} cannot be read",
                why="it defines a variable: NAME=VALUE",
                hint="write it like --env MODEL_ID=qwen3-32b",
            )
        found[name] = Word(value)
    return found
