"""``kvplan verify MODEL``: real tensors, with a progress bar on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvplan.calibration import CalibratedEngine
from kvplan.cli.asked import Asked
from kvplan.cli.outcome import Outcome, Output
from kvplan.cli.question import question
from kvplan.engines.base import Plan
from kvplan.errors import InputError
from kvplan.plan import plan
from kvplan.report.verify_answer import VerifyAnswer
from kvplan.report.wording import engine_text
from kvplan.units import format_tokens, parse_size
from kvplan.verify.allocation import allocate, prepare
from kvplan.verify.comparison import EXIT_CODES, outcome
from kvplan.verify.device_memory import torch_module


def answer(
    asked: Asked, device: str, max_memory: str | None, output: Output, *, keep: bool = False
) -> Outcome:
    """Plan, allocate, compare; ``keep`` saves what was measured.

    Raises CannotTell (exit 3) where nothing can be measured.
    """
    if not asked.model:
        raise InputError(
            "no MODEL is given",
            why="verify allocates a model's cache, reads a log (--log) or asks a server (--url)",
            hint="write it like: kvplan verify llama-3-8b --ctx 4k --device cpu",
        )
    asking = question(asked)
    torch_module()
    # Held against the rules that ship, not against what was measured here before.
    policy = asking.engine.uncalibrated if isinstance(asking.engine, CalibratedEngine) else asking.engine
    result = plan(asking.model, asking.workload, asking.devices, policy)
    limit = parse_size(max_memory).num_bytes if max_memory is not None else None
    whole, part, used = prepare(result, device, limit)
    with progress_bar(part.num_bytes, f"allocating on {used}", quiet=output.quiet) as advance:
        found = allocate(result, whole, part, used, advance)
    reached = outcome(found.rows)
    facts = dict(found.facts)
    if keep:
        from kvplan.cli.verify_save import keep_allocation

        facts["saved_in"] = str(keep_allocation(asked, result, found.measured, part.num_bytes))
    return Outcome(
        EXIT_CODES[reached],
        VerifyAnswer(
            mode="allocation",
            subject=subject(result, f"allocated on {used}"),
            outcome=reached,
            exit_code=EXIT_CODES[reached],
            rows=found.rows,
            plan=result,
            facts=facts,
            warnings=(*result.warnings, *found.warnings),
        ),
        output,
    )


def subject(result: Plan, against: str) -> str:
    """Return what is verified in one line."""
    sequences = "" if result.num_sequences == 1 else f" × {result.num_sequences:,}"
    kv = (
        result.kv_dtype_k
        if result.kv_dtype_k == result.kv_dtype_v
        else f"{result.kv_dtype_k}/{result.kv_dtype_v}"
    )
    return (
        f"{result.model.name}, {kv} cache of {format_tokens(result.context_tokens)} tokens{sequences}, "
        f"{engine_text(result)}, {against}"
    )


@contextmanager
def progress_bar(total_bytes: int, what: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error where that is a terminal, nothing elsewhere or when ``quiet``."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda done: bar.update(task, completed=done)
