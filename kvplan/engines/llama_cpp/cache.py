"""llama.cpp's caches, to the byte: cells and their padding, streams, windows, states.

llama.cpp 0c1e57098: src/llama-context.cpp (padding of n_ctx), src/llama-kv-cache.cpp (tensors),
src/llama-kv-cache-iswa.cpp (window cells), src/llama-memory-recurrent.cpp and llama-hparams.cpp
(states, always fp32), ggml-cuda.cu (row padding of quantized tensors). Checked against 4,302 runs.
"""

from functools import lru_cache

from kvplan.dtypes import GGML_TYPES
from kvplan.frozen import dataclass
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    FullAttention,
    GatedDeltaState,
    KimiDeltaState,
    LatentAttention,
    Mamba1State,
    Mamba2State,
    RwkvState,
    SharedCache,
    ShortConvState,
    SlidingWindow,
)
from kvplan.units import round_up

CELL_PADDING = 256
CUDA_ROW_PADDING = 512
CUDA_ALIGNMENT = 128
# Windows that llama.cpp's graph of the architecture does not use: src/models/phi3.cpp and those that
# never ask hparams for one.
IGNORES_WINDOW = frozenset((
    "phi3", "phimoe", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "llama",
    "starcoder2", "mistral3", "granite", "smollm3", "hunyuan-dense",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cells:
    """How many cells each stream holds, and how many streams there are."""

    full: int
    window: int
    num_streams: int
    num_sequences: int


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's cache: K and V tensors and the recurrent state, in bytes."""

    key_bytes: int
    value_bytes: int
    state_bytes: int

    @property
    def total_bytes(self) -> int:
        """All three together."""
        return self.key_bytes + self.value_bytes + self.state_bytes


def cells_of(
    n_ctx: int, n_parallel: int, n_ubatch: int, window: int, *, kv_unified: bool, swa_full: bool
) -> Cells:
    """Return the cells of a context of ``n_ctx`` tokens over ``n_parallel`` sequences.

    The context is padded to 256; without a unified cache each sequence gets a padded share of its
    own. A windowed layer keeps the window (of every sequence, when unified) and one micro-batch.
    """
    padded = round_up(n_ctx, CELL_PADDING)
    per_sequence = padded if kv_unified else round_up(padded // n_parallel, CELL_PADDING)
    streams = 1 if kv_unified else n_parallel
    held = window * (n_parallel if kv_unified else 1) + n_ubatch
    windowed = per_sequence if swa_full else round_up(min(per_sequence, held), CELL_PADDING)
    return Cells(per_sequence, windowed, streams, n_parallel)


def window_of(caches: tuple[tuple[Cache, int], ...], arch: str) -> int:
    """Return the window that llama.cpp honours for this model, 0 where it keeps everything."""
    if arch in IGNORES_WINDOW:
        return 0
    for cache, _ in caches:
        if isinstance(cache, SlidingWindow):
            return cache.sliding_window
        if isinstance(cache, ChunkedAttention):
            return cache.attention_chunk_size
    return 0


def value_width_of(caches: tuple[tuple[Cache, int], ...], *, flash_attn: bool) -> int:
    """Return the width that every layer's values take, 0 where each layer has its own.

    Without flash attention values are stored transposed, in the width of the widest layer
    (llama-kv-cache.cpp TAG_V_CACHE_VARIABLE).
    """
    if flash_attn:
        return 0
    return max(
        (
            cache.num_key_value_heads * cache.v_head_dim
            for cache, _ in caches
            if isinstance(cache, FullAttention | SlidingWindow | ChunkedAttention)
        ),
        default=0,
    )


def _tensor_bytes(row_elements: int, type_name: str, num_rows: int, *, cuda: bool) -> int:
    block = GGML_TYPES[type_name]
    num_bytes = block.row_bytes(row_elements) * num_rows
    if cuda and block.block_size > 1 and row_elements % CUDA_ROW_PADDING:
        padding = block.row_bytes(CUDA_ROW_PADDING - row_elements % CUDA_ROW_PADDING)
        num_bytes += padding
    return round_up(num_bytes, CUDA_ALIGNMENT) if cuda else num_bytes


@lru_cache(maxsize=8192)
def layer_cache(
    cache: Cache,
    cells: Cells,
    type_k: str,
    type_v: str,
    *,
    honours_window: bool,
    cuda: bool,
    value_width: int = 0,
) -> LayerCache | None:
    """Return the bytes of one layer's cache, None for a kind llama.cpp's rules here do not cover.

    ``value_width`` is the width of every layer's values where they have one width, see ``value_width_of``.
    """
    match cache:
        case FullAttention(index_head_dim=0):
            return _key_value(cache, cells.full, cells, type_k, type_v, value_width, cuda=cuda)
        case SlidingWindow() | ChunkedAttention():
            held = cells.window if honours_window else cells.full
            return _key_value(cache, held, cells, type_k, type_v, value_width, cuda=cuda)
        case LatentAttention():
            rows = cells.full * cells.num_streams
            row = cache.kv_lora_rank + cache.qk_rope_head_dim
            keys = _tensor_bytes(row, type_k, rows, cuda=cuda)
            if cache.index_head_dim:
                # src/llama-kv-cache-dsa.cpp: the indexer's keys have a cache of their own.
                keys += _tensor_bytes(cache.index_head_dim, type_k, rows, cuda=cuda)
            return LayerCache(keys, 0, 0)
        case SharedCache():
            return LayerCache(0, 0, 0)
    state = state_elements(cache)
    return None if state is None else LayerCache(0, 0, state * 4 * max(1, cells.num_sequences))


def _key_value(
    cache: FullAttention | SlidingWindow | ChunkedAttention,
    held: int,
    cells: Cells,
    type_k: str,
    type_v: str,
    value_width: int,
    *,
    cuda: bool,
) -> LayerCache:
    rows = held * cells.num_streams
    heads = cache.num_key_value_heads
    return LayerCache(
        _tensor_bytes(heads * cache.head_dim, type_k, rows, cuda=cuda),
        _tensor_bytes(value_width or heads * cache.v_head_dim, type_v, rows, cuda=cuda),
        0,
    )


def state_elements(cache: Cache) -> int | None:
    """Return the fp32 elements of a recurrent layer's state for one sequence, None for others."""
    match cache:
        case Mamba1State():
            inner = cache.intermediate_size
            return (cache.conv_kernel - 1) * inner + cache.state_size * inner
        case Mamba2State():
            inner = cache.num_heads * cache.head_dim
            channels = inner + 2 * cache.n_groups * cache.state_size
            return (cache.conv_kernel - 1) * channels + cache.state_size * inner
        case GatedDeltaState():
            values = cache.num_v_heads * cache.head_v_dim
            channels = values + 2 * cache.num_k_heads * cache.head_k_dim
            return (cache.conv_kernel - 1) * channels + cache.head_k_dim * values
        case KimiDeltaState():
            inner = cache.num_heads * cache.head_dim
            return 3 * (cache.conv_kernel - 1) * inner + cache.head_dim * inner
        case ShortConvState():
            return (cache.conv_kernel - 1) * cache.hidden_size
        case RwkvState():
            return cache.num_model_dtype_rows * cache.hidden_size + cache.num_float32_elements
    return None


def split_layers(num_layers: int, weights: tuple[int, ...]) -> tuple[int, ...]:
    """Return the device of each layer and, last, of the output, for devices weighted by free memory.

    llama.cpp src/llama-model.cpp: layer i goes to the first device whose cumulative share exceeds
    i / (layers + 1).
    """
    whole = sum(weights)
    cumulative, reached = [], 0
    for weight in weights:
        reached += weight
        cumulative.append(reached)
    places = []
    for index in range(num_layers + 1):
        device = 0
        while device < len(weights) - 1 and index * whole >= cumulative[device] * (num_layers + 1):
            device += 1
        places.append(device)
    return tuple(places)
