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


def growing(random):
    """Places on two backends that come and go in any order and grow by whole alignments, or not."""
    num_places = random.randint(3, 14)
    moments = [(2 * place, place) for place in range(num_places)]
    moments += [(2 * place + 1 + random.randint(0, 30), place) for place in range(num_places)]
    events = tuple(place for _, place in sorted(moments))
    backends = tuple(random.randint(0, 1) for _ in range(num_places))
    unit = random.choice((1, 128, 128, 128))
    first = [random.randint(1, 40) * 100 for _ in range(num_places)]
    growth = [random.randint(0, 6) * unit for _ in range(num_places)]
    return events, backends, first, growth


@given(st.randoms(use_true_random=False))
def test_every_length_is_what_packing_it_alone_gives(random):
    events, backends, first, growth = growing(random)

    def at(step):
        sizes = tuple(size + each * step for size, each in zip(first, growth, strict=True))
        return Lifetimes(events, backends, sizes)

    buffers = GrowingBuffers(at(3), at(90), 3, 90, (128, 64))
    for step in random.sample(range(200), 40):
        assert buffers.at(step) == packed_sizes(at(step), (128, 64))
