"""What a check comes to: one row an engine, one a shared GPU, and what could not be read."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from kvplan.engines.base import Plan
from kvplan.frozen import dataclass
from kvplan.judge import Status

# Exit codes from worst to best: a proven failure is never hidden by an unknown one.
EXIT_ORDER = (4, 2, 1, 3, 0)
Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file; 0 where only the file is meant."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Row:
    """One engine that a file starts, and whether it fits.

    ``model`` is the model as written, ``model_id`` what it was opened as, empty where it was not.
    ``at`` is the line of the model, ``flag`` and ``flag_at`` what decided against it. ``why`` says
    what failed or is not known, ``fix`` what to do. ``plan`` is the whole answer where there is one.
    ``broken_budgets`` are the budgets it breaks, in words; ``settings`` the engine's options as
    resolved, as written where there is no plan.
    """

    name: str
    at: Place
    engine: str
    engine_version: str
    model: str
    model_id: str
    gpu: str
    status: Status
    exit_code: int
    headroom_bytes: int | None = None
    why: str = ""
    fix: str = ""
    flag: str = ""
    flag_at: Place | None = None
    plan: Plan | None = None
    unknown_flags: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    broken_budgets: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """How loud this is: an error fails the check, a warning is a doubt."""
        if self.exit_code in (1, 2):
            return "error"
        return "warning" if self.status in ("tight", "unknown", "offload") else "note"


@dataclass(frozen=True, slots=True)
class SharedGpu:
    """A card that several engines share: what they ask of it together.

    ``exit_code`` is 1 where they cannot all run, 0 where they can, 3 where it cannot be told.
    """

    file: str
    group: str
    gpu: str
    index: int
    names: tuple[str, ...]
    status: Status
    exit_code: int
    required_bytes: int | None = None
    limit_bytes: int | None = None
    why: str = ""
    at: Place | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that could not be read, and where."""

    at: Place
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was passed over, and why."""

    at: Place
    message: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Everything a check found."""

    rows: tuple[Row, ...] = ()
    shared: tuple[SharedGpu, ...] = ()
    problems: tuple[Problem, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def exit_code(self) -> int:
        """The worst of all, in the order of ``EXIT_ORDER``."""
        codes = {row.exit_code for row in self.rows} | {item.exit_code for item in self.shared}
        if self.problems:
            codes.add(2)
        return next((code for code in EXIT_ORDER if code in codes), 0)

    @property
    def status(self) -> Status:
        """The verdict of the worst row, ``fits`` where there is none."""
        worst: Status = "fits"
        found = [*(row.status for row in self.rows), *(item.status for item in self.shared)]
        return max([worst, *found], key=SEVERITY.index)


# From best to worst; what is unknown is better than a proven failure.
SEVERITY: tuple[Status, ...] = ("fits", "tight", "unknown", "offload", "does_not_fit", "refused")
