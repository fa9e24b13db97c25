"""The answer of ``kvplan doctor``."""

from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about this installation: ``ok`` False where something is missing."""

    topic: str
    name: str
    value: str
    ok: bool = True
    hint: str = ""


@dataclass(frozen=True, slots=True)
class DoctorAnswer:
    """What a report of a bug needs."""

    findings: tuple[Finding, ...]
