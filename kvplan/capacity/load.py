"""When the pool overflows: sessions that each hold what the lengths say, against a pool of tokens.

Many independent sessions add up to a normal distribution (central limit); the share of time above the
pool is its tail. Beyond the pool somebody is preempted.
"""

from math import erf, sqrt

from kvplan.capacity.allocation import DEFAULT_BLOCK_SIZE, paged_sum
from kvplan.capacity.lengths import Lengths, live_variance
from kvplan.frozen import dataclass

# Overflow for this share of the time is where preemption begins to be seen.
SEEN = 0.001


@dataclass(frozen=True, slots=True)
class Load:
    """Sessions against a pool: the share of time they exceed it, and the loads at which they begin to.

    ``sessions_without`` overflow less than 0.1 % of the time; ``sessions_half`` half of it.
    """

    num_sessions: int
    pool_tokens: int
    mean_tokens: float
    overflow_share: float
    sessions_without: int
    sessions_half: int


def load(lengths: Lengths, pool_tokens: int, num_sessions: int, block_size: int = DEFAULT_BLOCK_SIZE) -> Load:
    """Return how often ``num_sessions`` of these lengths exceed ``pool_tokens``."""
    steps = max(1, sum(lengths.outputs))
    pairs = zip(lengths.prompts, lengths.outputs, strict=True)
    mean = sum(paged_sum(prompt, output, block_size) for prompt, output in pairs) / steps
    deviation = sqrt(live_variance(lengths))

    def overflow(sessions: int) -> float:
        spread = deviation * sqrt(sessions)
        if not spread:
            return float(sessions * mean > pool_tokens)
        return 0.5 * (1 - erf((pool_tokens - sessions * mean) / (spread * sqrt(2))))

    half = int(pool_tokens / mean)
    low, high = 0, max(1, half)
    while low < high:
        middle = (low + high + 1) // 2
        if overflow(middle) < SEEN:
            low = middle
        else:
            high = middle - 1
    return Load(num_sessions, pool_tokens, mean, overflow(num_sessions), low, half)
