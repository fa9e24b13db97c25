"""Bytes of one token in SGLang's pools and of one request's states, per rank.

SGLang 0.5.23 srt/model_executor/pool_configurator.py (_compute_cell_size and the window pools) and
srt/configs/mamba_utils.py (states). A row is what one layer keeps of one token on one rank.
"""

from kvplan.dtypes import DTYPE_BYTES
from kvplan.engines.sglang.kernels import FP4_NAMES
from kvplan.engines.sglang.settings import Layout
from kvplan.frozen import dataclass
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaState,
    KimiDeltaState,
    LatentAttention,
    LayerGroup,
    LightningState,
    Mamba1State,
    Mamba2State,
    RecurrentState,
    SharedCache,
    ShortConvState,
    SlidingWindow,
    kind_name,
)

ELEMENT_BYTES: dict[str, int] = {"bf16": 2, "bfloat16": 2, "float16": 2}
MXFP8_BLOCK = 32
FP4_BLOCK = 16
# Sparse latent rows in fp8: an fp32 scale per 128 values, rope values left in bf16 (DSATokenToKVPool).
SPARSE_SCALE_BLOCK = 128
# Conv states stay in bf16 (SGLANG_MAMBA_CONV_DTYPE).
CONV_BYTES = 2

HeadCache = FullAttention | SlidingWindow | ChunkedAttention | CrossAttention


@dataclass(frozen=True, slots=True)
class Row:
    """One layer's bytes of a token; ``key_bytes`` of them are keys, ``num_elements`` values in all."""

    num_bytes: int
    key_bytes: int
    num_elements: int


