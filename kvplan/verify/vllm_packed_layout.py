"""vLLM's tensors for DeepSeek-V4: blocks that hold pages of several layers side by side.

vLLM 0.33 v1/core/kv_cache_planning.py (``_get_packed_kv_cache_groups``: the layers of each page size
are dealt out to the groups of their bucket in turn), models/deepseek_v4/attention.py and compressor.py
(rows, index keys, and the fp32 partial sums that a compressor works on). How many groups there are is
the plan's; what lies in each, and so what a block takes, is derived here.
"""

from kvplan.engines.base import Plan
from kvplan.engines.vllm.pages import COMPRESSED_WINDOW_BLOCK
from kvplan.engines.vllm.pool import Group
from kvplan.engines.vllm.server import Server
from kvplan.engines.vllm.speculative import draft_layers
from kvplan.errors import CannotTell
from kvplan.frozen import dataclass
from kvplan.layers import CompressedAttention, expand, kind_name
from kvplan.model import expand_layers
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup
from kvplan.verify.packed_rows import aligned, packed_pages
from kvplan.verify.storage import TensorShape, rows

# A compressor's partial sums: (tokens of a block, width in heads, window in tokens) by ratio.
COMPRESSORS: dict[int, tuple[int, int, int]] = {4: (4, 4, 8), 128: (8, 2, 128)}


@dataclass(frozen=True, slots=True)
class Page:
    """One page of one layer: which bucket it falls into, and its tensors for one block.

    ``kind``, ``block_size`` (tokens of a block) and ``window`` are what layers of a bucket share.
    """

    name: str
    kind: str
    block_size: int
    window: int
    tensors: tuple[TensorShape, ...]

    @property
    def num_bytes(self) -> int:
        """What one block's page takes."""
        return sum(tensor.num_bytes for tensor in self.tensors)


def layout(plan: Plan, server: Server) -> CacheLayout:
    """Return the blocks of the asked load, one rank with every layer on it.

    Raises CannotTell for a model that has other caches beside.
    """
    settings, pool = server.settings, server.whole.pool
    dealt = _dealt(plan, server)
    block_bytes = max(sum(page.num_bytes for page in pages) for _, pages in dealt)
    groups: list[LayoutGroup] = []
    for group, pages in dealt:
        alone = type(pool)((group,), pool.stage_bytes_per_block, pool.block_size, pool.num_slots, pool.dcp)
        one = alone.blocks_per_request(
            plan.context_tokens, settings.in_flight_tokens, settings.encoder_tokens
        )
        blocks = one * plan.num_sequences
        tensors = [tensor for page in dict.fromkeys(pages) for tensor in _blocks(page, pages, blocks)]
        spare = block_bytes - sum(page.num_bytes for page in pages)
        if spare:
            tensors.append(TensorShape("block padding", "uint8", (blocks, spare)))
        detail = f"{blocks:,} blocks of {group.block_size:,} tokens with {len(pages)} pages"
        planned = blocks * pool.bytes_per_block
        groups.append(LayoutGroup("compressed_attention", 1, tuple(tensors), planned, detail, unit="pool"))
    return CacheLayout(tuple(groups))


def _blocks(page: Page, pages: list[Page], blocks: int) -> tuple[TensorShape, ...]:
    """Return a page's tensors for every layer of the group that has it, and every block."""
    count = pages.count(page)
    return tuple(
        TensorShape(tensor.name, tensor.dtype, (count, blocks, *tensor.shape[1:])) for tensor in page.tensors
    )


def _dealt(plan: Plan, server: Server) -> list[tuple[Group, list[Page]]]:
    """Deal the layers' pages out to the plan's groups: those of each size in turn over their bucket."""
    buckets: dict[tuple[str, int, int], list[tuple[Group, list[Page]]]] = {}
    for group in server.whole.pool.groups:
        key = ("full" if group.kind == "mla" else group.kind, group.block_size, group.window)
        buckets.setdefault(key, []).append((group, []))
    position: dict[tuple[str, int, int, int], int] = {}
    drafts = expand(draft_layers(plan.model, server.settings.speculation))
    for layer in (*expand_layers(plan.model), *drafts):
        for cache in layer.caches:
            if not isinstance(cache, CompressedAttention):
                raise CannotTell(
                    f"{kind_name(cache)} beside compressed layers is not laid out here",
                    why="vLLM's packed blocks are known for DeepSeek-V4's layers alone",
                    hint="add --engine transformers",
                )
            for page in _pages(cache, server.whole.pool.block_size):
                key = (page.kind, page.block_size, page.window)
                if key not in buckets:
                    raise CannotTell(
                        f"no group of vLLM's holds {page.name}",
                        why=f"blocks of {page.block_size} tokens with a window of {page.window}",
                        hint="this is a bug in kvplan: please report the command",
                    )
                index = position.get((*key, page.num_bytes), 0)
                position[*key, page.num_bytes] = index + 1
                buckets[key][index % len(buckets[key])][1].append(page)
    return [entry for entries in buckets.values() for entry in entries if entry[1]]


def _pages(cache: CompressedAttention, block_size: int) -> tuple[Page, ...]:
    """Return one layer's pages: its window, and where it compresses rows, index keys and partial sums."""
    head, ratio, index = cache.head_dim, cache.compress_ratio, cache.index_head_dim
    window = Page(
        "window",
        "sliding_mla",
        COMPRESSED_WINDOW_BLOCK,
        cache.sliding_window,
        packed_pages("window", head, (1, COMPRESSED_WINDOW_BLOCK)),
    )
    if ratio not in COMPRESSORS:
        return (window,)
    num_rows = block_size // ratio
    found = [
        window,
        Page("compressed", "full", block_size, 0, packed_pages("compressed", head, (1, num_rows))),
        _partial_sums("partial sums", head, ratio),
    ]
    if index:
        keys = aligned("index keys", rows("index keys", "indexer", (1, num_rows), index), (1,))
        found.append(Page("index keys", "full", block_size, 0, keys))
        found.append(_partial_sums("index partial sums", index, ratio))
    return tuple(found)


def _partial_sums(name: str, head_dim: int, ratio: int) -> Page:
    tokens, width, window = COMPRESSORS[ratio]
    sums = (TensorShape(name, "float32", (1, tokens, width * head_dim)),)
    return Page(name, "sliding_mla", tokens, window, aligned(name, sums, (1,)))
