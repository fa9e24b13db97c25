"""How long a context ``--fit`` takes where nobody names one.

llama.cpp 0c1e57098 common/fit.cpp, on by default: from the model's own limit it shrinks the context until
each card keeps ``--fit-target`` (1,024 MiB) free, in a straight line between the memory of both ends, but
not below ``--fit-ctx`` (4,096); what does not fit then goes to system memory. A context that was named,
``-c 0`` included, is left alone.
"""

from collections.abc import Callable, Sequence

from kvplan.engines.llama_cpp_cache import CELL_PADDING
from kvplan.engines.llama_cpp_settings import whole
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass
from kvplan.units import MIB
from kvplan.workload import Workload

# common/common.h fit_params_min_ctx, fit_params_target.
DEFAULT_MIN_CONTEXT = 4096
DEFAULT_TARGET_BYTES = 1024 * MIB
OFF = ("off", "0", "false", "disabled")


@dataclass(frozen=True, slots=True)
class Room:
    """What ``--fit`` may use: free bytes of each card and how many of them are to stay free.

    ``num_streams`` is the number of sequences with a cache of their own; ``layer_bytes`` a layer's
    weights, of which some are lost at the seams between cards.
    """

    free_bytes: tuple[int, ...]
    target_bytes: tuple[int, ...]
    num_streams: int
    layer_bytes: int
    has_experts: bool


def shrinks(workload: Workload) -> bool:
    """Tell whether ``--fit`` chooses the context: it is on, and no context was named."""
    named = workload.context_tokens or workload.option("ctx_size") is not None
    # It gives up on --split-mode tensor before it looks at the context.
    named = named or str(workload.option("split_mode")).casefold() == "tensor"
    return not named and str(workload.option("fit", "on")).casefold() not in OFF


def min_context(workload: Workload) -> int:
    """Return the context that ``--fit`` does not go below."""
    return whole(workload.option("fit_ctx"), 0) or DEFAULT_MIN_CONTEXT


def target_bytes(workload: Workload, num_cards: int) -> tuple[int, ...]:
    """Return the bytes to leave free on each card: ``--fit-target`` in MiB, one value for all or a list.

    Raises InvalidValue for what is no list of numbers.
    """
    given = workload.option("fit_target")
    if given is None:
        return (DEFAULT_TARGET_BYTES,) * num_cards
    parts = str(given).replace("/", ",").split(",")
    if not all(part.strip().isdigit() and len(part) < 9 for part in parts):
        raise InvalidValue(
            f"--fit-target {str(given)[:40]} cannot be read",
            why="it takes the MiB to leave free, for all devices or one number a device",
            hint="write it like --fit-target 1024",
        )
    sizes = [int(part) * MIB for part in parts]
    if len(sizes) == 1:
        return (sizes[0],) * num_cards
    rest = (DEFAULT_TARGET_BYTES,) * max(0, num_cards - len(sizes))
    return (*sizes[:num_cards], *rest)


def fitted_context(
    limit: int, least: int, room: Room, used_bytes: Callable[[int], Sequence[int]]
) -> tuple[int, bool]:
    """Return the context of one sequence, and whether it was shrunk from ``limit``.

    ``used_bytes`` gives what each card holds at a context of one sequence.
    """
    streams = room.num_streams
    longest = used_bytes(limit)
    margins = zip(room.free_bytes, room.target_bytes, longest, strict=True)
    if all(free - used >= target for free, target, used in margins):
        return limit, False
    whole_target = sum(room.free_bytes) - sum(room.target_bytes)
    if sum(longest) <= whole_target or limit <= least:
        return limit, False
    num_cards = len(room.free_bytes)
    if num_cards > 1:
        whole_target -= (num_cards + 1) * room.layer_bytes // (6 if room.has_experts else 2)
    shortest = sum(used_bytes(least))
    if whole_target <= shortest:
        return least, True
    span = (limit - least) * streams
    total = least * streams + span * (whole_target - shortest) // (sum(longest) - shortest)
    total -= total % (CELL_PADDING * streams)
    return max(total // streams, least), True
