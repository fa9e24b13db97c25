"""What ``check`` and ``diff`` share: their options as settings, and the policy that applies."""

from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvplan.deploy.check import SettingsOf
from kvplan.deploy.env_files import read_env
from kvplan.deploy.launch import Launch
from kvplan.deploy.model_names import Models
from kvplan.deploy.policy_place import find_policy, shown
from kvplan.deploy.settings import Settings, parse_model_choice
from kvplan.deploy.typed_settings import Typed
from kvplan.deploy.words import Word
from kvplan.errors import InputError, InvalidValue, reason_of
from kvplan.frozen import dataclass
from kvplan.units import GIB, parse_size, parse_tokens

if TYPE_CHECKING:
    from kvplan.deploy.policy import Loaded
    from kvplan.report.answer import Setting

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

# The options that a policy's general keys say as well.
OF_A_FILE = (
    "gpu", "engine", "batch", "reserve", "cpu_memory", "min_headroom", "max_kv_gib", "min_concurrency",
    "min_context", "strict", "allow_offload", "allow_unknown", "offline",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckAsked:
    """The options of a check as typed."""

    gpu: tuple[str, ...] = ()
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
    strict: bool | None = None
    allow_offload: bool | None = None
    allow_unknown: bool | None = None
    offline: bool | None = None


@dataclass(frozen=True, slots=True)
class Checker:
    """Everything a check needs beside its files; ``said`` are the general keys of its policy."""

    settings_of: SettingsOf
    models: Models
    variables: dict[str, Word] = field(default_factory=dict)
    loaded: "Loaded | None" = None
    said: tuple["Setting", ...] = ()


def checker(asked: CheckAsked, paths: Sequence[str]) -> Checker:
    """Read the options and the policy. Raises KvplanError for what cannot be read."""
    from kvplan.sources import open_model
    from kvplan.verify.calibration import saved_or_why

    measurements = saved_or_why()
    typed = _typed(asked)
    loaded = _policy(asked.policy, paths)
    models = Models(lambda ref, offline: open_model(ref, offline=offline))

    def settings_of(launch: Launch) -> Settings:
        return typed.over(replace(_layered(launch, launch.policy or loaded), measurements=measurements))

    return Checker(settings_of, models, _variables(asked), loaded, _said(asked, loaded))


def _layered(launch: Launch, policy: "Loaded | None") -> Settings:
    if policy is None:
        return Settings()
    from kvplan.deploy.policy_settings import layered

    return layered(launch, policy)


def _said(asked: CheckAsked, loaded: "Loaded | None") -> tuple["Setting", ...]:
    """Return the general keys of a policy that no option replaces."""
    if loaded is None:
        return ()
    from kvplan.cli.settings import file_settings

    said = file_settings(loaded, [name for name in OF_A_FILE if getattr(asked, name) in (None, ())])
    return tuple(setting for each in said.values() for setting in each)


def _typed(asked: CheckAsked) -> Typed:
    """Return what the options say. Raises KvplanError naming the one that cannot be read."""
    from kvplan.cli.question import number_of_sequences

    if asked.gpu:
        from kvplan.hardware.parse import parse_gpus

        parse_gpus(asked.gpu)
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
    return Typed(
        settings=_given(
            gpus=asked.gpu or None,
            engine=asked.engine,
            offline=asked.offline,
            reserve_bytes=_size(asked.reserve),
            cpu_memory_bytes=_size(asked.cpu_memory),
            num_sequences=number_of_sequences(asked.batch) if asked.batch is not None else None,
        ),
        models=dict(parse_model_choice(text) for text in asked.models),
        rules=_given(
            strict=asked.strict, allow_offload=asked.allow_offload, allow_unknown=asked.allow_unknown
        ),
        budget=_given(
            min_headroom_bytes=_size(asked.min_headroom),
            max_kv_bytes=int(asked.max_kv_gib * GIB) if asked.max_kv_gib is not None else None,
            min_concurrency=asked.min_concurrency,
            min_context_tokens=parse_tokens(asked.min_context) if asked.min_context else None,
        ),
    )


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


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
    return None if found is None else _loaded(found, shown(found))


def _loaded(path: Path, name: str) -> "Loaded":
    # pydantic is imported only where there is a policy to check.
    from kvplan.deploy.policy import load_policy

    return load_policy(path, name)


def _variables(asked: CheckAsked) -> dict[str, Word]:
    found: dict[str, Word] = {}
    for name in asked.env_files:
        try:
            found |= read_env(Path(name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {name}", why=reason_of(error), hint="check the path") from None
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
