"""The shape of a model spec file: strict, unknown keys refused with the closest known one."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvplan.errors import InvalidSpec, did_you_mean

SourceKind = Literal["full", "near-full", "kwargs", "converted", "test-dict"]


class SpecFile(BaseModel):
    """One file of ``model_specs/``: the memory-relevant keys of a config.json and their origin.

    ``config`` is spelled exactly as config.json. ``source_kind`` says how the keys came here:
    ``full`` verbatim, ``near-full`` trimmed, ``kwargs`` and ``converted`` from another project's
    preset. ``context_basis`` is ``assumed`` where only such a preset gave the context limit, and
    ``context_source`` names a second source that confirmed it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=96, pattern=r"^[a-z0-9][a-z0-9.\-]*$")
    repo: str | None = Field(default=None, max_length=200)
    revision: str | None = Field(default=None, max_length=64)
    source: str = Field(min_length=1)
    source_kind: SourceKind = "full"
    aliases: list[str] = Field(default_factory=list)
    published_total: int | None = Field(default=None, ge=1)
    published_relation: str | None = None
    context_basis: Literal["assumed"] | None = None
    context_source: str | None = None
    longer_context: str | None = None
    config: dict[str, Any]


def validate_spec(data: object, origin: str) -> SpecFile:
    """Check a parsed spec. Raises InvalidSpec naming the file, the key and the closest known key."""
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InvalidSpec(
            f"{origin}: not a mapping of keys",
            why="a model spec has the keys id, source and config",
            hint="see one that works: kvplan show llama-3-8b --format yaml",
        )
    try:
        return SpecFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(
            f"{origin}: {key}: {_problem(first['type'], first['msg'])}",
            why=_why(str(first["type"]), key),
            hint="see one that works: kvplan show llama-3-8b --format yaml",
        ) from None


def _problem(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "missing"
    return message[0].lower() + message[1:]


def _why(kind: str, key: str) -> str:
    known = tuple(SpecFile.model_fields)
    if kind == "extra_forbidden":
        return did_you_mean(key, known) or f"known keys are {', '.join(known)}"
    return "a model spec is checked strictly, so that no number rests on a typing error"
