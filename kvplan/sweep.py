"""A grid of questions: every combination of contexts, loads, formats, cards and engines, planned.

A point keeps what a table or a picture needs, not its plan, so that ten thousand of them stay small.
Axes are counted before they are spelled out, so that a slip of the pen is refused, not computed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod

from kvplan.device import Device
from kvplan.engines.base import DevicePlan, Engine, Plan
from kvplan.errors import InvalidValue, KvplanError
from kvplan.frozen import dataclass
from kvplan.judge import DEFAULT_RULES, Rules, Status, judge
from kvplan.model import ModelSpec
from kvplan.offload import plan_or_offload
from kvplan.workload import Workload

MAX_POINTS = 100_000
_RANGE = re.compile(r"(?P<first>[^.+]+(?:\.\d+[^.+]*)?)\.\.(?P<last>[^+]+)(?:\+(?P<step>.+))?")


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that varies, under its option's name, and its values as text."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One point's question: the model with what is loaded beside it, the workload, where and under what."""

    model: ModelSpec
    workload: Workload
    devices: tuple[Device, ...]
    engine: Engine


@dataclass(frozen=True, slots=True)
class Point:
    """One point's answer, of the device with the least room.

    ``parts`` are the names and expected bytes of what it holds; ``problem`` says why a point was
    refused.
    """

    status: Status
    headroom_bytes: int = 0
    required_bytes: int = 0
    budget_bytes: int = 0
    parts: tuple[tuple[str, int], ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """The axes that vary and the points in their order, the last axis fastest."""

    axes: tuple[Axis, ...]
    points: tuple[Point, ...]

    def at(self, indices: Sequence[int]) -> Point:
        """Return the point with these positions on the axes."""
        number = 0
        for axis, index in zip(self.axes, indices, strict=True):
            number = number * len(axis.values) + index
        return self.points[number]


def points(cases: Iterable[Case | KvplanError], rules: Rules = DEFAULT_RULES) -> Iterator[Point]:
    """Plan every case, one by one; what cannot be planned is a refused point with the reason."""
    for case in cases:
        if isinstance(case, KvplanError):
            yield _refused(case)
            continue
        try:
            result = plan_or_offload(case.model, case.workload, case.devices, case.engine, rules)
        except KvplanError as error:
            yield _refused(error)
            continue
        yield _point(result, rules)


def _refused(error: KvplanError) -> Point:
    return Point("unknown" if error.exit_code == 3 else "refused", problem=error.message)


def _point(result: Plan, rules: Rules) -> Point:
    verdict = judge(result, rules)
    problem = result.refusals[0].message if result.refusals else ""
    if not result.devices:
        parts = tuple((part.name, part.bytes.expected) for part in result.host)
        required = sum(size for _, size in parts)
        budget = result.workload.cpu_memory_bytes or 0
        return Point(verdict.status, verdict.headroom_bytes, required, budget, parts, problem or verdict.why)
    device: DevicePlan = result.devices[max(0, verdict.device_index)]
    parts = tuple((part.name, part.bytes.expected) for part in device.components)
    required = sum(size for _, size in parts)
    return Point(
        verdict.status, device.budget_bytes - required, required, device.budget_bytes, parts, problem
    )


def check_size(counts: Iterable[int]) -> int:
    """Return how many points axes of these lengths have. Raises InvalidValue above 100,000."""
    total = prod(counts)
    if total > MAX_POINTS:
        raise InvalidValue(
            f"the axes have {total:,} points",
            why=f"a sweep takes at most {MAX_POINTS:,}",
            hint="name fewer values, or a range that doubles: --ctx 4k..128k",
        )
    return total


def count_values(texts: Sequence[str], parse: Callable[[str], int] | None) -> int:
    """Return how many values an axis has, without spelling ranges out.

    ``parse`` reads a number; None for an axis of names, which has no ranges.
    """
    total = 0
    for item in _items(texts):
        bounds = _bounds(item, parse) if parse else None
        if bounds is None:
            total += 1
        elif bounds[2]:
            total += (bounds[1] - bounds[0]) // bounds[2] + 1 + ((bounds[1] - bounds[0]) % bounds[2] > 0)
        else:
            total += len(_doubled(bounds[0], bounds[1]))
    return total


def values_of(texts: Sequence[str], parse: Callable[[str], int] | None) -> tuple[str, ...]:
    """Return an axis's values in order, each once: ``4k..32k`` doubles, ``8k..32k+8k`` steps.

    The end of a range belongs to it. Raises InvalidValue for a range that runs backwards.
    """
    found: list[str] = []
    for item in _items(texts):
        bounds = _bounds(item, parse) if parse else None
        if bounds is None:
            if parse is not None:
                parse(item)
            found.append(item)
            continue
        first, last, step = bounds
        numbers = [*range(first, last, step), last] if step else _doubled(first, last)
        found += [str(number) for number in numbers]
    return tuple(dict.fromkeys(found))


def _items(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise InvalidValue(
                f"'{text}' is not a list of values",
                why="a value between two commas is missing",
                hint="write it like 4k,8k,32k or 4k..128k",
            )
        yield from parts


def _bounds(item: str, parse: Callable[[str], int]) -> tuple[int, int, int] | None:
    match = _RANGE.fullmatch(item)
    if match is None:
        return None
    first, last = parse(match.group("first")), parse(match.group("last"))
    step = parse(match.group("step")) if match.group("step") else 0
    if last < first:
        raise InvalidValue(
            f"'{item}' runs backwards",
            why="a range goes from the smaller to the larger value",
            hint="write it like 4k..128k (doubling) or 8k..32k+8k (steps of 8k)",
        )
    return first, last, step


def _doubled(first: int, last: int) -> list[int]:
    numbers = [first]
    while numbers[-1] * 2 <= last:
        numbers.append(numbers[-1] * 2)
    return numbers if numbers[-1] == last else [*numbers, last]
