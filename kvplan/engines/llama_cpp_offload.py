"""As little as possible in system memory: which ``--n-cpu-moe``, then which ``-ngl``, makes it fit.

The order of llama.cpp's own ``--fit`` (common/fit.cpp): experts leave the device first, because a token
reads few of them; only when all of them are out do whole layers follow, the first ones first.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.engines.llama_cpp_settings import ALL_LAYERS, Settings


def least_spilled(
    settings: Settings,
    num_layers: int,
    *,
    has_experts: bool,
    may_fit: Callable[[Settings], bool],
    fits: Callable[[Settings], bool],
) -> Settings | None:
    """Return the settings that leave the least in system memory and fit; None where none do.

    ``fits`` must hold for every larger ``n_cpu_moe`` and every smaller ``n_gpu_layers`` once it holds;
    ``may_fit``, the cheaper test that is asked first, wherever ``fits`` does.
    """
    start = settings
    if has_experts:
        everything = replace(settings, n_cpu_moe=ALL_LAYERS)
        if may_fit(everything) and fits(everything):

            def out_of_the_way(count: int) -> Settings:
                return replace(settings, n_cpu_moe=count)

            return out_of_the_way(_smallest(num_layers, out_of_the_way, may_fit, fits))
        start = everything

    def left_out(count: int) -> Settings:
        return replace(start, n_gpu_layers=num_layers + 1 - count)

    nothing = left_out(num_layers + 1)
    if not (may_fit(nothing) and fits(nothing)):
        return None
    return left_out(_smallest(num_layers + 1, left_out, may_fit, fits))


def _smallest(
    most: int,
    settings_of: Callable[[int], Settings],
    may_fit: Callable[[Settings], bool],
    fits: Callable[[Settings], bool],
) -> int:
    """Return the smallest count in 1..most that fits, given that ``most`` does.

    The cheap test finds the first count worth a real one; from there steps double, since what it leaves
    out of account is seldom larger than a few layers.
    """
    low = _last_without(lambda count: may_fit(settings_of(count)), 0, most)
    step, high = 1, min(low + 1, most)
    while high < most and not fits(settings_of(high)):
        low, step = high, 2 * step
        high = min(high + step, most)
    return _last_without(lambda count: fits(settings_of(count)), low, high) + 1


def _last_without(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the largest count for which a test does not hold, which at ``high`` does and at ``low`` not."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return low
