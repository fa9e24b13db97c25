"""Lifetimes of a graph with more layers of a kind, from one that has enough of them.

A scheduler that goes through equal layers does the same in each once the first have passed: it takes as
many places as in the layer before and gives back those of that layer and its own. So more layers of the
kind put copies of those events into the middle, with their places numbered on.
"""

from collections.abc import Callable

from kvplan.engines.ggml.allocator import Lifetimes
from kvplan.engines.ggml.tensor import Matrix
from kvplan.frozen import replace
from kvplan.units import ceil_div


def periods_needed(period: int) -> int:
    """Return how often a run of ``period`` layers must be there to be lengthened.

    A period that follows other layers, a layer that gives back what that took, two periods alike, and one
    or two layers before others, which the last split may begin with.
    """
    return 6 if period == 1 else ceil_div(3 * period + 2, period)


def lengthened(lived: Lifetimes, first: int, period: int, extra: int) -> Lifetimes | None:
    """Return the lifetimes with ``extra`` periods more in the run of layers that begins at ``first``.

    The run has as many periods of ``period`` layers as are needed. None where no two in its middle are
    alike, or where they keep places for longer than the next period.
    """
    for num_irregular in (period + 1, period):
        longer = _with_more(lived, first + num_irregular, period, extra)
        if longer is not None:
            return longer
    return None


def _with_more(lived: Lifetimes, first: int, period: int, extra: int) -> Lifetimes | None:
    """Repeat the second of the two periods that begin at layer ``first``."""
    events, starts = lived.events, lived.starts
    layer_of_end = first + 2 * period
    one, two, end = (starts[layer_of_end - period * number] for number in (2, 1, 0))
    before, inner, after = events[one:two], events[two:end], events[end:]
    # Places are numbered as they are taken: so many were by then.
    base = max(events[:one], default=-1) + 1
    step = max(before, default=-1) + 1 - base
    middle, last = base + step, base + 2 * step
    is_steady = (
        step > 0
        and tuple(place + step for place in before) == inner
        and min(inner) >= base
        and not any(base <= place < middle for place in after)
        and lived.backends[base:middle] == lived.backends[middle:last]
        and [lived.bytes_of(place, period) for place in range(base, middle)]
        == [lived.bytes_of(place, 0) for place in range(middle, last)]
    )
    if not is_steady:
        return None
    added = extra * step
    copies = range(1, extra + 1)
    return Lifetimes(
        (
            *events[:end],
            *(place + step * copy for copy in copies for place in inner),
            *(place if place < base else place + added for place in after),
        ),
        (*lived.backends[:last], *lived.backends[middle:last] * extra, *lived.backends[last:]),
        (*lived.sizes[:last], *lived.sizes[middle:last] * extra, *lived.sizes[last:]),
        (
            *starts[:layer_of_end],
            *(
                start + (end - two) * copy
                for copy in copies
                for start in starts[layer_of_end - period : layer_of_end]
            ),
            *(start + (end - two) * extra for start in starts[layer_of_end:]),
        ),
        (
            *lived.matrices[:last],
            *(_moved(matrix, period * copy) for copy in copies for matrix in lived.matrices[middle:last]),
            *(_moved(matrix, period * extra) for matrix in lived.matrices[last:]),
        ),
    )


def with_matrices(lived: Lifetimes, bytes_of: Callable[[Matrix], int]) -> Lifetimes:
    """Return the lifetimes with the bytes of each matrix that is copied as ``bytes_of`` has them."""
    sizes = tuple(
        size if matrix is None else bytes_of(matrix)
        for size, matrix in zip(lived.sizes, lived.matrices, strict=True)
    )
    return replace(lived, sizes=sizes)


def _moved(matrix: Matrix | None, num_layers: int) -> Matrix | None:
    return None if matrix is None else (matrix[0] + num_layers, matrix[1])
