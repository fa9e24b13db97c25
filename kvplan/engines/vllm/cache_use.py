"""vLLM: what the cache costs: the whole model with ranks counted once, and by kind of layer."""

from functools import lru_cache

from kvplan.engines.base import CacheGroup, CacheUse
from kvplan.engines.vllm.groups import PoolRules, pool_layout
from kvplan.engines.vllm.pages import specs_of
from kvplan.engines.vllm.pool import Demand, PoolLayout
from kvplan.engines.vllm.server import Server
from kvplan.engines.vllm.states import StateDtypes, state_bytes
from kvplan.frozen import dataclass, replace
from kvplan.layers import Cache, kind_name
from kvplan.model import cache_kinds
from kvplan.quantity import Basis, Quantity, exact


def cache_use(server: Server, context_tokens: int, num_sequences: int, num_blocks: int | None) -> CacheUse:
    """Price the cache of the whole model, on one rank with TP 1.

    Block size, page and number of blocks are those of a rank as the model is spread.
    """
    per_token, sequence, groups = _priced(server, context_tokens)
    pool, whole = server.layout.pool, server.whole.pool
    every = sequence.expected * num_sequences
    total = exact(every)
    if sequence.basis != "exact":
        low, high = sequence.low * num_sequences, sequence.high * num_sequences
        total = Quantity(low, every, high, sequence.basis)
    return CacheUse(
        bytes_per_token=per_token,
        bytes_per_sequence=sequence.expected,
        state_bytes_per_sequence=_kinds(server).state_bytes,
        total=total,
        peak_bytes=every,
        groups=groups,
        block_size=pool.block_size if whole.groups else None,
        page_size_bytes=pool.groups[0].page_size_bytes if pool.groups else None,
        num_blocks=num_blocks,
    )


def cache_basis(server: Server) -> Basis:
    """Return how well the cache of the whole model is known."""
    return "exact" if server.whole.is_modelled else "assumed"


@lru_cache(maxsize=512)
def _priced(server: Server, context_tokens: int) -> tuple[int, Quantity, tuple[CacheGroup, ...]]:
    """Return bytes a token, of one sequence, and by kind.

    One card and one load after the other asks for the same.
    """
    pool, demand = server.whole.pool, server.whole_demand
    each = pool.bytes_per_block
    now = demand.blocks(context_tokens) * each
    unit = pool.block_size or 1
    per_token = (demand.blocks(context_tokens + unit) * each - now) // unit if pool.groups else 0
    low, high = server.whole.unmodelled_low_bytes[0], server.whole.unmodelled_high_bytes[0]
    middle = (low + high) // 2
    sequence = exact(now)
    if high:
        sequence = Quantity(
            now + low * context_tokens,
            now + middle * context_tokens,
            now + high * context_tokens,
            "assumed",
        )
    groups = tuple(kind.group(context_tokens) for kind in _kinds(server).kinds)
    return per_token + middle, sequence, groups


@dataclass(frozen=True, slots=True)
class _Kind:
    """The layers of one kind: bytes a token of all, what a request takes in one, a block of all."""

    name: str
    num_layers: int
    bytes_per_token: int
    demand: Demand
    bytes_per_block: int

    def group(self, context_tokens: int) -> CacheGroup:
        """Return what they cost at a context."""
        held = self.demand.blocks(context_tokens) * self.bytes_per_block
        return CacheGroup(self.name, self.num_layers, self.bytes_per_token, held)


@dataclass(frozen=True, slots=True)
class _Kinds:
    """A server's kinds of cache, and the bytes of a sequence's states."""

    kinds: tuple[_Kind, ...]
    state_bytes: int


@lru_cache(maxsize=4096)
def _kinds(server: Server) -> _Kinds:
    settings, pool = server.settings, server.whole.pool
    block_size = pool.block_size or settings.pool.block_size
    found: list[_Kind] = []
    states = 0
    for cache, count in cache_kinds(server.model):
        row, alone = _alone(cache, server.dtype, settings.states, settings.pool, block_size)
        demand = alone.demand(settings.in_flight_tokens, settings.encoder_tokens)
        found.append(_Kind(kind_name(cache), count, row * count, demand, alone.bytes_per_block * count))
        states += (state_bytes(cache, 1, settings.states, settings.pool.num_speculative) or 0) * count
    return _Kinds(tuple(found), states * pool.num_slots)


@lru_cache(maxsize=4096)
def _alone(
    cache: Cache, dtype: str, states: StateDtypes, rules: PoolRules, block_size: int
) -> tuple[int, PoolLayout]:
    """Return one layer's bytes a token inside its window, and its pool if it were the only layer."""
    specs = specs_of(cache, 1, dtype, states, rules.num_speculative) or ()
    row = sum(spec.bytes_per_token // spec.tokens_per_row for spec in specs if spec.kind != "sliding_mla")
    return row, pool_layout([[(spec, 1) for spec in specs]], replace(rules, block_size=block_size))
