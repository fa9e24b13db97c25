"""What a change costs: two checks of the same deployments, held against each other.

A verdict gets worse when it moves down ``fits > tight > offload > does_not_fit = refused``, or when a
budget breaks that held before, or where what was unknown is now proven to fail. What becomes unknown
is neither better nor worse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from kvplan.deploy.rows import CheckResult, Row, SharedGpu
from kvplan.errors import InvalidSpec
from kvplan.frozen import dataclass

RANK: dict[str, int] = {"fits": 0, "tight": 1, "offload": 2, "does_not_fit": 3, "refused": 3}
# Facts that explain a change, in the order in which they are named.
CAUSES = (
    "model",
    "engine",
    "engine_version",
    "gpu",
    "weights_format",
    "context_tokens",
    "kv_dtype",
    "num_sequences",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """One deployment on one side, as plain values: from a check just made, or from a saved one."""

    name: str
    file: str
    line: int
    verdict: str
    exit_code: int
    model: str
    engine: str
    engine_version: str
    gpu: str
    why: str = ""
    headroom_bytes: int | None = None
    max_concurrency: float | None = None
    weights_format: str = ""
    weights_bytes: int | None = None
    kv_bytes: int | None = None
    required_bytes: int | None = None
    context_tokens: int | None = None
    num_sequences: int | None = None
    kv_dtype: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    broken_budgets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One deployment on both sides; ``base`` None where it is new, ``head`` None where it is gone.

    ``causes`` are the fields that differ, as (name, before, after).
    """

    name: str
    base: Facts | None
    head: Facts | None
    causes: tuple[tuple[str, object, object], ...] = ()
    worse: bool = False

    @property
    def facts(self) -> Facts:
        """The side that is there, the later one if both are."""
        found = self.head or self.base
        if found is None:
            raise ValueError(self.name)
        return found

    @property
    def is_same(self) -> bool:
        """Tell whether nothing changed that a report would show."""
        if self.base is None or self.head is None:
            return False
        return not self.causes and replace(self.base, file="", line=0) == replace(self.head, file="", line=0)


@dataclass(frozen=True, slots=True)
class DiffResult:
    """All changes, and what could not be read on either side."""

    changes: tuple[Change, ...]
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 where something got worse, 2 for unreadable files, 3 where something became unknown, else 0."""
        if self.problems:
            return 2
        if any(change.worse for change in self.changes):
            return 1
        became = (
            change
            for change in self.changes
            if change.head is not None and change.head.exit_code == 3 and not change.is_same
        )
        return 3 if any(became) else 0


def facts_of_row(row: Row, file: str) -> Facts:
    """Return a checked row as plain values, under the file's name on either side."""
    result = row.plan
    facts: dict[str, Any] = {"options": dict(row.settings)}
    if result is not None:
        required = [part.required.expected for part in result.devices]
        facts = {
            "weights_format": result.weights_format,
            "weights_bytes": result.weights.expected,
            "kv_bytes": result.cache.total.expected,
            "required_bytes": max(required, default=None),
            "context_tokens": result.context_tokens,
            "num_sequences": result.num_sequences,
            "kv_dtype": result.kv_dtype_k
            if result.kv_dtype_k == result.kv_dtype_v
            else f"{result.kv_dtype_k}/{result.kv_dtype_v}",
            "max_concurrency": result.max_concurrency,
            "options": dict(result.engine_options),
        }
    return Facts(
        name=row.name,
        file=file,
        line=row.at.line,
        verdict=row.status,
        exit_code=row.exit_code,
        model=row.model_id or row.model,
        engine=row.engine,
        engine_version=row.engine_version,
        gpu=row.gpu,
        why=row.why,
        headroom_bytes=row.headroom_bytes,
        broken_budgets=row.broken_budgets,
        **facts,
    )


def facts_of_json(data: object, origin: str) -> list[Facts]:
    """Return the deployments of a saved ``kvplan check --json``. Raises InvalidSpec for anything else."""
    if not isinstance(data, dict) or data.get("schema") != "kvplan/1" or data.get("command") != "check":
        raise InvalidSpec(
            f"{origin}: not a saved check",
            why="a saved side is the output of kvplan check --json",
            hint="write one with: kvplan check FILE --json -o base.json",
        )
    try:
        shared = [_shared_from_json(entry) for entry in data["shared_gpus"]]
        return [*(_from_json(entry) for entry in data["deployments"]), *shared]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidSpec(
            f"{origin}: not a whole check: {error}",
            why="a saved side is the output of kvplan check --json",
            hint="write it again with this version of kvplan",
        ) from None


