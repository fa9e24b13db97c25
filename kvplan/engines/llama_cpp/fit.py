"""How long a context ``--fit`` takes where nobody names one.

llama.cpp 0c1e57098 common/fit.cpp, on by default: from the model's own limit it shrinks the context until
each card keeps ``--fit-target`` (1,024 MiB) free, in a straight line between the memory of both ends, but
not below ``--fit-ctx`` (4,096); what does not fit then goes to system memory. A context that was named,
``-c 0`` included, is left alone.
"""

from collections.abc import Callable, Sequence

from kvplan.engines.base import DevicePlan, Notice
from kvplan.engines.llama_cpp.cache import CELL_PADDING
from kvplan.engines.llama_cpp.converted import is_causal
from kvplan.engines.llama_cpp.settings import Settings, cache_types, settings_of, whole
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass, replace
from kvplan.gguf.mix import mix_bytes
from kvplan.model import ModelSpec, num_layers
from kvplan.units import MIB, format_gib, format_tokens
from kvplan.weights import weight_bytes
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


def shortest(model: ModelSpec, workload: Workload) -> Workload:
    """Return the workload with the shortest context that ``--fit`` could take, where it takes one."""
    limit = model.context_limit_tokens
    if not limit or not shrinks(workload):
        return workload
    # Sequences may share it.
    tokens = min(limit, min_context(workload)) // workload.num_sequences
    return replace(workload, context_tokens=max(1, tokens))


def shrunk(
    model: ModelSpec,
    workload: Workload,
    format_name: str,
    held: Callable[[Workload, Settings], tuple[DevicePlan, ...]],
) -> tuple[Workload, tuple[Notice, ...]]:
    """Return the workload with the context that ``--fit`` takes, and what to say of it.

    ``held`` gives what each card holds of a workload under its settings.
    """
    type_k, type_v, _ = cache_types(workload)
    limit = model.context_limit_tokens
    causal = is_causal(model)
    settings = settings_of(workload, limit, type_k, type_v, is_causal=causal)
    # In one pool of cells the sequences share what a single one could have.
    sharing = workload.num_sequences if settings.kv_unified else 1

    def cards(tokens: int) -> tuple[DevicePlan, ...]:
        tried = replace(workload, context_tokens=max(1, tokens // sharing))
        return held(tried, settings_of(tried, tried.context_tokens, type_k, type_v, is_causal=causal))

    def used_bytes(tokens: int) -> tuple[int, ...]:
        return tuple(
            sum(part.bytes.expected for part in each.components if part.name != "runtime")
            for each in cards(tokens)
        )

    free = tuple(
        max(
            0,
            each.budget_bytes
            - sum(part.bytes.expected for part in each.components if part.name == "runtime"),
        )
        for each in cards(limit)
    )
    room = Room(
        free,
        target_bytes(workload, len(free)),
        1 if settings.kv_unified else settings.n_parallel,
        weight_bytes(model, format_name).expected // max(1, num_layers(model.structure)),
        any(mix_bytes(model, format_name).expert_bytes),
    )
    tokens, is_shorter = fitted_context(limit, min_context(workload), room, used_bytes)
    if not is_shorter:
        return workload, ()
    text = (
        f"no context named: --fit takes {format_tokens(tokens)} of the model's {format_tokens(limit)}, "
        f"so that {format_gib(room.target_bytes[0])} stay free (-fit off: all of it)"
    )
    workload = replace(workload, context_tokens=max(1, tokens // sharing), context_source="engine")
    return workload, (Notice("context-shrunk", text),)


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
