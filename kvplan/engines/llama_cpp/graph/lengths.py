"""One graph at any length of its caches, from one or two lengths at which it was built."""

from collections.abc import Callable
from typing import Protocol

from kvplan.engines.ggml.allocator import Lifetimes
from kvplan.engines.ggml.packing import GrowingBuffers, packed_sizes
from kvplan.engines.llama_cpp.graph.cuda import CELL_STRIDE
from kvplan.frozen import dataclass, replace

# Two lengths of the context that graphs are built for; unlike any other size in a model.
MEASURED_CELLS = (256 * 1009, 256 * 2003)


@dataclass(frozen=True, slots=True)
class Ends:
    """A graph's lifetimes at two lengths of its caches, in CELL_STRIDE; between them sizes are on lines."""

    first: int
    short: Lifetimes
    last: int
    long: Lifetimes


class Graph(Protocol):
    """A graph's lifetimes by the length of its caches: at any, and at two."""

    def at(self, num_cells: int) -> Lifetimes:
        """Return them at a length."""
        ...

    def ends(self) -> Ends:
        """Return them at two."""
        ...


class Built:
    """A graph that ``build`` builds.

    One length is built as it is. Whoever asks for a second will ask for more: one other is built then,
    unlike any other size in a model, and all the rest follow. Where the first length is like some
    size in the model, so that tensors live otherwise, two others are built.
    """

    def __init__(self, build: Callable[[int], Lifetimes]) -> None:
        self._build = build
        self._first: tuple[int, Lifetimes] | None = None
        self._ends: Ends | None = None

    def at(self, num_cells: int) -> Lifetimes:
        """Return the lifetimes at a length."""
        if self._first is None:
            self._first = num_cells, self._build(num_cells)
        if num_cells == self._first[0]:
            return self._first[1]
        ends = self.ends()
        steps, grown = ends.last - ends.first, num_cells // CELL_STRIDE - ends.first
        sizes = (
            size + (larger - size) // steps * grown
            for size, larger in zip(ends.short.sizes, ends.long.sizes, strict=True)
        )
        return replace(ends.short, sizes=tuple(sizes))

    def ends(self) -> Ends:
        """Return the lifetimes at two lengths."""
        if self._ends is None:
            near_cells, far_cells = MEASURED_CELLS
            far = self._build(far_cells)
            cells, lived = self._first or (near_cells, self._build(near_cells))
            if not _is_on_lines(cells, lived, far_cells, far):
                cells, lived = near_cells, self._build(near_cells)
            self._ends = Ends(cells // CELL_STRIDE, lived, far_cells // CELL_STRIDE, far)
        return self._ends


class Buffers:
    """The buffers of a graph by the length of its caches."""

    def __init__(self, graph: Graph, alignments: tuple[int, ...]) -> None:
        self._graph, self._alignments = graph, alignments
        self._first: tuple[int, tuple[int, ...]] | None = None
        self._all: GrowingBuffers | None = None

    def at(self, num_cells: int) -> tuple[int, ...]:
        """Return the bytes of each card's buffer and, last, the CPU's."""
        if self._first is None:
            self._first = num_cells, packed_sizes(self._graph.at(num_cells), self._alignments)
        if num_cells == self._first[0]:
            return self._first[1]
        if self._all is None:
            ends = self._graph.ends()
            self._all = GrowingBuffers(ends.short, ends.long, ends.first, ends.last, self._alignments)
        return self._all.at(num_cells // CELL_STRIDE)


def _is_on_lines(cells: int, lived: Lifetimes, far_cells: int, far: Lifetimes) -> bool:
    """Tell whether two lengths have the same tensors at the same times, and whole growth."""
    steps = (far_cells - cells) // CELL_STRIDE
    return (
        cells % CELL_STRIDE == 0
        and steps != 0
        and (lived.events, lived.backends) == (far.events, far.backends)
        and not any((large - size) % steps for size, large in zip(lived.sizes, far.sizes, strict=True))
    )
