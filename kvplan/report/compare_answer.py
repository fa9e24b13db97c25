"""The answer of ``kvplan compare``."""

from kvplan.engines.base import Plan
from kvplan.errors import KvplanError
from kvplan.frozen import dataclass
from kvplan.judge import Verdict
from kvplan.solve import Limits


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing compared: what sets it apart (``labels``: axis and value) and its answer.

    ``problem`` instead of a plan where there is none: a format its engine lacks, say. ``command``
    asks for it alone.
    """

    labels: tuple[tuple[str, str], ...]
    command: str
    plan: Plan | None = None
    verdict: Verdict | None = None
    limits: Limits | None = None
    problem: KvplanError | None = None

    @property
    def name(self) -> str:
        """What sets it apart, in one word or a few."""
        return " ".join(value for _, value in self.labels)


@dataclass(frozen=True, slots=True)
class Difference:
    """Why one subject costs something else than another, by their positions."""

    first: int
    second: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompareAnswer:
    """Subjects side by side; ``shared`` is what they have in common, in words."""

    shared: str
    subjects: tuple[Subject, ...]
    differences: tuple[Difference, ...]
    exit_code: int = 0
