"""As little as possible in system memory: which ``--n-cpu-moe``, then which ``-ngl``, makes it fit.

The order of llama.cpp's own ``--fit`` (common/fit.cpp): experts leave the device first, because a token
reads few of them; only when all of them are out do whole layers follow, the first ones first.
"""

from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from itertools import cycle

from kvplan.engines.llama_cpp.settings import ALL_LAYERS, Settings
from kvplan.frozen import replace

# The bytes that settings leave free; negative where they are short.
Room = Callable[[Settings], int]


def least_spilled(
    settings: Settings, num_layers: int, *, has_experts: bool, room: Room, most_room: Room
) -> Settings | None:
    """Return the settings that leave the least in system memory and fit; None where none do.

    ``settings`` do not. ``room`` must grow with ``n_cpu_moe`` and shrink with ``n_gpu_layers``;
    ``most_room`` is never less, and costs little.
    """
    left_out = most_room(settings) - room(settings)
    start = settings
    if has_experts:

        def out_of_the_way(count: int) -> Settings:
            return replace(settings, n_cpu_moe=count)

        found = _smallest(num_layers, out_of_the_way, room, most_room, left_out)
        if found:
            return out_of_the_way(found)
        start = out_of_the_way(ALL_LAYERS)

    def without(count: int) -> Settings:
        return replace(start, n_gpu_layers=num_layers + 1 - count)

    found = _smallest(num_layers + 1, without, room, most_room, left_out)
    return without(found) if found else None


def most_spilled(settings: Settings, *, has_experts: bool, room: Room, most_room: Room) -> Settings:
    """Return the settings that leave all experts in system memory, or all layers where that is too little."""
    if has_experts:
        settings = replace(settings, n_cpu_moe=ALL_LAYERS)
        if most_room(settings) >= 0 and room(settings) >= 0:
            return settings
    return replace(settings, n_gpu_layers=0)


def _smallest(
    most: int, settings_of: Callable[[int], Settings], room: Room, most_room: Room, left_out: int
) -> int:
    """Return the smallest count in 1..most that fits, 0 where not even ``most`` does.

    What ``most_room`` leaves out of account is nearly the same for all counts, so where it was worked
    out last says which count to try next; halving now and then bounds the search where it does not.
    ``left_out`` is the first estimate.
    """

    @cache
    def bound(count: int) -> int:
        return most_room(settings_of(count))

    low, high = 0, most + 1
    turns = cycle(("guess", "guess", "guess", "half"))
    while high - low > 1:
        tried = (low + high) // 2
        if next(turns) == "guess":
            tried = low + 1 + bisect_left(range(low + 1, high - 1), left_out, key=bound)
        spare = bound(tried)
        if spare >= 0:
            spare = room(settings_of(tried))
            left_out = bound(tried) - spare
        if spare >= 0:
            high = tried
        else:
            low = tried
    return high if high <= most else 0
