"""SGLang's tensors for DeepSeek-V4: pages of packed rows, index keys, and the compressors' states.

SGLang 0.5.23 srt/mem_cache/deepseek_v4_memory_pool.py (DeepSeekV4SingleKVPool: a page of rows in
uint8, padded to 576 bytes; DeepSeekV4IndexerPool) and deepseek_v4_compress_state.py
(CompressStatePool: rows of values and scores in fp32). A full page of 256 tokens is a page of 64 rows
4 to 1, of 2 rows 128 to 1 and a share of a window page.
"""

from dataclasses import replace

from kvplan.engines.base import Plan
from kvplan.engines.sglang.asked import asked_tokens
from kvplan.engines.sglang.cache_use import Kind, WholeModel
from kvplan.engines.sglang.compressed import (
    RINGS,
    allocated_bytes,
    pages_bytes,
    request_state_bytes,
)
from kvplan.engines.sglang.settings import Settings
from kvplan.errors import CannotTell
from kvplan.layers import CompressedAttention
from kvplan.model import cache_kinds
from kvplan.units import round_up
from kvplan.verify.cache_layout import LayoutGroup
from kvplan.verify.packed_rows import packed_pages
from kvplan.verify.storage import TensorShape, rows

# Values and scores lie side by side; with ratio 4 neighbouring windows overlap: twice the width.
STATE_WIDTHS: dict[int, int] = {4: 4, 128: 2}


def groups_of(plan: Plan, whole: WholeModel, settings: Settings) -> tuple[LayoutGroup, ...]:
    """Return the pages of the asked load by kind of layer, and the padding beside them.

    Raises CannotTell for drafts and for layers that are not DeepSeek-V4's.
    """
    if settings.speculative_algorithm:
        raise CannotTell(
            "SGLang's draft pools for compressed layers are not laid out here",
            why="what a draft layer keeps there is not known",
            hint="leave out --speculative-algorithm",
        )
    tokens = asked_tokens(settings, plan.context_tokens, plan.num_sequences, has_windows=True)
    page = settings.page_size
    num_pages, num_windows = tokens.full // page, tokens.window // page
    groups: list[LayoutGroup] = []
    padding: list[TensorShape] = []
    for (cache, count), kind in zip(cache_kinds(plan.model), whole.kinds, strict=True):
        if not isinstance(cache, CompressedAttention) or kind.compressed is None:
            raise CannotTell(
                f"{kind.name} beside compressed layers is not laid out here",
                why="SGLang makes no pool for it in such a model",
                hint="add --engine transformers",
            )
        tensors = _tensors(cache, page, num_pages, num_windows, plan.num_sequences)
        groups.append(
            LayoutGroup(
                kind.name,
                count,
                tensors,
                _planned(kind, settings, tokens.full, plan.num_sequences),
                f"ratio {cache.compress_ratio}" if cache.compress_ratio else "windows",
            )
        )
        padding += [
            replace(tensor, shape=(count, *tensor.shape))
            for tensor in _padding(cache, page, num_windows, plan.num_sequences)
        ]
    amount = _beside(whole, settings, tokens.full, plan.num_sequences)
    groups.append(LayoutGroup("padding_pages", 1, tuple(padding), amount, "pages and rows", beside=True))
    return tuple(groups)


def _planned(kind: Kind, settings: Settings, full_tokens: int, num_sequences: int) -> int:
    part = kind.compressed
    if part is None:
        return 0
    each = request_state_bytes(part, settings, 1) - request_state_bytes(part, settings, 0)
    return pages_bytes(part, settings, full_tokens) + each * num_sequences


def _beside(whole: WholeModel, settings: Settings, full_tokens: int, num_sequences: int) -> int:
    part = whole.compressed
    if part is None:
        return 0
    each = request_state_bytes(part, settings, 1) - request_state_bytes(part, settings, 0)
    held = pages_bytes(part, settings, full_tokens) + each * num_sequences
    return allocated_bytes(part, settings, full_tokens, num_sequences) - held


def _tensors(
    cache: CompressedAttention, page: int, num_pages: int, num_windows: int, num_sequences: int
) -> tuple[TensorShape, ...]:
    ratio = cache.compress_ratio
    windows = packed_pages("window", cache.head_dim, (num_windows, page))
    if ratio not in RINGS:
        return windows
    compressed = packed_pages("compressed", cache.head_dim, (num_pages, page // ratio))
    # The 4-to-1 layers' states follow the window's pages, the 128-to-1 layers' the requests.
    num_rows = (num_windows if ratio == 4 else num_sequences) * RINGS[ratio]
    index = rows("index keys", "indexer", (num_pages, page // ratio), cache.index_head_dim)
    return (*windows, *compressed, *index, *_states(cache, num_rows))


def _padding(
    cache: CompressedAttention, page: int, num_windows: int, num_sequences: int
) -> tuple[TensorShape, ...]:
    """Return what one layer has beyond the tokens: a page of each pool and the spare rows of states."""
    ratio = cache.compress_ratio
    windows = packed_pages("window", cache.head_dim, (1, page))
    if ratio not in RINGS:
        return windows
    ring = RINGS[ratio]
    # A pool's padding is as many rows as a full page has tokens.
    spare = packed_pages("compressed", cache.head_dim, (ratio, page // ratio))
    index = rows("index keys", "indexer", (ratio, page // ratio), cache.index_head_dim)
    if ratio == 4:
        held = num_windows * ring
        num_rows = round_up(held + ring + 1, ratio) - held
    else:
        held = num_sequences * ring
        num_rows = round_up(held + 2 * ring + 1, ratio) - held
    return (*windows, *spare, *index, *_states(cache, num_rows))


def _states(cache: CompressedAttention, num_rows: int) -> tuple[TensorShape, ...]:
    width = STATE_WIDTHS[cache.compress_ratio]
    widths = [("states", cache.head_dim)]
    if cache.index_head_dim:
        widths.append(("index states", cache.index_head_dim))
    return tuple(TensorShape(name, "float32", (num_rows, width * each)) for name, each in widths)
