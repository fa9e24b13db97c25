"""vLLM: what the cache costs: the whole model with ranks counted once, and by kind of layer."""

from dataclasses import replace
from functools import lru_cache

from kvplan.engines.base import CacheGroup, CacheUse
from kvplan.engines.vllm.groups import PoolRules, pool_layout
from kvplan.engines.vllm.pages import specs_of
from kvplan.engines.vllm.pool import PoolLayout
from kvplan.engines.vllm.server import Server
from kvplan.engines.vllm.settings import Settings
from kvplan.engines.vllm.states import StateDtypes, state_bytes
from kvplan.layers import Cache, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact


def cache_use(
    model: ModelSpec,
    dtype: str,
    settings: Settings,
    pool: PoolLayout,
    context_tokens: int,
    num_sequences: int,
    server: Server,
    num_blocks: int | None,
) -> CacheUse:
    """Price the cache of the whole model: ``pool`` is that of one rank with TP 1.

    Block size, page and number of blocks are those of a rank as the model is spread.
    """
    in_flight, encoder = settings.in_flight_tokens, settings.encoder_tokens
    rank = server.layout

    def at(tokens: int) -> int:
        return pool.blocks_per_request(tokens, in_flight, encoder) * pool.bytes_per_block

    now = at(context_tokens)
    unit = pool.block_size or 1
    per_token = (at(context_tokens + unit) - now) // unit if pool.groups else 0
    low, high = server.whole.unmodelled_low_bytes[0], server.whole.unmodelled_high_bytes[0]
    middle = (low + high) // 2
    per_sequence = now + middle * context_tokens
    every = per_sequence * num_sequences
    basis_total = exact(every)
    if high:
        basis_total = Quantity(
            (now + low * context_tokens) * num_sequences,
            every,
            (now + high * context_tokens) * num_sequences,
            "assumed",
        )
    states = _state_bytes(model, settings.states, settings.pool.num_speculative)
    return CacheUse(
        bytes_per_token=per_token + middle,
        bytes_per_sequence=per_sequence,
        state_bytes_per_sequence=states * pool.num_slots if states else 0,
        total=basis_total,
        peak_bytes=every,
        groups=_groups(model, settings, dtype, pool, context_tokens),
        block_size=rank.pool.block_size if pool.groups else None,
        page_size_bytes=rank.pool.groups[0].page_size_bytes if rank.pool.groups else None,
        num_blocks=num_blocks,
    )


@lru_cache(maxsize=512)
def _state_bytes(model: ModelSpec, states: StateDtypes, num_speculative: int) -> int:
    return sum(
        (state_bytes(cache, 1, states, num_speculative) or 0) * count for cache, count in cache_kinds(model)
    )


def _groups(
    model: ModelSpec, settings: Settings, dtype: str, pool: PoolLayout, context_tokens: int
) -> tuple[CacheGroup, ...]:
    groups: list[CacheGroup] = []
    for cache, count in cache_kinds(model):
        row, alone = _alone(
            cache, dtype, settings.states, settings.pool, pool.block_size or settings.pool.block_size
        )
        blocks = alone.blocks_per_request(context_tokens, settings.in_flight_tokens, settings.encoder_tokens)
        groups.append(
            CacheGroup(kind_name(cache), count, row * count, blocks * alone.bytes_per_block * count)
        )
    return tuple(groups)


@lru_cache(maxsize=4096)
def _alone(
    cache: Cache, dtype: str, states: StateDtypes, rules: PoolRules, block_size: int
) -> tuple[int, PoolLayout]:
    """Return one layer's bytes a token inside its window, and its pool if it were the only layer."""
    specs = specs_of(cache, 1, dtype, states, rules.num_speculative) or ()
    row = sum(spec.bytes_per_token // spec.tokens_per_row for spec in specs if spec.kind != "sliding_mla")
    return row, pool_layout([[(spec, 1) for spec in specs]], replace(rules, block_size=block_size))
