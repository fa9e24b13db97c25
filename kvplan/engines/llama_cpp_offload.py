"""As little as possible in system memory: which ``--n-cpu-moe``, then which ``-ngl``, makes it fit.

The order of llama.cpp's own ``--fit`` (common/fit.cpp): experts leave the device first, because a token
reads few of them; only when all of them are out do whole layers follow, the first ones first.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.engines.llama_cpp_settings import ALL_LAYERS, Settings


def least_spilled(
    settings: Settings, num_layers: int, *, has_experts: bool, fits: Callable[[Settings], bool]
) -> Settings | None:
    """Return the settings that leave the least in system memory and fit; None where none do.

    ``fits`` must hold for every larger ``n_cpu_moe`` and every smaller ``n_gpu_layers`` once it holds.
    """
    start = settings
    if has_experts:
        everything = replace(settings, n_cpu_moe=ALL_LAYERS)
        if fits(everything):
            fewest = _smallest(num_layers, lambda count: fits(replace(settings, n_cpu_moe=count)))
            return replace(settings, n_cpu_moe=fewest)
        start = everything
    if not fits(replace(start, n_gpu_layers=0)):
        return None
    left_out = _smallest(
        num_layers + 1, lambda count: fits(replace(start, n_gpu_layers=num_layers + 1 - count))
    )
    return replace(start, n_gpu_layers=num_layers + 1 - left_out)


def _smallest(most: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest count in 1..most that holds, given that ``most`` does."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
