"""As little as possible in system memory: which ``--n-cpu-moe``, then which ``-ngl``, makes it fit.

The order of llama.cpp's own ``--fit`` (common/fit.cpp): experts leave the device first, because a token
reads few of them; only when all of them are out do whole layers follow, the first ones first.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import cycle

from kvplan.engines.llama_cpp.settings import ALL_LAYERS, Settings
from kvplan.frozen import replace

# The bytes that settings leave free; negative where they are short.
Room = Callable[[Settings], int]


def least_spilled(
    settings: Settings, num_layers: int, *, has_experts: bool, room: Room, most_room: Room
) -> Settings | None:
    """Return the settings that leave the least in system memory and fit; None where none do.

    ``room`` must grow with ``n_cpu_moe`` and shrink with ``n_gpu_layers``; ``most_room`` is never less,
    and costs little.
    """
    start = settings
    if has_experts:

        def out_of_the_way(count: int) -> Settings:
            return replace(settings, n_cpu_moe=count)

        found = _smallest(num_layers, out_of_the_way, room, most_room)
        if found:
            return out_of_the_way(found)
        start = out_of_the_way(ALL_LAYERS)

    def left_out(count: int) -> Settings:
        return replace(start, n_gpu_layers=num_layers + 1 - count)

    found = _smallest(num_layers + 1, left_out, room, most_room)
    return left_out(found) if found else None


def _smallest(most: int, settings_of: Callable[[int], Settings], room: Room, most_room: Room) -> int:
    """Return the smallest count in 1..most that fits, 0 where not even ``most`` does.

    What ``most_room`` leaves out of account is nearly the same for all counts, so where it was worked
    out last says which count to try next; halving now and then bounds the search where it does not.
    """

    @lru_cache(maxsize=None)
    def bound(count: int) -> int:
        return most_room(settings_of(count))

    low, high, tried = 0, most, most
    turns = cycle(("guess", "guess", "guess", "half"))
    while True:
        spare = bound(tried)
        if spare >= 0:
            spare = room(settings_of(tried))
            left_out = bound(tried) - spare
        if spare >= 0:
            high = tried
        elif tried == most:
            return 0
        else:
            low = tried
        if high - low == 1:
            return high
        tried = (low + high) // 2
        if next(turns) == "guess":
            tried = min(_first(lambda count: bound(count) >= left_out, low, high), high - 1)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the first count for which a test holds, as it does at ``high`` and not at ``low``."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
