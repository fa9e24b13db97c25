"""The words that every form of a check shares."""

from collections import Counter

from kvplan.deploy.rows import CheckResult, Place, Row, SharedGpu
from kvplan.report.wording import ENGINES, VERDICTS
from kvplan.units import format_gib, format_tokens

OVER_BUDGET = "OVER BUDGET"


def verdict_word(row: Row) -> str:
    """Return a row's verdict in words; a broken budget counts where it would fit otherwise."""
    if row.broken_budgets and row.status in ("fits", "tight"):
        return OVER_BUDGET
    return VERDICTS[row.status]


def summary(result: CheckResult) -> str:
    """Return the whole check in one line: how many of each verdict."""
    counted = Counter(verdict_word(row) for row in result.rows)
    parts = [f"{number} {word.lower()}" for word, number in counted.most_common()]
    if result.problems:
        parts.append(f"{len(result.problems)} unreadable")
    clashes = sum(1 for item in result.shared if item.exit_code == 1)
    if clashes:
        parts.append(f"{clashes} shared GPU{'s' * (clashes > 1)} overcommitted")
    count = len(result.rows)
    noun = "engine" if count == 1 else "engines"
    return f"{count} {noun} found: {', '.join(parts)}" if parts else f"{count} engines found"


def engine_name(row: Row) -> str:
    """Return a row's engine and version as people write it."""
    name = ENGINES.get(row.engine, row.engine)
    return f"{name} {row.engine_version}".strip()


def room(row: Row) -> str:
    """Return the room left on the tightest device, empty where it is not known."""
    return "" if row.headroom_bytes is None else format_gib(row.headroom_bytes)


def requests(row: Row) -> str:
    """Return how many requests of full length run at once, empty where the engine does not say."""
    concurrency = row.plan.max_concurrency if row.plan is not None else None
    return "" if concurrency is None else f"{concurrency:,.1f}"


def context(row: Row) -> str:
    """Return the context a row was planned with."""
    return format_tokens(row.plan.context_tokens) if row.plan is not None else ""


def reasons(row: Row) -> list[str]:
    """Return why a row is not simply fine: the verdict's reason with what to do, then its budgets."""
    found: list[str] = []
    if row.why:
        found.append(f"{row.why} ({row.fix})" if row.fix else row.why)
    found += row.broken_budgets
    return found


def message(row: Row) -> str:
    """Return a row in one sentence, for places that show nothing else."""
    subject = f"{row.name}: {verdict_word(row)}: {row.model_id or row.model or 'no model'}"
    subject += f" on {row.gpu}" if row.gpu else ""
    subject += f", {engine_name(row)}" if row.engine else ""
    details = reasons(row)
    if row.headroom_bytes is not None:
        left = row.headroom_bytes
        details.append(f"short {format_gib(-left)}" if left < 0 else f"{format_gib(left)} free")
    return f"{subject}. {'; '.join(details)}" if details else subject


def where(row: Row) -> Place:
    """Return the line to point at: the flag that decided, else the model."""
    return row.flag_at or row.at


def shared_message(item: SharedGpu) -> str:
    """Return what engines ask of a shared card, in one sentence."""
    gpu = f" ({item.gpu})" if item.gpu else ""
    text = f"GPU {item.index}{gpu} of {item.group}: {', '.join(item.names)}: {VERDICTS[item.status]}"
    if item.required_bytes is not None and item.limit_bytes is not None:
        text += f", {format_gib(item.required_bytes)} of {format_gib(item.limit_bytes)}"
    return f"{text}: {item.why}" if item.why else text
