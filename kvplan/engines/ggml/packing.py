"""Where ggml's allocator puts places of known lifetimes, and so how large each backend's buffer is.

ggml/src/ggml-alloc.c ``ggml_dyn_tallocr``: the smallest free block that holds a place, else the end of
the buffer; what is given back joins its free neighbours.
"""

from bisect import bisect_left
from collections.abc import Sequence

from kvplan.engines.ggml.allocator import Lifetimes

END = 1 << 62
# So many steps were packed before it pays to look ahead.
MANY = 6


def packed_sizes(lived: Lifetimes, alignments: Sequence[int]) -> tuple[int, ...]:
    """Return the bytes of each backend's buffer."""
    return _packed(lived, lived.sizes, alignments)[0]


class GrowingBuffers:
    """The buffers of one graph whose places grow by a constant with each step of the context.

    ``short`` and ``long`` are the same places at ``first_step`` and ``last_step``. Packing compares sums
    of sizes. Between two steps at which every comparison comes out alike it comes out so at each step in
    between, for both sides are straight lines; there the buffers grow in a straight line as well and
    need no packing. What was packed is kept.
    """

    def __init__(
        self, short: Lifetimes, long: Lifetimes, first_step: int, last_step: int, alignments: Sequence[int]
    ) -> None:
        self._lived, self._alignments, self._first_step = short, tuple(alignments), first_step
        num_steps = last_step - first_step
        self._growth = tuple(
            (larger - size) // num_steps for size, larger in zip(short.sizes, long.sizes, strict=True)
        )
        # Rounding up to the alignment keeps lines straight only where they climb by whole alignments.
        self._is_straight = not any(
            growth % self._alignments[backend]
            for growth, backend in zip(self._growth, short.backends, strict=True)
        )
        self._steps: list[int] = []
        self._known: list[tuple[tuple[int, ...], bytes]] = []

    def at(self, step: int) -> tuple[int, ...]:
        """Return the bytes of each backend's buffer at a step."""
        place = bisect_left(self._steps, step)
        if place == len(self._steps) >= MANY:
            # Steps that only grow: one far ahead may serve all up to it.
            self._pack(2 * step)
        if place < len(self._steps):
            above, outcomes_above = self._known[place]
            if self._steps[place] == step:
                return above
            if self._is_straight and place:
                below, outcomes_below = self._known[place - 1]
                if outcomes_below == outcomes_above:
                    start = self._steps[place - 1]
                    done, num_steps = step - start, self._steps[place] - start
                    return tuple(
                        low + (high - low) * done // num_steps for low, high in zip(below, above, strict=True)
                    )
        return self._pack(step)

    def _pack(self, step: int) -> tuple[int, ...]:
        grown = step - self._first_step
        sizes = [size + growth * grown for size, growth in zip(self._lived.sizes, self._growth, strict=True)]
        found = _packed(self._lived, sizes, self._alignments)
        place = bisect_left(self._steps, step)
        self._steps.insert(place, step)
        self._known.insert(place, found)
        return found[0]


def _packed(
    lived: Lifetimes, sizes: Sequence[int], alignments: Sequence[int]
) -> tuple[tuple[int, ...], bytes]:
    """Return the buffers for places of these sizes, and how every comparison came out."""
    outcomes = bytearray()
    buffers = [_Buffer(outcomes) for _ in alignments]
    padded = [
        (size + alignments[backend] - 1) & -alignments[backend]
        for size, backend in zip(sizes, lived.backends, strict=True)
    ]
    addresses = [-1] * len(padded)
    for place in lived.events:
        buffer = buffers[lived.backends[place]]
        if addresses[place] < 0:
            addresses[place] = buffer.take(padded[place])
        else:
            buffer.give_back(addresses[place], padded[place])
    return tuple(buffer.size_bytes for buffer in buffers), bytes(outcomes)


class _Buffer:
    """One backend's buffer: free blocks by address, the last of them without end.

    Comparisons are noted so that equality can only turn into "more": a block is never smaller than what
    it holds, nor does it reach into what is given back.
    """

    __slots__ = ("_outcomes", "offsets", "size_bytes", "sizes")

    def __init__(self, outcomes: bytearray) -> None:
        self._outcomes = outcomes
        self.offsets = [0]
        self.sizes = [END]
        self.size_bytes = 0

    def take(self, num_bytes: int) -> int:
        """Take the smallest block that holds ``num_bytes``, the last at need; return its address."""
        sizes, offsets, note = self.sizes, self.offsets, self._outcomes.append
        best, best_size = len(sizes) - 1, END
        for index in range(best):
            size = sizes[index]
            if num_bytes > size:
                note(0)
            elif size > best_size:
                note(1)
            else:
                note(2)
                best, best_size = index, size
        address = offsets[best]
        if sizes[best] == num_bytes:
            note(3)
            del sizes[best], offsets[best]
        else:
            note(4)
            offsets[best] = address + num_bytes
            sizes[best] -= num_bytes
        end = address + num_bytes
        if end > self.size_bytes:
            note(5)
            self.size_bytes = end
        else:
            note(6)
        return address

    def give_back(self, address: int, num_bytes: int) -> None:
        """Free ``num_bytes``, joining them with a free neighbour."""
        sizes, offsets, note = self.sizes, self.offsets, self._outcomes.append
        end = address + num_bytes
        place = len(offsets)
        for index, offset in enumerate(offsets):
            if offset + sizes[index] == address:
                sizes[index] += num_bytes
                if index + 1 < len(offsets) and offsets[index + 1] == end:
                    note(7)
                    sizes[index] += sizes[index + 1]
                    del sizes[index + 1], offsets[index + 1]
                else:
                    note(8)
                return
            if offset == end:
                note(9)
                offsets[index] = address
                sizes[index] += num_bytes
                return
            if offset >= address:
                note(10)
                place = min(place, index)
            else:
                note(11)
        offsets.insert(place, address)
        sizes.insert(place, num_bytes)
