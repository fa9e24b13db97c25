"""``kvplan.yaml`` and ``[tool.kvplan]``: what deployments are checked with, strictly read.

Unknown keys are refused with the closest known one, and every complaint names its line.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvplan.deploy.carriers.option_keys import plain
from kvplan.deploy.policy_place import policy_text
from kvplan.deploy.yaml_values import Listing, Table, Text, Value, load_documents
from kvplan.errors import InvalidSpec, did_you_mean

Size = Annotated[str, Field(description="A size with its unit: 2GiB, 500MiB, 24GB.")]
Tokens = Annotated[int | str, Field(description="A number of tokens: 32768 or 32k.")]
Gpus = Annotated[str | list[str], Field(description="A GPU as --gpu takes it, or several.")]


class Strict(BaseModel):
    """A section whose keys are all known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Budgets(Strict):
    """What must hold beside fitting; the names are those of the command line's flags."""

    min_headroom: Size | None = Field(default=None, description="Room that must be left on every GPU.")
    max_kv_gib: float | None = Field(default=None, gt=0, description="Most GiB the KV cache may take.")
    min_concurrency: float | None = Field(
        default=None, gt=0, description="Requests of full length that must run at once."
    )
    min_context: Tokens | None = Field(default=None, description="Tokens that must be configured at least.")
    strict: bool | None = Field(default=None, description="A verdict of 'tight' fails.")
    allow_offload: bool | None = Field(default=None, description="Running from system memory is accepted.")
    allow_unknown: bool | None = Field(default=None, description="What cannot be told is accepted.")


class Model(Strict):
    """What a model's name in a file stands for."""

    id: str = Field(min_length=1, description="A bundled name, org/repo, or a file or folder.")
    weights: str | None = Field(default=None, description="The format of its weights: fp8, awq, q4_k_m.")


class Machine(Budgets):
    """Settings that hold for a file, or for all."""

    gpu: Gpus | None = Field(
        default=None,
        description="The GPUs: at the top where files name none, under files in place of what they name.",
    )
    engine: str | None = Field(default=None, description="An engine's version: vllm@0.33.")
    reserve: Size | None = Field(default=None, description="Memory that others hold on each GPU.")
    cpu_memory: Size | None = Field(default=None, description="System memory of the machine.")
    batch: int | None = Field(default=None, ge=1, description="Requests at once, each of full length.")
    models: dict[str, str | Model] = Field(
        default_factory=dict, description="Names of models in files, and what they stand for."
    )
    gpus: dict[str, str] = Field(
        default_factory=dict, description="Names of GPUs in files, and what they stand for."
    )


class Deployment(Budgets):
    """One deployment as data."""

    model: str = Field(min_length=1, description="A bundled name, org/repo, or a file or folder.")
    gpu: Gpus | None = Field(default=None, description="The GPUs it runs on.")
    engine: str | None = Field(default=None, description="vllm, sglang, llama.cpp, …, with @version.")
    ctx: Tokens | None = Field(default=None, description="Context length.")
    batch: int | None = Field(default=None, ge=1, description="Requests at once, each of full length.")
    weights: str | None = Field(default=None, description="Weight format.")
    kv: str | None = Field(default=None, description="KV cache format.")
    kv_k: str | None = Field(default=None, description="Format of keys alone.")
    kv_v: str | None = Field(default=None, description="Format of values alone.")
    tp: int | None = Field(default=None, ge=1, description="Tensor-parallel ranks.")
    pp: int | None = Field(default=None, ge=1, description="Pipeline-parallel ranks.")
    reserve: Size | None = Field(default=None, description="Memory that others hold on each GPU.")
    cpu_memory: Size | None = Field(default=None, description="System memory of the machine.")
    flags: list[str] = Field(default_factory=list, description="The engine's own flags.")


class Policy(Machine):
    """A whole policy file."""

    offline: bool | None = Field(default=None, description="Never ask the Hub.")
    paths: list[str] = Field(
        default_factory=list, description="Files and folders to check when none is named."
    )
    files: dict[str, Machine] = Field(
        default_factory=dict,
        description="Settings by file: a glob of its path, or glob#name for one deployment in it.",
    )
    deployments: dict[str, Deployment] = Field(
        default_factory=dict, description="Deployments as data, by name."
    )