def _from_json(entry: Mapping[str, Any]) -> Facts:
    saved = entry["plan"] or {}
    cache = saved.get("workload", {}).get("kv_cache_dtype", {})
    keys, values = cache.get("k", ""), cache.get("v", "")
    required = [device["required_bytes"]["expected"] for device in saved.get("devices", [])]
    return Facts(
        name=str(entry["name"]),
        file=str(entry["file"]),
        line=int(entry["line"] or 0),
        verdict=str(entry["verdict"]),
        exit_code=int(entry["exit_code"]),
        model=str(entry["model"]["id"] or entry["model"]["written"]),
        engine=str(entry["engine"]["name"]),
        engine_version=str(entry["engine"]["version"]),
        gpu=str(entry["gpu"] or ""),
        why=str(entry["why"]),
        headroom_bytes=entry["headroom_bytes"],
        max_concurrency=entry["max_concurrency"],
        weights_format=saved.get("model", {}).get("weights_format", ""),
        weights_bytes=saved.get("model", {}).get("weights_bytes"),
        kv_bytes=saved.get("kv_cache", {}).get("total_bytes"),
        required_bytes=max(required, default=None),
        context_tokens=saved.get("workload", {}).get("context_tokens"),
        num_sequences=saved.get("workload", {}).get("num_sequences"),
        kv_dtype=keys if keys == values else f"{keys}/{values}",
        options=saved.get("engine", {}).get("options") or entry.get("settings", {}),
        broken_budgets=tuple(entry["broken_budgets"]),
    )


def _shared_from_json(entry: Mapping[str, Any]) -> Facts:
    item = SharedGpu(
        file=str(entry["file"]),
        group=str(entry["group"]),
        gpu=str(entry["gpu"] or ""),
        index=int(entry["index"]),
        names=tuple(entry["deployments"]),
        status=entry["verdict"],
        exit_code=int(entry["exit_code"]),
        required_bytes=entry["required_bytes"],
        limit_bytes=entry["limit_bytes"],
        why=str(entry["why"]),
    )
    return _facts_of_shared(item, item.file)


def facts_of_result(result: CheckResult, strip: str = "") -> list[Facts]:
    """Return all rows of a check; ``strip`` is a folder left out of their files' names."""
    rows = [facts_of_row(row, _stripped(row.at.file, strip)) for row in result.rows]
    return [*rows, *(_facts_of_shared(item, _stripped(item.file, strip)) for item in result.shared)]


def _stripped(file: str, folder: str) -> str:
    return file.removeprefix(folder).lstrip("/") if folder else file


def _facts_of_shared(item: SharedGpu, file: str) -> Facts:
    limit, required = item.limit_bytes, item.required_bytes
    return Facts(
        name=f"GPU {item.index} of {item.group}",
        file=file,
        line=item.at.line if item.at else 0,
        verdict=item.status,
        exit_code=item.exit_code,
        model="",
        engine="",
        engine_version="",
        gpu=item.gpu,
        why=item.why,
        required_bytes=required,
        headroom_bytes=None if limit is None or required is None else limit - required,
    )


def compared(base: Sequence[Facts], head: Sequence[Facts]) -> tuple[Change, ...]:
    """Pair deployments by file and name; where each side is one file, by name alone.

    One left over on each side of the same file is the same deployment under a new name.
    """
    one_file = len({item.file for item in base}) <= 1 and len({item.file for item in head}) <= 1

    def keyed(side: Sequence[Facts]) -> dict[tuple[str, str, int], Facts]:
        found: dict[tuple[str, str, int], Facts] = {}
        for item in side:
            number = 0
            while (key := ("" if one_file else item.file, item.name, number)) in found:
                number += 1
            found[key] = item
        return found

    old, new = keyed(base), keyed(head)
    changes = [_change(old.get(key), item) for key, item in new.items() if key in old]
    gone = {key: item for key, item in old.items() if key not in new}
    added = {key: item for key, item in new.items() if key not in old}
    for key, item in list(added.items()):
        partners = [other for other in gone if other[0] == key[0]]
        alone = sum(1 for other in added if other[0] == key[0]) == 1
        if len(partners) == 1 and alone:
            changes.append(_change(gone.pop(partners[0]), item))
            added.pop(key)
    changes += [_change(None, item) for item in added.values()]
    changes += [_change(item, None) for item in gone.values()]
    return tuple(changes)


def _change(base: Facts | None, head: Facts | None) -> Change:
    name = (head or base).name  # type: ignore[union-attr]
    if base is None or head is None:
        worse = head is not None and head.exit_code == 1
        return Change(name, base, head, (), worse)
    causes: list[tuple[str, object, object]] = [
        (cause, getattr(base, cause), getattr(head, cause))
        for cause in CAUSES
        if getattr(base, cause) != getattr(head, cause)
    ]
    for option in _comparable(base, head):
        before, after = base.options.get(option), head.options.get(option)
        # An option that says the same as a fact above (max_model_len, context_tokens) is named once.
        if before != after and (before, after) not in [(old, new) for _, old, new in causes]:
            causes.append((option, before, after))
    proven = base.verdict == "unknown" and head.exit_code == 1
    moved_down = proven or RANK.get(head.verdict, -1) > RANK.get(base.verdict, 99)
    new_budgets = {_budget(text) for text in head.broken_budgets} - {
        _budget(text) for text in base.broken_budgets
    }
    return Change(name, base, head, tuple(causes), moved_down or bool(new_budgets))


def _comparable(base: Facts, head: Facts) -> list[str]:
    """Return the options to compare: of a plan all are known, without one only those written down."""
    if (base.kv_bytes is None) == (head.kv_bytes is None):
        return list(dict.fromkeys((*base.options, *head.options)))
    return [option for option in base.options if option in head.options]


def _budget(text: str) -> str:
    return text.split(" ", maxsplit=1)[0]
