"""What each way of allocating reserves for requests, by their lengths alone.

PagedAttention (arXiv 2309.06180, section 3.1) tells them apart: reserving the *maximum* length, the
next *power of two* of the output, or *exactly* what will come (an oracle), each in one piece; and
*paged*, block by block as tokens come. Every decode step counts once; queues and fragments are
kvplan.capacity.simulation's.
"""

from collections.abc import Callable
from typing import Literal

from kvplan.capacity.lengths import Lengths, live_sum
from kvplan.frozen import dataclass
from kvplan.units import round_up

Policy = Literal["maximum", "power_of_two", "exact", "paged"]
POLICIES: tuple[Policy, ...] = ("maximum", "power_of_two", "exact", "paged")
DEFAULT_BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Share:
    """How much of what a policy reserves holds tokens, and the tokens it reserves a step on average."""

    policy: Policy
    effective: float
    mean_reserved_tokens: float


def reserved_tokens(policy: Policy, prompt: int, output: int, limit_tokens: int) -> int:
    """Return what a policy in one piece reserves for a request; paged has no such number."""
    match policy:
        case "maximum":
            return limit_tokens
        case "power_of_two":
            return min(prompt + (1 << (output - 1).bit_length()), limit_tokens)
        case _:
            return prompt + output


def paged_sum(prompt: int, output: int, block_size: int) -> int:
    """Return the tokens of the blocks held, added up over a request's decode steps."""
    return block_size * (_blocks_sum(prompt + output, block_size) - _blocks_sum(prompt, block_size))


def _blocks_sum(count: int, block_size: int) -> int:
    """Return the sum of ceil(i / block_size) for i from 1 to ``count``."""
    whole, rest = divmod(count, block_size)
    return block_size * whole * (whole + 1) // 2 + rest * (whole + 1)


def shares(lengths: Lengths, limit_tokens: int, block_size: int = DEFAULT_BLOCK_SIZE) -> tuple[Share, ...]:
    """Return every policy's share of reserved tokens in use, ``limit_tokens`` being the longest request."""
    pairs = tuple(zip(lengths.prompts, lengths.outputs, strict=True))
    steps = max(1, sum(lengths.outputs))
    used = sum(live_sum(prompt, output) for prompt, output in pairs)

    def reserved(policy: Policy) -> int:
        if policy == "paged":
            return sum(paged_sum(prompt, output, block_size) for prompt, output in pairs)
        return sum(output * reserved_tokens(policy, prompt, output, limit_tokens) for prompt, output in pairs)

    return tuple(
        Share(policy, used / max(1, amount), amount / steps)
        for policy, amount in ((policy, reserved(policy)) for policy in POLICIES)
    )


def reserved_bytes(
    num_sessions: int, tokens: int, block_size: int, bytes_of_tokens: Callable[[int], int]
) -> int:
    """Return the bytes of ``num_sessions`` that each hold ``tokens`` in whole blocks."""
    return num_sessions * bytes_of_tokens(round_up(tokens, block_size))
