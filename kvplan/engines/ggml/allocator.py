"""ggml's graph allocator: which bytes of a buffer each tensor gets, and so how large the buffer is.

ggml/src/ggml-alloc.c: a tensor lives from the node that computes it to the last node that reads it or
a view of it. It may take an operand's place, else the smallest free block that holds it, else the end
of the buffer. Inputs are placed first; outputs stay. When tensors come and go follows from the graph
alone (``lifetimes``); where they lie depends on their sizes (``packed_sizes``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.engines.ggml.tensor import IN_PLACE, Tensor

END = 1 << 62


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """When places are taken and given back, in order.

    ``events`` has the number of a place; the second time it appears it is given back. Place ``i`` is
    in the buffer of backend ``backends[i]`` and ``sizes[i]`` bytes large.
    """

    events: tuple[int, ...]
    backends: tuple[int, ...]
    sizes: tuple[int, ...]


def lifetimes(nodes: Sequence[tuple[Tensor, int]], leaves: Sequence[tuple[Tensor, int]]) -> Lifetimes:
    """Return when each tensor that needs a place has one; nodes and leaves name their backend."""
    events: list[int] = []
    backends: list[int] = []
    sizes: list[int] = []

    def place(tensor: Tensor, backend: int) -> None:
        if tensor.slot is not None or tensor.view_src is not None or tensor.buffer is not None:
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

    def release(tensor: Tensor) -> None:
        if tensor.slot is not None and tensor.slot >= 0 and not tensor.is_output:
            events.append(tensor.slot)
            tensor.slot = GONE

    for leaf, backend in leaves:
        place(leaf, backend)
    for node, backend in nodes:
        if node.view_src is not None and node.op != "none":
            node.view_src.num_views += 1
        if node.is_input:
            place(node, backend)
        for operand in node.src:
            operand.num_readers += 1
            if operand.is_input:
                place(operand, backend)
    for node, backend in nodes:
        for operand in node.src:
            place(operand, backend)
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
    return Lifetimes(tuple(events), tuple(backends), tuple(sizes))


# A place that another tensor took over, or that was given back.
GONE = -1


def packed_sizes(
    events: Sequence[int], backends: Sequence[int], sizes: Sequence[int], alignments: Sequence[int]
) -> tuple[int, ...]:
    """Return the bytes of each backend's buffer for places of these sizes."""
    buffers = [_Buffer() for _ in alignments]
    padded = [
        (size + alignments[backend] - 1) & -alignments[backend]
        for size, backend in zip(sizes, backends, strict=True)
    ]
    addresses = [-1] * len(padded)
    for place in events:
        buffer = buffers[backends[place]]
        if addresses[place] < 0:
            addresses[place] = buffer.take(padded[place])
        else:
            buffer.give_back(addresses[place], padded[place])
    return tuple(buffer.size_bytes for buffer in buffers)


class _Buffer:
    """One backend's buffer: free blocks by address, the last of them without end."""

    __slots__ = ("offsets", "size_bytes", "sizes")

    def __init__(self) -> None:
        self.offsets = [0]
        self.sizes = [END]
        self.size_bytes = 0

    def take(self, num_bytes: int) -> int:
        """Take the smallest block that holds ``num_bytes``, the last at need; return its address."""
        sizes, offsets = self.sizes, self.offsets
        best, best_size = len(sizes) - 1, END
        for index in range(best):
            if num_bytes <= sizes[index] <= best_size:
                best, best_size = index, sizes[index]
        address = offsets[best]
        if sizes[best] == num_bytes:
            del sizes[best], offsets[best]
        else:
            offsets[best] = address + num_bytes
            sizes[best] -= num_bytes
        self.size_bytes = max(self.size_bytes, address + num_bytes)
        return address

    def give_back(self, address: int, num_bytes: int) -> None:
        """Free ``num_bytes``, joining them with a free neighbour."""
        sizes, offsets = self.sizes, self.offsets
        end = address + num_bytes
        place = len(offsets)
        for index, offset in enumerate(offsets):
            if offset + sizes[index] == address:
                sizes[index] += num_bytes
                if index + 1 < len(offsets) and offsets[index + 1] == end:
                    sizes[index] += sizes[index + 1]
                    del sizes[index + 1], offsets[index + 1]
                return
            if offset == end:
                offsets[index] = address
                sizes[index] += num_bytes
                return
            if place > index and offset >= address:
                place = index
        offsets.insert(place, address)
        sizes.insert(place, num_bytes)
