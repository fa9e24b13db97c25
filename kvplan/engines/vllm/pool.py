"""vLLM: one pool of blocks, what a request takes from it, and what the server prints of it.

vLLM 0.33 v1/kv_cache_interface.py (blocks by kind), v1/core/kv_cache_planning.py (fit test, longest
context) and v1/core/kv_cache_utils.py (tokens and concurrency).
"""

from collections.abc import Sequence

from kvplan.engines.vllm.versions import Behaviour
from kvplan.frozen import dataclass

# More tokens than any request has.
UNLIMITED_TOKENS = 2**62


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that share block tables.

    ``num_layers`` of the whole model; ``block_size`` in tokens; ``page_size_bytes`` of one layer's
    block, for a mixed group of all of them; ``stage_bytes`` what a block holds on each pipeline stage.
    """

    kind: str
    num_layers: int
    block_size: int
    page_size_bytes: int
    window: int = 0
    stage_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """The blocks that one request takes, as a function of its tokens.

    ``fixed`` blocks whatever the length; a line (block size, tokens held at most, number of groups)
    takes whole blocks of the tokens held in each of its groups.
    """

    fixed: int
    lines: tuple[tuple[int, int, int], ...]

    def blocks(self, num_tokens: int) -> int:
        """Return the blocks of a request of ``num_tokens``."""
        blocks = self.fixed
        for size, held, num_groups in self.lines:
            blocks += -(-(num_tokens if num_tokens < held else held) // size) * num_groups
        return blocks


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """The pool's groups, what a block costs on each pipeline stage, how a request is counted.

    ``num_slots`` are the state blocks a request takes in each recurrent group; ``dcp`` ranks share
    the tokens of full attention.
    """

    groups: tuple[Group, ...]
    stage_bytes_per_block: tuple[int, ...]
    block_size: int
    num_slots: int
    dcp: int = 1

    @property
    def bytes_per_block(self) -> int:
        """What a block costs on the first stage; on every rank where there is one stage."""
        return self.stage_bytes_per_block[0]

    def demand(self, in_flight: int, encoder_tokens: int = 0) -> "Demand":
        """Return what one request takes, summed over groups.

        ``in_flight`` are the tokens scheduled but not yet finished, which windows must keep.
        ``encoder_tokens`` is what cross attention keeps room for.
        """
        fixed = 0
        lines: dict[tuple[int, int], int] = {}
        for group in self.groups:
            size, held = group.block_size, UNLIMITED_TOKENS
            match group.kind:
                case "full" | "mla":
                    size *= self.dcp
                case "sliding" | "sliding_mla":
                    held = group.window - 1 + in_flight
                    fixed += 1
                case "chunked":
                    held = group.window + in_flight
                case "mamba":
                    fixed += self.num_slots
                    continue
                case "cross":
                    fixed += -(-encoder_tokens // size)
                    continue
                case _:
                    continue
            lines[size, held] = lines.get((size, held), 0) + 1
        return Demand(fixed, tuple((size, held, count) for (size, held), count in lines.items()))

    def blocks_per_request(self, num_tokens: int, in_flight: int, encoder_tokens: int = 0) -> int:
        """Return the blocks that one request of ``num_tokens`` needs, summed over groups."""
        return self.demand(in_flight, encoder_tokens).blocks(num_tokens)

    def num_blocks(self, available_bytes: Sequence[int]) -> int:
        """Return the blocks of the pool: the fewest that any stage's memory gives."""
        if len(available_bytes) == 1:
            each = self.stage_bytes_per_block[0]
            return max(0, available_bytes[0]) // each if each else 0
        counts = [
            max(0, room) // each
            for room, each in zip(available_bytes, self.stage_bytes_per_block, strict=True)
            if each
        ]
        return min(counts, default=0)


def stage_bytes(groups: Sequence[Group], num_stages: int) -> tuple[int, ...]:
    """Return the bytes of a block on each stage: that of the largest group there."""
    return tuple(max(group.stage_bytes[stage] for group in groups) for stage in range(num_stages))


def tokens_and_concurrency(
    layout: PoolLayout,
    num_blocks: int,
    max_model_len: int,
    blocks_per_request: int,
    rules: Behaviour,
) -> tuple[int, float]:
    """Return ``GPU KV cache size`` in tokens and ``Maximum concurrency`` as vLLM prints them.

    ``blocks_per_request`` is what one request of ``max_model_len`` takes. Since 0.21 the tokens are
    concurrency x length; before, blocks per group times the block size.
    """
    concurrency = num_blocks / blocks_per_request if blocks_per_request else 0.0
    if rules.counts_requests:
        return int(concurrency * max_model_len), concurrency
    smallest = min((group.block_size for group in layout.groups if group.kind != "mamba"), default=0)
    smallest = smallest or min((group.block_size for group in layout.groups), default=0)
    return num_blocks // max(1, len(layout.groups)) * smallest * layout.dcp, concurrency


def estimated_max_model_len(
    layout: PoolLayout,
    available_bytes: Sequence[int],
    max_model_len: int,
    demand: Demand,
) -> int:
    """Return the length vLLM suggests when a request of ``max_model_len`` does not fit; 0 if none.

    ``available_bytes`` is each stage's room, the null block taken off.
    """
    most = min(
        (
            room // each
            for each, room in zip(layout.stage_bytes_per_block, available_bytes, strict=True)
            if each
        ),
        default=0,
    )

    def fits(length: int) -> bool:
        return demand.blocks(length) <= most

    if fits(max_model_len):
        return max_model_len
    if not fits(1):
        return 0
    if len(layout.groups) == 1 and layout.groups[0].kind in ("full", "mla"):
        return most * layout.groups[0].block_size * layout.dcp
    low, high = 1, max_model_len
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def room_after_null_block(layout: PoolLayout, available_bytes: Sequence[int], rules: Behaviour) -> list[int]:
    """Return each stage's room for requests: the block never handed out counts since 0.29."""
    if not rules.keeps_null_block:
        return list(available_bytes)
    return [room - each for room, each in zip(available_bytes, layout.stage_bytes_per_block, strict=True)]
