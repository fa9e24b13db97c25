"""ggml's graph allocator: which bytes of a buffer each tensor gets, and so how large the buffer is.

ggml/src/ggml-alloc.c: a tensor lives from the node that computes it to the last node that reads it or
a view of it. It may take an operand's place, else the smallest free block that holds it, else the end
of the buffer. Inputs are placed first; outputs stay. When tensors come and go follows from the graph
alone; where they lie depends on their sizes (``packing.py``).
"""

from collections.abc import Sequence

from kvplan.engines.ggml.tensor import IN_PLACE, Matrix, Tensor
from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """When places are taken and given back, in order.

    ``events`` has the number of a place; the second time it appears it is given back. Place ``i`` is
    in the buffer of backend ``backends[i]`` and ``sizes[i]`` bytes large; where it holds a matrix of a
    layer, ``matrices[i]`` is which. ``starts`` are the events before which each layer starts.
    """

    events: tuple[int, ...]
    backends: tuple[int, ...]
    sizes: tuple[int, ...]
    starts: tuple[int, ...] = ()
    matrices: tuple[Matrix | None, ...] = ()

    def bytes_of(self, place: int, num_layers: int) -> int | Matrix:
        """Return a place's size, or the matrix it holds, counted as one ``num_layers`` further on."""
        matrix = self.matrices[place]
        return self.sizes[place] if matrix is None else (matrix[0] + num_layers, matrix[1])


def lifetimes(
    nodes: Sequence[tuple[Tensor, int]], leaves: Sequence[tuple[Tensor, int]], starts: Sequence[int] = ()
) -> Lifetimes:
    """Return when each tensor that needs a place has one; nodes and leaves name their backend.

    ``starts`` are the nodes with which layers start.
    """
    events: list[int] = []
    backends: list[int] = []
    sizes: list[int] = []
    matrices: list[Matrix | None] = []
    num_events: list[int] = []

    def place(tensor: Tensor, backend: int) -> None:
        if tensor.view_src is not None or tensor.buffer is not None:
            return
        if tensor.op in IN_PLACE:
            for operand in tensor.src:
                if (
                    operand.slot is not None
                    and operand.slot >= 0
                    and operand.num_readers == 1
                    and not operand.num_views
                    and not operand.is_output
                    and operand.ne == tensor.ne
                    and operand.nb == tensor.nb
                    and operand.type == tensor.type
                ):
                    tensor.slot, operand.slot = operand.slot, GONE
                    return
        tensor.slot = len(sizes)
        events.append(tensor.slot)
        backends.append(backend)
        sizes.append(tensor.num_bytes + tensor.scratch_bytes)
        matrices.append(tensor.matrix)

    def release(tensor: Tensor) -> None:
        if tensor.slot is not None and tensor.slot >= 0 and not tensor.is_output:
            events.append(tensor.slot)
            tensor.slot = GONE

    for leaf, backend in leaves:
        if leaf.slot is None:
            place(leaf, backend)
    for node, backend in nodes:
        if node.view_src is not None and node.op != "none":
            node.view_src.num_views += 1
        if node.is_input and node.slot is None:
            place(node, backend)
        for operand in node.src:
            operand.num_readers += 1
            if operand.is_input and operand.slot is None:
                place(operand, backend)
    for node, backend in nodes:
        num_events.append(len(events))
        for operand in node.src:
            if operand.slot is None:
                place(operand, backend)
        if node.slot is None:
            place(node, backend)
        for operand in node.src:
            operand.num_readers -= 1
            if operand.num_readers or operand.num_views:
                continue
            root = operand.view_src
            if root is None:
                release(operand)
                continue
            root.num_views -= 1
            if not root.num_views and not root.num_readers:
                release(root)
    begun = tuple(num_events[start] for start in starts)
    return Lifetimes(tuple(events), tuple(backends), tuple(sizes), begun, tuple(matrices))


# A place that another tensor took over, or that was given back.
GONE = -1
