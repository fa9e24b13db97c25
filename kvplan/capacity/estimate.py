"""The whole capacity answer: allocation, fleets, sharing, eviction, load and the right context.

What was not asked for is None. Everything is planned by the engine's own policy; lengths and the
number of sessions come from the caller.
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.capacity.allocation import DEFAULT_BLOCK_SIZE, Share, shares
from kvplan.capacity.eviction import Eviction, Name, evicted
from kvplan.capacity.fleet import Fleet, Shape, Site, paged_fleet, reserved_fleet
from kvplan.capacity.lengths import Lengths, mean_live_tokens, within
from kvplan.capacity.load import Load, load
from kvplan.capacity.rightsize import Step, steps
from kvplan.capacity.sharing import Sharing, sharing
from kvplan.capacity.simulation import Usage, simulate_all
from kvplan.engines.base import Engine, Plan
from kvplan.frozen import dataclass
from kvplan.judge import DEFAULT_RULES, Rules
from kvplan.model import ModelSpec
from kvplan.plan import plan
from kvplan.solve import max_sequences
from kvplan.speed import Rate, decode_rate
from kvplan.units import ceil_div
from kvplan.workload import Workload

# What chats hold on average while they decode, in blocks of 16, and what long documents do: the traces
# of Azure 2023 conversations, LLMServingSim's ShareGPT sample and Mooncake's conversations (FAST'25).
CHAT_TOKENS = 1235
KNOWN_TRAFFIC: tuple[tuple[str, int], ...] = (
    ("Azure 2023 code", 2139),
    ("Azure 2023 chat", 1235),
    ("ShareGPT sample", 1212),
    ("arXiv summaries", 2428),
    ("Mooncake long documents", 13134),
)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked: sessions, their limit, and how long they are.

    ``lengths`` None takes the average chat. ``prefix`` is (tokens, fraction of sessions).
    """

    num_sessions: int | None
    lengths: Lengths | None
    block_size: int = DEFAULT_BLOCK_SIZE
    prefix: tuple[int, float] | None = None
    evictions: tuple[tuple[Name, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the sessions' cache: each at its full context, and in blocks as they are held."""

    reserved_bytes: int
    paged_bytes: int


@dataclass(frozen=True, slots=True)
class Fleets:
    """GPUs for the sessions: reserved in full, the same without pipelines, and in blocks.

    ``unpaged_sessions`` is what the paged fleet holds when every session reserves its context;
    ``limits`` what each resource of it allows (name, sessions).
    """

    reserved: Fleet | None
    tensor_only: Fleet | None
    paged: Fleet | None
    unpaged_sessions: int = 0
    limits: tuple[tuple[str, int], ...] = ()
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """The answer of ``kvplan capacity``."""

    plan: Plan
    limit_tokens: int
    live_tokens: float
    live_source: str
    lengths: Lengths | None
    shares: tuple[Share, ...]
    usage: tuple[Usage, ...]
    pool_tokens: int | None
    memory: Memory | None
    fleets: Fleets | None
    load: Load | None
    sharing: Sharing | None
    evictions: tuple[Eviction, ...]
    steps: tuple[Step, ...]


def estimate(
    model: ModelSpec,
    workload: Workload,
    engine: Engine,
    demand: Demand,
    site: Site | None,
    rules: Rules = DEFAULT_RULES,
) -> Estimate:
    """Answer ``demand``; without a ``site`` only what needs no card."""
    bare = plan(model, replace(workload, num_sequences=1), (), engine)
    limit = bare.context_tokens
    lengths = within(demand.lengths, limit) if demand.lengths is not None else None
    found = shares(lengths, limit, demand.block_size) if lengths is not None else ()
    if lengths is not None and len(lengths.prompts) == 1:
        # A constant load does not grow: only what is reserved in full and in blocks differs.
        found = (found[0], found[-1])
    if lengths is not None:
        live, live_source = found[-1].mean_reserved_tokens, lengths.source
    else:
        live, live_source = float(min(CHAT_TOKENS, limit)), "average chat: Azure 2023 conversations"
    fleets = fleets_of(site, demand.num_sessions, live) if site and demand.num_sessions else None
    shape = _replica(site, fleets)
    pool = shape.pool_tokens if shape else None
    usage: tuple[Usage, ...] = ()
    if lengths is not None and shape is not None and pool is not None and len(lengths.prompts) > 1:
        cap = shape.plan.sequence_limit
        usage = simulate_all(lengths, pool, limit, cap, demand.block_size)
    overflow = None
    if lengths is not None and fleets is not None and fleets.paged is not None and pool is not None:
        each = ceil_div(demand.num_sessions or 1, fleets.paged.replicas)
        overflow = load(lengths, pool, each, demand.block_size)
    devices = (site.device,) * (shape.num_gpus if shape else 1) if site else ()
    asked = shape.plan.workload if shape else replace(workload, num_sequences=1)
    return Estimate(
        bare,
        limit,
        live,
        live_source,
        lengths,
        found,
        usage,
        pool,
        _memory(model, workload, engine, demand.num_sessions, bare, live),
        fleets,
        overflow,
        sharing(bare, demand.num_sessions or 1, *demand.prefix) if demand.prefix else None,
        tuple(evicted(bare, *each) for each in demand.evictions),
        steps(model, asked, devices, engine, lengths, rules)
        if lengths is not None and len(lengths.prompts) > 1
        else (),
    )


def _memory(
    model: ModelSpec, workload: Workload, engine: Engine, num_sessions: int | None, bare: Plan, live: float
) -> Memory | None:
    if num_sessions is None:
        return None
    tokens = max(1, round(live))
    held = plan(
        model, replace(workload, context_tokens=tokens, context_source="trace", num_sequences=1), (), engine
    )
    return Memory(bare.cache.bytes_per_sequence * num_sessions, held.cache.bytes_per_sequence * num_sessions)


def fleets_of(site: Site, num_sessions: int, live_tokens: float) -> Fleets:
    """Return the GPUs that the sessions need, reserved and in blocks, and what limits the latter."""
    reserved = reserved_fleet(site, num_sessions)
    tensor_only = reserved
    if reserved is not None and reserved.shape.pipeline > 1:
        tensor_only = reserved_fleet(site, num_sessions, tensor_only=True)
    paged = paged_fleet(site, num_sessions, live_tokens)
    if paged is None:
        return Fleets(reserved, tensor_only, None)
    shape = paged.shape
    full = _full_sessions(site, paged, shape.plan.context_tokens)
    found: list[tuple[str, int]] = []
    if shape.pool_tokens is not None:
        found.append(("kv_pool", int(shape.pool_tokens / live_tokens) * paged.replicas))
    else:
        found.append((shape.binding, shape.num_sessions * paged.replicas))
    if shape.plan.sequence_limit is not None:
        name = shape.plan.sequence_limit_name or "max_num_seqs"
        found.append((name, shape.plan.sequence_limit * paged.replicas))
    each = ceil_div(num_sessions, paged.replicas)
    rate = decode_rate(shape.plan, context_tokens=max(1, round(live_tokens)), num_sequences=each)
    return Fleets(reserved, tensor_only, paged, full, tuple(dict(found).items()), rate)


def _full_sessions(site: Site, paged: Fleet, limit_tokens: int) -> int:
    """Return the sessions that the fleet holds when each reserves its whole context in one piece."""
    shape = paged.shape
    cap = shape.plan.sequence_limit
    if shape.pool_tokens is not None:
        most = shape.pool_tokens // limit_tokens
        return (most if cap is None else min(cap, most)) * paged.replicas
    devices = (site.device,) * shape.num_gpus
    most = max_sequences(site.model, shape.plan.workload, devices, site.engine, site.rules, cap)
    return most * paged.replicas


def _replica(site: Site | None, fleets: Fleets | None) -> Shape | None:
    """Return one replica of the paged fleet, or the fewest cards when no sessions were named."""
    if fleets is not None:
        return fleets.paged.shape if fleets.paged else None
    single = paged_fleet(site, 1, 1.0) if site else None
    return single.shape if single else None


def known_traffic(max_live_tokens: int) -> tuple[tuple[str, int, bool], ...]:
    """Return public traffic with the tokens it holds on average, and whether that is within the limit."""
    return tuple((name, tokens, tokens <= max_live_tokens) for name, tokens in KNOWN_TRAFFIC)


def mean_lengths(lengths: Lengths) -> tuple[float, float, float]:
    """Return the means of prompt, output and live tokens."""
    count = len(lengths.prompts)
    return sum(lengths.prompts) / count, sum(lengths.outputs) / count, mean_live_tokens(lengths)


def percentiles_text(values: Sequence[int]) -> str:
    """Return p50, p95 and p99 in words."""
    from kvplan.capacity.lengths import PERCENTILES, percentile

    return ", ".join(f"p{percent} {percentile(values, percent):,}" for percent in PERCENTILES)