NO_ROW = Row(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Cells:
    """What a stage keeps on one rank.

    ``full_bytes`` a token in the pool that every layer (or every full layer) uses, ``window_bytes``
    a token in the window pool, 0 without one; of those the keys; ``draft_full_bytes`` and
    ``draft_window_bytes`` what a draft head adds to each. ``conv_bytes`` and ``ssm_bytes`` are one
    request's states over ``num_state_layers``. ``unmodelled`` names kinds SGLang has no pool for.
    """

    full_bytes: int
    full_key_bytes: int
    window_bytes: int
    window_key_bytes: int
    draft_full_bytes: int
    draft_window_bytes: int
    conv_bytes: int
    ssm_bytes: int
    num_state_layers: int
    num_full_layers: int
    unmodelled: tuple[str, ...] = ()

    @property
    def state_bytes(self) -> int:
        """One request's states."""
        return self.conv_bytes + self.ssm_bytes


def cells_of(groups: tuple[LayerGroup, ...], layout: Layout) -> Cells:
    """Price the layers of one stage."""
    full = full_keys = full_elements = num_full = workspace = 0
    window = window_keys = num_window = 0
    conv = ssm = num_states = 0
    unmodelled: dict[str, None] = {}
    for group in groups:
        for cache in group.layer.caches:
            if isinstance(cache, RECURRENT_STATES):
                state = state_bytes(cache, layout)
                if state is None:
                    unmodelled[kind_name(cache)] = None
                    continue
                conv += state[0] * group.count
                ssm += state[1] * group.count
                num_states += group.count
                continue
            row = row_of(cache, layout)
            if layout.hybrid_windows and is_window(cache):
                exponents = row.num_elements // MXFP8_BLOCK if layout.kv_dtype == "mxfp8" else 0
                window += (row.num_bytes + exponents) * group.count
                window_keys += row.key_bytes * group.count
                num_window += group.count
            else:
                full += row.num_bytes * group.count
                full_keys += row.key_bytes * group.count
                full_elements += row.num_elements * group.count
                num_full += group.count
                workspace = max(workspace, fp4_workspace(cache, layout))
    if layout.kv_dtype == "mxfp8":
        # One exponent a block of 32, rounded down once for all layers together.
        full += full_elements // MXFP8_BLOCK
        full_keys += full_keys // MXFP8_BLOCK
    full += workspace
    draft_full, draft_window = _draft_bytes(groups, layout, full, num_full, window, num_window)
    return Cells(
        full_bytes=full,
        full_key_bytes=full_keys,
        window_bytes=window,
        window_key_bytes=window_keys,
        draft_full_bytes=draft_full,
        draft_window_bytes=draft_window,
        conv_bytes=conv,
        ssm_bytes=ssm,
        num_state_layers=num_states,
        num_full_layers=num_full,
        unmodelled=tuple(unmodelled),
    )


def is_window(cache: Cache) -> bool:
    """Tell whether a layer goes to the window pool where there is one."""
    owner = cache.owner if isinstance(cache, SharedCache) else cache
    return isinstance(owner, SlidingWindow | ChunkedAttention)


def _draft_bytes(
    groups: tuple[LayerGroup, ...], layout: Layout, full: int, num_full: int, window: int, num_window: int
) -> tuple[int, int]:
    """Return what a draft head adds a token: its layers at the target's own size a layer.

    Indexer keys are kept in every draft layer but only in those target layers that rank tokens, so
    the two parts scale by themselves.
    """
    layers = layout.draft_layers
    if not layers or not num_full:
        return 0, 0
    if layout.hybrid_windows and num_window:
        if layout.draft_path:
            return full // num_full * layers, 0
        # Without a path the draft's windows are read from the target, which has more than enough.
        return 0, window // num_window * layers
    indexed = [
        (indexer_bytes(cache.index_head_dim) * layout.dcp, group.count)
        for group in groups
        for cache in group.layer.caches
        if isinstance(cache, LatentAttention) and cache.index_head_dim
    ]
    if not indexed:
        return int(full * layers / num_full), 0
    in_target = sum(each * count for each, count in indexed)
    return int((full - in_target) * layers / num_full) * layout.dcp + indexed[0][0] * layers, 0


def indexer_bytes(index_head_dim: int) -> int:
    """Return one indexer key: fp8 values and an fp32 scale per 128 of them."""
    return index_head_dim + index_head_dim // SPARSE_SCALE_BLOCK * 4


def row_of(cache: Cache, layout: Layout) -> Row:
    """Return one layer's row on one rank; none for a kind that has pools of its own."""
    match cache:
        case SharedCache():
            # Layers that read another layer's cache are counted like any other.
            return row_of(cache.owner, layout)
        case LatentAttention():
            num_bytes = _latent_bytes(cache, layout)
            return Row(num_bytes, num_bytes, cache.kv_lora_rank + cache.qk_rope_head_dim)
        case FullAttention() | SlidingWindow() | ChunkedAttention() | CrossAttention():
            return _head_row(cache, layout)
        case _:
            return NO_ROW


def num_heads_of(cache: HeadCache, layout: Layout) -> int:
    """Return the KV heads of a rank: with fewer heads than ranks each keeps one (get_num_kv_heads)."""
    return max(1, cache.num_key_value_heads // max(1, layout.attention_tensor // layout.dcp))


def _head_row(cache: HeadCache, layout: Layout) -> Row:
    heads = num_heads_of(cache, layout)
    elements = heads * (cache.head_dim + cache.v_head_dim)
    if layout.kv_dtype in FP4_NAMES and not layout.hybrid_windows:
        # The recipe takes keys and values for equally wide; pools with windows are sized at a byte a
        # value (HybridSWAPoolConfigurator).
        keys = heads * (cache.head_dim // 2 + cache.head_dim // FP4_BLOCK * fp4_scale_layouts(layout))
        return Row(2 * keys, keys, elements)
    each = element_bytes(layout.kv_dtype)
    keys = heads * cache.head_dim * each
    index = 0
    if isinstance(cache, FullAttention) and cache.index_head_dim:
        index = cache.index_head_dim * sparse_index_bytes(layout)
    return Row(elements * each + index, keys + index, elements)


def element_bytes(kv_dtype: str) -> int:
    """Return the bytes of one cached value in a format that has no blocks."""
    return ELEMENT_BYTES.get(kv_dtype, 1)


def fp4_scale_layouts(layout: Layout) -> int:
    """Return how many copies of the scales nvfp4 keeps: TRT-LLM's order, and a linear one for others."""
    if layout.kv_dtype != "nvfp4" or not layout.platform.is_sm100:
        return 1
    return 1 if {layout.kernels.prefill, layout.kernels.decode} == {"trtllm_mha"} else 2


def fp4_workspace(cache: Cache, layout: Layout) -> int:
    """Return the fp8 workspace a token that prefill unpacks 4-bit rows into, once for all layers."""
    if layout.kv_dtype not in FP4_NAMES or layout.hybrid_windows or not isinstance(cache, FullAttention):
        return 0
    if layout.kv_dtype == "nvfp4" and layout.kernels.prefill == "trtllm_mha":
        return 0
    return num_heads_of(cache, layout) * cache.head_dim * 2


def sparse_index_bytes(layout: Layout) -> int:
    """Return the bytes of an index value (MiniMax-M3): fp8 on Hopper and under TRT-LLM's fp8 kernels."""
    kernels = (layout.kernels.prefill, layout.kernels.decode)
    fp8_kernels = layout.platform.is_sm100 and "trtllm_mha" in kernels
    return 1 if layout.kv_dtype == "fp8_e4m3" and (layout.platform.is_sm90 or fp8_kernels) else 2


def _latent_bytes(cache: LatentAttention, layout: Layout) -> int:
    """Return a latent row, replicated on every rank: packed with scales for sparse fp8 kernels."""
    values = cache.kv_lora_rank + cache.qk_rope_head_dim
    if layout.kv_dtype in FP4_NAMES:
        row = values // 2 + values // FP4_BLOCK
    elif layout.kv_dtype == "fp8_e4m3" and packs_scales(layout):
        scales = cache.kv_lora_rank // SPARSE_SCALE_BLOCK * 4
        row = cache.kv_lora_rank + scales + cache.qk_rope_head_dim * 2
    else:
        row = values * element_bytes(layout.kv_dtype)
    if cache.index_head_dim:
        row += indexer_bytes(cache.index_head_dim) * layout.dcp
    return row


def packs_scales(layout: Layout) -> bool:
    """Tell whether sparse latent rows carry their own scales (calculate_mla_kv_cache_dim)."""
    prefill, decode = layout.kernels.sparse
    if not prefill or "trtllm" in (prefill, decode):
        return False
    raw = ("tilelang", "triton", "aiter")
    if layout.platform.is_amd and (prefill in raw or decode in raw):
        return False
    return not prefill == decode == "tilelang"


def state_bytes(cache: RecurrentState, layout: Layout) -> tuple[int, int] | None:
    """Return one request's (convolution, recurrence) in one layer; None for a kind without a pool.

    Convolutions are kept in bf16, the recurrence in ``ssm_dtype``.
    """
    ranks = layout.attention_tensor
    ssm = DTYPE_BYTES[layout.ssm_dtype]
    match cache:
        case GatedDeltaState():
            groups = _sharded_groups(cache.num_k_heads, ranks)
            rows = cache.num_v_heads * cache.head_v_dim + 2 * groups * cache.head_k_dim
            state = cache.num_v_heads // ranks * cache.head_v_dim * cache.head_k_dim
        case Mamba2State():
            groups = _sharded_groups(cache.n_groups, ranks)
            rows = cache.num_heads * cache.head_dim + 2 * groups * cache.state_size
            state = cache.num_heads // ranks * cache.head_dim * cache.state_size
        case Mamba1State():
            rows = cache.intermediate_size
            state = cache.intermediate_size // ranks * cache.state_size
        case KimiDeltaState():
            rows = 3 * cache.num_heads * cache.head_dim
            state = cache.num_heads // ranks * cache.head_dim**2
        case LightningState():
            return 0, cache.num_heads // ranks * cache.head_dim**2 * ssm
        case ShortConvState():
            rows, state = cache.hidden_size, 0
        case _:
            return None
    return rows // ranks * (cache.conv_kernel - 1) * CONV_BYTES, state * ssm


def _sharded_groups(n_groups: int, ranks: int) -> int:
    """Return the groups once replicated for ranks that they do not divide over (mamba_utils.py)."""
    return n_groups if n_groups % ranks == 0 else ranks


def is_compressed(groups: tuple[LayerGroup, ...]) -> bool:
    """Tell whether the layers are DeepSeek-V4's, which have pools of their own."""
    return any(isinstance(cache, CompressedAttention) for group in groups for cache in group.layer.caches)