class Loaded:
    """A policy, the file it is from, and the lines of its deployments and of its general keys."""

    def __init__(self, policy: Policy, origin: str, lines: dict[str, int], key_lines: dict[str, int]) -> None:
        self.policy = policy
        self.origin = origin
        self.lines = lines
        self.key_lines = key_lines


def load_policy(path: Path, name: str | None = None) -> Loaded:
    """Read a policy file. Raises InvalidSpec with file and line for anything that is not one."""
    origin = name or str(path)
    return policy_of_text(policy_text(path, origin), origin, is_toml=path.suffix == ".toml")


def policy_of_text(text: str, origin: str, *, is_toml: bool = False) -> Loaded:
    """Read a policy's text. Raises InvalidSpec as ``load_policy`` does."""
    if is_toml:
        return _from_toml(text, origin)
    documents = load_documents(text, origin)
    document = documents[0] if documents else None
    return policy_of(Table() if document is None else document, origin)


def policy_of(document: Value, origin: str) -> Loaded:
    """Check a parsed policy. Raises InvalidSpec naming file, line, key and the closest known key."""
    if not isinstance(document, Table):
        raise InvalidSpec(
            f"{origin}: not a mapping of keys",
            why="a policy has keys such as gpu, models and deployments",
            hint="see its keys: kvplan schema policy",
        )
    try:
        policy = Policy.model_validate(plain(document))
    except ValidationError as error:
        raise _invalid(error, origin, lambda path: _line_of(document, path)) from None
    deployments = document.get("deployments")
    lines = _key_lines(deployments) if isinstance(deployments, Table) else {}
    return Loaded(policy, origin, lines, _key_lines(document))


def _key_lines(table: Table) -> dict[str, int]:
    return {str(key): key.line for key in table if isinstance(key, Text)}


def _from_toml(text: str, origin: str) -> Loaded:
    try:
        data = tomllib.loads(text).get("tool", {}).get("kvplan", {})
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f"{origin}: not TOML", why=str(error), hint=f"mend {origin}") from None

    def line_of(path: tuple[str | int, ...]) -> int:
        key = re.escape(str(path[-1])) if path else ""
        for number, line in enumerate(text.splitlines(), start=1):
            if re.match(rf"\s*\"?{key}\"?\s*=|\s*\[.*\b{key}\"?\]", line):
                return number
        return 0

    try:
        policy = Policy.model_validate(data)
        return Loaded(policy, origin, {}, {key: line_of((key,)) for key in data})
    except ValidationError as error:
        raise _invalid(error, origin, line_of) from None


def _invalid(error: ValidationError, origin: str, line_of: object) -> InvalidSpec:
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    path = tuple(part for part in first["loc"] if part not in ("str", "int", "Model", "list[str]"))
    line = line_of(path) if callable(line_of) else 0
    key = ".".join(str(part) for part in path)
    kind = str(first["type"])
    problem = {"extra_forbidden": "unknown key", "missing": "missing"}.get(kind, str(first["msg"]))
    known = tuple(_section(path).model_fields)
    why = "a policy is checked strictly, so that no check rests on a typing error"
    if kind == "extra_forbidden":
        why = did_you_mean(str(path[-1]), known) or f"known keys are {', '.join(known)}"
    return InvalidSpec(
        f"{origin}:{line}: {key}: {problem}" if line else f"{origin}: {key}: {problem}",
        why=why,
        hint="see its keys: kvplan schema policy",
    )


def _section(path: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model that describes the section a key stands in."""
    if path[:1] == ("deployments",) and len(path) > 2:
        return Deployment
    if path[:1] == ("files",) and len(path) > 2:
        return Model if "models" in path[:-1] and len(path) > 4 else Machine
    if path[:1] == ("models",) and len(path) > 2:
        return Model
    return Policy


def _line_of(document: Value, path: tuple[str | int, ...]) -> int:
    line = document.line if document is not None else 0
    for part in path:
        if isinstance(document, Table):
            line = document.key_line(str(part))
            document = document.get(str(part))
        elif isinstance(document, Listing) and isinstance(part, int) and part < len(document):
            document = document[part]
            line = document.line if document is not None else line
    return line
