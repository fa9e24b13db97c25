"""The answer of ``kvplan diff``."""

from kvplan.deploy.diff import DiffResult
from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class DiffAnswer:
    """What changed, between which sides, and the exit code it ends in."""

    result: DiffResult
    base: str
    head: str
    exit_code: int
