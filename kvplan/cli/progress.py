"""A progress bar on standard error: on a terminal only, and only for what lasts."""

import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

Item = TypeVar("Item")
PATIENCE_SECONDS = 0.7


def watched(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield ``items``; once they have taken 0.7 seconds, say on a terminal how many of ``total`` came."""
    if not sys.stderr.isatty():
        yield from items
        return
    start = monotonic()
    source = iter(items)
    done = 0
    for item in source:
        yield item
        done += 1
        if monotonic() - start > PATIENCE_SECONDS and done < total:
            break
    else:
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        for item in source:
            yield item
            bar.advance(task)
