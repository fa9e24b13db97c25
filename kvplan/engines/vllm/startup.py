"""vLLM: what the server will print of its memory, or the error it will raise and what avoids it.

vLLM 0.33 v1/worker/gpu_worker.py, v1/worker/utils.py, v1/core/kv_cache_planning.py and
v1/core/kv_cache_utils.py; older versions print size and concurrency on two lines and name the
``model's`` length alike. Amounts are rounded to two places, as ``format_gib`` does.
"""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.engines.vllm.pool import (
    PoolLayout,
    estimated_max_model_len,
    room_after_null_block,
    tokens_and_concurrency,
)
from kvplan.engines.vllm.ranks import Rank
from kvplan.engines.vllm.server import Server
from kvplan.engines.vllm.versions import Behaviour
from kvplan.frozen import dataclass
from kvplan.units import GIB

HUNDREDTHS = 100


@dataclass(frozen=True, slots=True)
class Startup:
    """How a start ends: the pool's size, or the error and the flag that avoids it.

    ``lines`` are the server's own; ``fix`` is empty where nothing is to be done.
    """

    num_blocks: int
    tokens: int
    concurrency: float
    blocks_per_request: int
    request_bytes: int
    estimated_max_model_len: int
    error: str
    fix: str
    lines: tuple[str, ...]


def format_gib(num_bytes: int) -> str:
    """Return GiB as vLLM's messages spell them."""
    return f"{round(num_bytes / GIB, 2)}"


def startup_of(
    server: Server, ranks: tuple[Rank, ...], available: Sequence[int], max_model_len: int, blocks: int
) -> Startup:
    """Return how a server starts whose stages have ``available`` bytes for their blocks.

    ``blocks`` are those of a request of ``max_model_len``.
    """
    pool, demand, rules = server.layout.pool, server.demand, server.rules
    num_blocks = pool.num_blocks(available)
    tokens, concurrency = tokens_and_concurrency(pool, num_blocks, max_model_len, blocks, rules)
    estimated = max_model_len
    error, fix = _free_at_start(server, ranks)
    handed_out = num_blocks - 1 if rules.keeps_null_block else num_blocks
    if blocks > handed_out or not blocks:
        rooms = room_after_null_block(pool, available, rules)
        estimated = estimated_max_model_len(pool, rooms, max_model_len, demand)
        if not error:
            error, fix = _pool_error(pool, rooms, blocks, max_model_len, estimated)
    if error.startswith("Free"):
        lines: tuple[str, ...] = (error,)
    else:
        ends = (error,) if error else _size_lines(tokens, concurrency, max_model_len, rules)
        lines = (_available_line(available[0]), *ends)
    request_bytes = blocks * max(pool.stage_bytes_per_block)
    return Startup(num_blocks, tokens, concurrency, blocks, request_bytes, estimated, error, fix, lines)


@lru_cache(maxsize=256)
def _available_line(num_bytes: int) -> str:
    return f"Available KV cache memory: {format_gib(num_bytes)} GiB"


def _size_lines(tokens: int, concurrency: float, max_model_len: int, rules: Behaviour) -> tuple[str, ...]:
    size = f"GPU KV cache size: {tokens:,} tokens"
    most = f"Maximum concurrency for {max_model_len:,} tokens per request: {concurrency:.2f}x"
    return (f"{size}, {most}",) if rules.one_line else (size, most)


@lru_cache(maxsize=256)
def _free_at_start(server: Server, ranks: tuple[Rank, ...]) -> tuple[str, str]:
    """Return the refusal of a card whose free memory is less than what is requested."""
    settings = server.settings
    if settings.kv_cache_memory_bytes or settings.num_gpu_blocks_override:
        return "", ""
    for index, rank in enumerate(ranks):
        check = rank.tests[0]
        if check.required.expected <= check.limit_bytes:
            continue
        total, requested = check.limit_bytes, rank.budget_bytes
        free = total - (check.required.expected - requested)
        share = max(0, free * HUNDREDTHS // total)
        return (
            f"Free memory on device cuda:{index} ({format_gib(free)}/{format_gib(total)} GiB) on startup "
            f"is less than desired GPU memory utilization ({settings.gpu_memory_utilization:g}, "
            f"{format_gib(requested)} GiB). Decrease GPU memory utilization or reduce GPU memory used by "
            "other processes.",
            f"--gpu-memory-utilization {share / HUNDREDTHS:g}",
        )
    return "", ""


def _pool_error(
    pool: PoolLayout, rooms: Sequence[int], blocks: int, max_model_len: int, estimated: int
) -> tuple[str, str]:
    """Return the refusal of the first rank whose room does not hold one request."""
    for each, room in zip(pool.stage_bytes_per_block, rooms, strict=True):
        if not each:
            continue
        if room <= 0:
            return (
                "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
                "initializing the engine",
                "more GPUs or smaller weights",
            )
        needed = blocks * each
        if needed > room:
            text = (
                f"To serve at least one request with the model's max seq len ({max_model_len}), "
                f"({format_gib(needed)} GiB KV cache is needed, which is larger than the available KV "
                f"cache memory ({format_gib(room)} GiB). "
            )
            if estimated:
                text += f"Based on the available memory, the estimated maximum model length is {estimated}. "
            return text.rstrip(), f"--max-model-len {estimated}" if estimated else ""
    return "", ""
