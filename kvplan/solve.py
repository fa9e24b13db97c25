"""Inverses of the fit test: the longest context, the most sequences, the fewest GPUs.

Each asks plan() and judge() themselves, so block rounding, windows and engine rules are included
and the answer is exact: what is returned succeeds, one more does not. That needs the requirement to
grow with what is searched, which it does under every policy.
"""

from collections.abc import Callable, Sequence
from itertools import cycle

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.frozen import dataclass, replace
from kvplan.judge import DEFAULT_RULES, Rules, pooled_spare_bytes, spare_bytes, succeeds
from kvplan.model import ModelSpec
from kvplan.offload import alternative
from kvplan.plan import plan
from kvplan.workload import Workload

UNLIMITED_CONTEXT_TOKENS = 2**27
MAX_SEQUENCES = 2**20
MAX_GPUS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """How far the plan stretches.

    ``max_context_tokens`` for the asked number of sequences, ``max_sequences`` at the asked context;
    0 where not even one fits. ``binding`` names what stops it.
    """

    max_context_tokens: int
    max_sequences: int
    kv_cache_tokens: int | None
    max_concurrency: float | None
    binding: str


Attempt = Callable[[int], tuple[bool, int]]


def largest(attempt: Attempt, ceiling: int, step: int = 1, least: int = 1) -> int:
    """Return the largest n in least..ceiling that succeeds, 0 if none does.

    ``attempt`` says whether n succeeds and how many bytes are to spare (negative when short); it must
    succeed up to some n and fail beyond. Whole blocks of ``step`` are searched first, then within one.
    """
    if ceiling < least:
        return 0
    succeeded, short = attempt(ceiling)
    if succeeded or ceiling == least:
        return ceiling if succeeded else 0
    succeeded, room = attempt(least)
    if not succeeded:
        return 0

    def position(num_blocks: int) -> int:
        return max(least, min(num_blocks * step, ceiling))

    low, room, high, short = _narrowed(
        lambda num_blocks: attempt(position(num_blocks)),
        (least // step, room, -(-ceiling // step), short),
        "line",
    )
    return _narrowed(attempt, (position(low), room, position(high), short), "next")[0]


def _narrowed(attempt: Attempt, ends: tuple[int, int, int, int], first: str) -> tuple[int, int, int, int]:
    """Bring ``ends`` (succeeds at, to spare there, fails at, short there) to neighbours.

    The bytes to spare shrink nearly straight, so the line through the ends mostly hits the answer;
    halving now and then bounds the search where they do not.
    """
    low, room, high, short = ends
    turns = cycle(("line", "line", "half") if first == "line" else ("next", "half"))
    while high - low > 1:
        turn = next(turns)
        guess = (low + high) // 2
        if turn == "next":
            guess = low + 1
        elif turn == "line" and room >= 0 > short:
            guess = min(max(low + (high - low) * room // (room - short), low + 1), high - 1)
        succeeded, spare = attempt(guess)
        if succeeded:
            low, room = guess, spare
        else:
            high, short = guess, spare
    return low, room, high, short


def context_ceiling(model: ModelSpec, workload: Workload) -> int:
    """Return how far a context search goes: the model's limit, or what was asked if that is more."""
    limit = model.context_limit_tokens or UNLIMITED_CONTEXT_TOKENS
    return max(limit, workload.context_tokens)


def max_context(
    model: ModelSpec,
    workload: Workload,
    devices: Sequence[Device],
    engine: Engine,
    rules: Rules = DEFAULT_RULES,
    least: int = 1,
) -> int:
    """Return the longest context that succeeds for ``workload.num_sequences``.

    0 where not even ``least`` tokens do.
    """
    engine = engine.searching()

    def attempt(context_tokens: int, rules: Rules) -> tuple[bool, int]:
        asked = replace(workload, context_tokens=context_tokens, context_source="flag")
        return _outcome(model, asked, devices, engine, rules)

    block_size = engine.block_size or plan(model, workload, devices, engine).cache.block_size or 1
    return _largest_by(rules, attempt, context_ceiling(model, workload), block_size, least)


def max_sequences(
    model: ModelSpec,
    workload: Workload,
    devices: Sequence[Device],
    engine: Engine,
    rules: Rules = DEFAULT_RULES,
    ceiling: int | None = None,
) -> int:
    """Return the most sequences that succeed at the asked context, at most the engine's own cap."""
    engine = engine.searching()

    def attempt(num_sequences: int, rules: Rules) -> tuple[bool, int]:
        asked = replace(workload, num_sequences=num_sequences)
        return _outcome(model, asked, devices, engine, rules)

    return _largest_by(rules, attempt, MAX_SEQUENCES if ceiling is None else ceiling)


def _largest_by(
    rules: Rules,
    attempt: Callable[[int, Rules], tuple[bool, int]],
    ceiling: int,
    step: int = 1,
    least: int = 1,
) -> int:
    """Return the largest n that succeeds, as all below do.

    Where ``tight`` is not enough, what is tight on the devices fails though more, which spills, would not.
    """
    if rules.strict and rules.allow_offload:
        unspilled = replace(rules, allow_offload=False)
        most = largest(lambda n: attempt(n, unspilled), ceiling, step, least)
        if most == ceiling or not attempt(max(most + 1, least), rules)[0]:
            return most
    return largest(lambda n: attempt(n, rules), ceiling, step, least)


def is_short(model: ModelSpec, workload: Workload, devices: Sequence[Device], engine: Engine) -> bool:
    """Tell, where that is cheaper than a plan, that the workload fits on no account. Raises as ``plan``."""
    spare_bytes = engine.most_spare_bytes(model, workload, devices)
    return spare_bytes is not None and spare_bytes < 0


def _outcome(
    model: ModelSpec, workload: Workload, devices: Sequence[Device], engine: Engine, rules: Rules
) -> tuple[bool, int]:
    """Return whether the workload succeeds and the bytes to spare in its closest check.

    Where spilling is allowed, with what does not fit in system memory, and the bytes to spare in all.
    """
    spare = engine.most_spare_bytes(model, workload, devices, spilling=rules.allow_offload)
    if spare is not None and spare < 0:
        return False, spare
    result = plan(model, workload, devices, engine)
    if not rules.allow_offload:
        return succeeds(result, rules), spare_bytes(result, rules)
    # How much lies in a memory whose size is not known does not matter.
    is_counted = workload.cpu_memory_bytes is not None
    result = alternative(result, devices, engine, rules, least=is_counted) or result
    return succeeds(result, rules), pooled_spare_bytes(result)


def fewest_gpus(
    model: ModelSpec,
    workload: Workload,
    device: Device,
    engine: Engine,
    rules: Rules = DEFAULT_RULES,
    at_most: int = MAX_GPUS,
) -> int:
    """Return the smallest power of two of ``device`` on which the workload succeeds; 0 if none.

    Powers of two, because tensor parallelism must divide the heads of nearly every model.
    """
    engine = engine.searching()
    asked = replace(workload, tensor_parallel=0, pipeline_parallel=0)
    count = 1
    while count <= at_most:
        cards = (device,) * count
        if not is_short(model, asked, cards, engine) and succeeds(plan(model, asked, cards, engine), rules):
            return count
        count *= 2
    return 0


def limits(base: Plan, devices: Sequence[Device], engine: Engine, rules: Rules = DEFAULT_RULES) -> Limits:
    """Return how far ``base`` stretches: both inverses and what binds."""
    workload = base.workload
    asked = replace(workload, context_tokens=base.context_tokens)
    if base.refusals or (not devices and workload.cpu_memory_bytes is None):
        return Limits(
            0, 0, base.kv_cache_tokens, base.max_concurrency, "refused" if base.refusals else "memory"
        )
    longest = max_context(base.model, workload, devices, engine, rules)
    cap = base.sequence_limit
    most = max_sequences(base.model, asked, devices, engine, rules, cap)
    if longest == 0 and most == 0:
        binding = "weights"
    elif cap is not None and most >= cap:
        binding = base.sequence_limit_name or "max_num_seqs"
    elif base.cache.state_bytes_per_sequence * 2 > base.cache.bytes_per_sequence:
        binding = "state_slots"
    else:
        binding = "kv_pool"
    if longest and longest == context_ceiling(base.model, workload) and binding == "kv_pool" and most > 1:
        binding = "context_limit"
    return Limits(longest, most, base.kv_cache_tokens, base.max_concurrency, binding)


def pool_limits(base: Plan, engine: Engine) -> Limits | None:
    """Return how far a pool reaches that the engine's own flags fix; None where none is fixed.

    Needs no device: ``kv_cache_tokens`` and ``max_concurrency`` are the engine's own figures.
    """
    if base.kv_cache_tokens is None or base.max_concurrency is None or base.refusals:
        return None
    workload = base.workload

    def attempt(context_tokens: int) -> tuple[bool, int]:
        result = plan(base.model, replace(workload, context_tokens=context_tokens), (), engine)
        spare = (result.max_concurrency or 0.0) - workload.num_sequences
        return spare >= 0 and not result.refusals, int(spare * max(1, result.cache.bytes_per_sequence))

    ceiling = context_ceiling(base.model, workload)
    longest = largest(attempt, ceiling, base.cache.block_size or 1)
    most, cap = int(base.max_concurrency), base.sequence_limit
    binding = "kv_pool"
    if cap is not None and most >= cap:
        most, binding = cap, base.sequence_limit_name or "max_num_seqs"
    return Limits(longest, most, base.kv_cache_tokens, base.max_concurrency, binding)
