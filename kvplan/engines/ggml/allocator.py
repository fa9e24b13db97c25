"""ggml's graph allocator: which bytes of a buffer each tensor gets, and so how large the buffer is.

ggml/src/ggml-alloc.c: a tensor lives from the node that computes it to the last node that reads it or
a view of it. It may take an operand's place, else the smallest free block that holds it, else the end
of the buffer. Inputs are placed first; outputs stay.
"""

from collections.abc import Sequence

from kvplan.engines.ggml.tensor import IN_PLACE, Tensor

END = 1 << 62


class Buffer:
    """One backend's buffer: free blocks by address, the last of them without end."""

    __slots__ = ("alignment", "offsets", "size_bytes", "sizes")

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.offsets = [0]
        self.sizes = [END]
        self.size_bytes = 0

    def aligned(self, num_bytes: int) -> int:
        """Round up to the buffer's alignment."""
        return (num_bytes + self.alignment - 1) & -self.alignment

    def take(self, num_bytes: int) -> int:
        """Take the smallest block that holds ``num_bytes`` (aligned), the last at need; its address."""
        sizes, offsets = self.sizes, self.offsets
        best, best_size = -1, END
        for index in range(len(sizes) - 1):
            if num_bytes <= sizes[index] <= best_size:
                best, best_size = index, sizes[index]
        if best < 0:
            best = len(sizes) - 1
        address = offsets[best]
        offsets[best] = address + num_bytes
        sizes[best] -= num_bytes
        if not sizes[best]:
            del sizes[best], offsets[best]
        self.size_bytes = max(self.size_bytes, address + num_bytes)
        return address

    def give_back(self, address: int, num_bytes: int) -> None:
        """Free ``num_bytes`` (aligned), joining them with a free neighbour."""
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
                if index and offsets[index - 1] + sizes[index - 1] == address:
                    sizes[index - 1] += sizes[index]
                    del sizes[index], offsets[index]
                return
            if place == len(offsets) and offset >= address:
                place = index
        offsets.insert(place, address)
        sizes.insert(place, num_bytes)


class _Uses:
    """What is left to happen to one tensor."""

    __slots__ = ("address", "backend", "children", "is_own", "num_bytes", "views")

    def __init__(self) -> None:
        self.children = self.views = 0
        self.is_own = False
        self.backend = self.address = self.num_bytes = 0


class _Allocation:
    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers = buffers
        self.uses: dict[int, _Uses] = {}

    def of(self, tensor: Tensor) -> _Uses:
        found = self.uses.get(id(tensor))
        if found is None:
            found = self.uses[id(tensor)] = _Uses()
        return found

    def place(self, tensor: Tensor, backend: int) -> None:
        if tensor.view_src is not None or tensor.buffer is not None:
            return
        mine = self.of(tensor)
        if mine.is_own:
            return
        mine.is_own = True
        buffer = self.buffers[backend]
        mine.backend = backend
        mine.num_bytes = buffer.aligned(tensor.num_bytes + tensor.scratch_bytes)
        if tensor.op in IN_PLACE:
            for operand in tensor.src:
                theirs = self.of(operand)
                if (
                    not theirs.is_own
                    or operand.is_output
                    or theirs.children != 1
                    or theirs.views
                    or operand.type != tensor.type
                    or operand.ne != tensor.ne
                    or operand.nb != tensor.nb
                ):
                    continue
                mine.backend, mine.address = theirs.backend, theirs.address
                theirs.is_own = False
                extra = theirs.num_bytes - mine.num_bytes
                if extra > 0:
                    self.buffers[theirs.backend].give_back(theirs.address + mine.num_bytes, extra)
                return
        mine.address = buffer.take(mine.num_bytes)

    def free(self, tensor: Tensor, mine: _Uses) -> None:
        if not tensor.is_output:
            self.buffers[mine.backend].give_back(mine.address, mine.num_bytes)
            mine.is_own = False


def allocate(
    nodes: Sequence[tuple[Tensor, int]], leaves: Sequence[tuple[Tensor, int]], alignments: Sequence[int]
) -> tuple[int, ...]:
    """Return the bytes of each backend's buffer for nodes and leaves that name their backend."""
    allocation = _Allocation([Buffer(alignment) for alignment in alignments])
    of, place = allocation.of, allocation.place
    for leaf, backend in leaves:
        place(leaf, backend)
    for node, backend in nodes:
        if node.view_src is not None and node.op != "none":
            of(node.view_src).views += 1
        if node.is_input:
            place(node, backend)
        for operand in node.src:
            of(operand).children += 1
            if operand.is_input:
                place(operand, backend)
    for node, backend in nodes:
        for operand in node.src:
            place(operand, backend)
        place(node, backend)
        for operand in node.src:
            theirs = of(operand)
            theirs.children -= 1
            if theirs.children or theirs.views:
                continue
            if operand.view_src is not None:
                root = of(operand.view_src)
                root.views -= 1
                if not root.views and not root.children and root.is_own:
                    allocation.free(operand.view_src, root)
            elif theirs.is_own:
                allocation.free(operand, theirs)
    return tuple(buffer.size_bytes for buffer in allocation.buffers)
