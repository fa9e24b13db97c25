"""Bytes of one token in SGLang's pools, per rank, and of one state.

SGLang 0.5.23 srt/model_executor/pool_configurator.py (_compute_cell_size and the window pools) and
srt/configs/mamba_utils.py (states). A row is what one layer keeps of one token on one rank.
"""

from dataclasses import dataclass
from functools import lru_cache

from kvplan.dtypes import DTYPE_BYTES
from kvplan.engines.sglang_settings import Settings
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
    SharedCache,
    ShortConvState,
    SlidingWindow,
)
from kvplan.units import ceil_div

ELEMENT_BYTES: dict[str, int] = {"bf16": 2, "bfloat16": 2, "float16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1, "mxfp8": 1}
MXFP8_BLOCK = 32
FP4_BLOCK = 16
# DSATokenToKVPool: 512 fp8 values, 4 fp32 scales, 64 rope values in bf16.
SPARSE_SCALE_BLOCK = 128
# Conv states stay in bf16 (SGLANG_MAMBA_CONV_DTYPE).
CONV_BYTES = 2


@dataclass(frozen=True, slots=True)
class Cells:
    """What a stage keeps on one rank.

    ``full_bytes`` a token in the pool that every layer (or every full layer) uses, ``window_bytes``
    a token in the window pool, 0 without one; ``draft_full_bytes`` and ``draft_window_bytes`` what
    a draft head adds to each. ``state_bytes`` is one request's states, ``num_state_layers`` how many
    layers have one. ``unmodelled`` names kinds that are priced by their textbook size.
    """

    full_bytes: int
    window_bytes: int
    draft_full_bytes: int
    draft_window_bytes: int
    state_bytes: int
    num_state_layers: int
    num_full_layers: int
    unmodelled: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def cells_of(groups: tuple[LayerGroup, ...], settings: Settings) -> Cells:
    """Price the layers of one stage."""
    full = window = states = num_states = num_full = num_window = 0
    full_elements = window_elements = fp4_workspace = 0
    unmodelled: list[str] = []
    for group in groups:
        for cache in group.layer.caches:
            if isinstance(cache, RECURRENT_STATES):
                amount = state_bytes(cache, settings)
                if amount is None:
                    unmodelled.append(type(cache).__name__)
                    amount = 0
                states += amount * group.count
                num_states += group.count
                continue
            row, elements = row_bytes(cache, settings)
            if settings.hybrid_windows and _is_window(cache):
                window += row * group.count
                window_elements += elements * group.count
                num_window += group.count
            else:
                full += row * group.count
                full_elements += elements * group.count
                num_full += group.count
                fp4_workspace = max(fp4_workspace, _fp4_workspace(cache, settings))
    if settings.kv_dtype == "mxfp8":
        # One exponent a block of 32, rounded down once for all layers together.
        full += full_elements // MXFP8_BLOCK
        window += window_elements // MXFP8_BLOCK
    full += fp4_workspace
    draft_full, draft_window = _draft_cells(full, window, num_full, num_window, groups, settings)
    return Cells(
        full_bytes=full,
        window_bytes=window,
        draft_full_bytes=draft_full,
        draft_window_bytes=draft_window,
        state_bytes=states,
        num_state_layers=num_states,
        num_full_layers=num_full,
        unmodelled=tuple(dict.fromkeys(unmodelled)),
    )


def _is_window(cache: Cache) -> bool:
    owner = cache.owner if isinstance(cache, SharedCache) else cache
    return isinstance(owner, SlidingWindow | ChunkedAttention)


def _draft_cells(
    full: int, window: int, num_full: int, num_window: int, groups: tuple[LayerGroup, ...], settings: Settings
) -> tuple[int, int]:
    """Return what a draft head adds a token: its layers at the target's own size a layer.

    The indexer of sparse latent attention is kept in every draft layer and in every target layer's
    row only where that layer ranks tokens, so both parts scale by themselves.
    """
    layers = settings.draft_layers
    if not layers or not num_full:
        return 0, 0
    if settings.hybrid_windows and num_window:
        if settings.draft_path:
            return full // num_full * layers, 0
        # Without a path the draft's windows are read from the target, which has more than enough.
        return 0, window // num_window * layers
    indexers, num_indexed = _indexer_bytes(groups, settings)
    if not num_indexed:
        return int(full * layers / num_full), 0
    main = int((full - indexers) * layers / num_full) * settings.dcp
    return main + indexers // num_indexed * layers, 0


def _indexer_bytes(groups: tuple[LayerGroup, ...], settings: Settings) -> tuple[int, int]:
    amount = count = 0
    for group in groups:
        for cache in group.layer.caches:
            if isinstance(cache, LatentAttention) and cache.index_head_dim:
                amount += indexer_row_bytes(cache.index_head_dim) * settings.dcp * group.count
                count += group.count
    return amount, count


def indexer_row_bytes(index_head_dim: int) -> int:
    """Return one indexer key: fp8 values and an fp32 scale per 128 of them."""
    return index_head_dim + index_head_dim // SPARSE_SCALE_BLOCK * 4


def row_bytes(cache: Cache, settings: Settings) -> tuple[int, int]:
    """Return one layer's bytes of a token on one rank, and its elements (for block exponents)."""
    match cache:
        case SharedCache():
            # Layers that read another layer's cache are counted like any other.
            return row_bytes(cache.owner, settings)
        case LatentAttention():
            return _latent_row(cache, settings), cache.kv_lora_rank + cache.qk_rope_head_dim
        case FullAttention() | SlidingWindow() | ChunkedAttention() | CrossAttention():
            return _head_row(cache, settings)
        case _:
            return 0, 0


def _head_row(
    cache: FullAttention | SlidingWindow | ChunkedAttention | CrossAttention, settings: Settings
) -> tuple[int, int]:
    """Return a multi-head row. Fewer heads than ranks: every rank keeps one (get_num_kv_heads)."""
    heads = max(1, cache.num_key_value_heads // max(1, settings.attention_tensor // settings.dcp))
    elements = heads * (cache.head_dim + cache.v_head_dim)
    row = elements * element_bytes(settings.kv_dtype)
    if settings.kv_dtype in ("nvfp4", "fp4_mx_block16"):
        row = heads * (cache.head_dim // 2) * 2 + heads * (cache.head_dim // FP4_BLOCK) * 2 * _fp4_scales(settings)
    if isinstance(cache, FullAttention) and cache.index_head_dim:
        row += cache.index_head_dim * _sparse_index_bytes(settings)
    return row, elements


def _fp4_scales(settings: Settings) -> int:
    """Return how many scale layouts nvfp4 keeps: TRT-LLM's own, and a linear one for other kernels."""
    if settings.kv_dtype != "nvfp4" or not settings.platform.is_sm100:
        return 1
    kernels = {settings.kernels.prefill, settings.kernels.decode}
    return 1 if kernels == {"trtllm_mha"} else 2


def _fp4_workspace(cache: Cache, settings: Settings) -> int:
    """Return the bytes a token of the fp8 workspace that prefill unpacks nvfp4 into, once for all layers."""
    if settings.kv_dtype not in ("nvfp4", "fp4_mx_block16") or not isinstance(cache, FullAttention):
        return 0
    if settings.kv_dtype == "nvfp4" and settings.kernels.prefill == "trtllm_mha":
        return 0
    heads = max(1, cache.num_key_value_heads // max(1, settings.attention_tensor // settings.dcp))
    return heads * cache.head_dim * 2


def _sparse_index_bytes(settings: Settings) -> int:
    """Return the bytes of an index element (MiniMax-M3): fp8 on Hopper and under TRT-LLM's fp8 kernels."""
    fp8_kernels = settings.platform.is_sm100 and "trtllm_mha" in (settings.kernels.prefill, settings.kernels.decode)
    if settings.kv_dtype == "fp8_e4m3" and (settings.platform.is_sm90 or fp8_kernels):
        return 1
    return 2


def _latent_row(cache: LatentAttention, settings: Settings) -> int:
    """Return a latent row, replicated on every rank: packed with scales for sparse fp8 kernels."""
    values = cache.kv_lora_rank + cache.qk_rope_head_dim
    if settings.kv_dtype in ("nvfp4", "fp4_mx_block16"):
        row = values // 2 + values // FP4_BLOCK
    elif settings.kv_dtype == "fp8_e4m3" and _packs_scales(settings):
        row = cache.kv_lora_rank + cache.kv_lora_rank // SPARSE_SCALE_BLOCK * 4 + cache.qk_rope_head_dim * 2
    else:
        row = values * element_bytes(settings.kv_dtype)
    if cache.index_head_dim:
        row += indexer_row_bytes(cache.index_head_dim) * settings.dcp
    return row


def _packs_scales(settings: Settings) -> bool:
    """Tell whether sparse latent rows carry their own scales (calculate_mla_kv_cache_dim)."""
    prefill, decode = settings.kernels.sparse
    if not prefill or "trtllm" in (prefill, decode):
        return False
    raw = ("tilelang", "triton", "aiter")
    if settings.platform.is_amd and (prefill in raw or decode in raw):
        return False
    return not (prefill == decode == "tilelang")


def element_bytes(kv_dtype: str) -> int:
    """Return the bytes of one cached value; 4-bit formats are priced by block."""
    return ELEMENT_BYTES.get(kv_dtype, 1)


def state_bytes(cache: Cache, settings: Settings) -> int | None:
    """Return one request's state in one layer on one rank; None for a kind SGLang has no pool for.

    Convolutions are kept in bf16, the recurrence in ``ssm_dtype``.
    """
    ranks = settings.attention_tensor
    ssm = DTYPE_BYTES[settings.ssm_dtype]
    match cache:
        case GatedDeltaState():
            groups = _sharded_groups(cache.num_k_heads, ranks)
            rows = cache.num_v_heads * cache.head_v_dim + 2 * groups * cache.head_k_dim
            conv = rows // ranks * (cache.conv_kernel - 1) * CONV_BYTES
            return conv + cache.num_v_heads // ranks * cache.head_v_dim * cache.head_k_dim * ssm
        case Mamba2State():
            groups = _sharded_groups(cache.n_groups, ranks)
            rows = cache.num_heads * cache.head_dim + 2 * groups * cache.state_size
            conv = rows // ranks * (cache.conv_kernel - 1) * CONV_BYTES
            return conv + cache.num_heads // ranks * cache.head_dim * cache.state_size * ssm
        case Mamba1State():
            rows = cache.intermediate_size // ranks
            return rows * (cache.conv_kernel - 1) * CONV_BYTES + rows * cache.state_size * ssm
        case KimiDeltaState():
            rows = 3 * (cache.num_heads * cache.head_dim // ranks)
            conv = rows * (cache.conv_kernel - 1) * CONV_BYTES
            return conv + cache.num_heads // ranks * cache.head_dim**2 * ssm
        case LightningState():
            return cache.num_heads // ranks * cache.head_dim**2 * ssm
        case ShortConvState():
            return cache.hidden_size // ranks * (cache.conv_kernel - 1) * CONV_BYTES
    return None


def _sharded_groups(n_groups: int, ranks: int) -> int:
    """Return the groups once replicated for ranks that they do not divide over (mamba_utils.py)."""
    return n_groups if n_groups % ranks == 0 else ranks


def is_compressed(groups: tuple[LayerGroup, ...]) -> bool:
    """Tell whether the layers are DeepSeek-V4's, which have pools of their own."""
    return any(isinstance(cache, CompressedAttention) for group in groups for cache in group.layer.caches)


def pages(num_tokens: int, page_size: int) -> int:
    """Return the tokens of whole pages that hold ``num_tokens``."""
    return ceil_div(num_tokens, page_size) * page_size
