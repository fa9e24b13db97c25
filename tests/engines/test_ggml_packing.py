"""ggml's packing of places into a buffer, at one length and at all of them."""

from hypothesis import given
from hypothesis import strategies as st

from kvplan.engines.ggml.allocator import Lifetimes
from kvplan.engines.ggml.packing import GrowingBuffers, packed_sizes


def lived(events, sizes):
    return Lifetimes(events, (0,) * len(sizes), sizes)


def test_the_smallest_hole_that_holds_a_tensor_is_taken():
    # Places 0 to 4 lie side by side; 1 and 3 are freed, and 5 goes where it fits best.
    sizes = (128, 512, 128, 256, 128, 200)
    events = (0, 1, 2, 3, 4, 1, 3, 5, 0, 2, 4, 5)
    assert packed_sizes(lived(events, sizes), (128,)) == (128 + 512 + 128 + 256 + 128,)


def test_neighbouring_holes_become_one():
    sizes = (256, 256, 128, 512)
    events = (0, 1, 2, 0, 1, 3, 2, 3)
    assert packed_sizes(lived(events, sizes), (128,)) == (256 + 256 + 128,)


@st.composite
def growing(draw):
    """Places on two backends that come and go in any order, some of which grow by odd amounts."""
    num_places = draw(st.integers(1, 14))
    ends = draw(st.lists(st.integers(0, 30), min_size=num_places, max_size=num_places))
    moments = [(2 * index, place) for index, place in enumerate(range(num_places))]
    moments += [(2 * place + 1 + end, place) for place, end in enumerate(ends)]
    events = tuple(place for _, place in sorted(moments))
    backends = tuple(draw(st.lists(st.integers(0, 1), min_size=num_places, max_size=num_places)))
    first = draw(st.lists(st.integers(1, 40), min_size=num_places, max_size=num_places))
    unit = draw(st.sampled_from((1, 64, 128, 128, 128)))
    growth = draw(st.lists(st.integers(0, 6), min_size=num_places, max_size=num_places))
    return events, backends, [size * 100 for size in first], [each * unit for each in growth]


@given(growing(), st.lists(st.integers(0, 200), min_size=1, max_size=25))
def test_every_length_is_what_packing_it_alone_gives(case, steps):
    events, backends, first, growth = case

    def at(step):
        sizes = tuple(size + each * step for size, each in zip(first, growth, strict=True))
        return Lifetimes(events, backends, sizes)

    buffers = GrowingBuffers(at(3), at(90), 3, 90, (128, 64))
    for step in steps:
        assert buffers.at(step) == packed_sizes(at(step), (128, 64))
