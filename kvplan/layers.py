"""What ONE layer caches, and the list of layers that is a model.

A layer is a tuple of caches (none for a pure MLP layer, two for a layer with attention and a
state-space mixer side by side) and the tensors it stores. The kinds take the field's own words, as
vLLM's ``v1/kv_cache_interface.py`` and mlx-lm's ``make_cache`` do. Here are shapes only: bytes,
padding and blocks are the engine's business.

Sizes are per layer. ``head_dim`` is the size of a key head, ``v_head_dim`` of a value head.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from kvplan.frozen import dataclass
from kvplan.tensors import Tensor


@dataclass(frozen=True, slots=True)
class FullAttention:
    """Keys and values of every token: ``num_key_value_heads x (head_dim + v_head_dim)`` each.

    ``index_head_dim`` > 0 adds one indexer key a token (MiniMax-M3's sparse layers).
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    v_head_dim: int
    index_head_dim: int = 0


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Keys and values of the last ``sliding_window`` tokens."""

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    v_head_dim: int
    sliding_window: int


@dataclass(frozen=True, slots=True)
class ChunkedAttention:
    """Keys and values of the current chunk of ``attention_chunk_size`` tokens (Llama 4)."""

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    v_head_dim: int
    attention_chunk_size: int


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """MLA: one latent of ``kv_lora_rank`` and one rope key of ``qk_rope_head_dim`` a token.

    Shared by all heads (DeepSeek-V2, arXiv 2405.04434, section 2.1). ``qk_nope_head_dim`` and
    ``v_head_dim`` are the sizes of a decompressed head, for engines that cache those.
    ``index_head_dim`` > 0 adds the indexer's key (DeepSeek-V3.2's sparse attention).
    """

    num_attention_heads: int
    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int
    index_head_dim: int = 0


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """DeepSeek-V4: a window of single-head rows, and one compressed row every ``compress_ratio``.

    ``compress_ratio`` 0 is a layer with the window alone; ``index_head_dim`` > 0 where an indexer
    picks among the compressed rows (ratio 4).
    """

    num_attention_heads: int
    head_dim: int
    sliding_window: int
    compress_ratio: int
    index_head_dim: int = 0


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """Keys and values of another sequence, fixed once it is read.

    ``source`` says whose tokens: an ``encoder``'s or an ``image``'s. ``num_source_tokens`` is that
    length where the model fixes it (Whisper's 1,500 frames), 0 where the input decides.
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    v_head_dim: int
    source: Literal["encoder", "image"]
    num_source_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SharedCache:
    """A layer that reads another layer's keys and values and stores none (Gemma 3n, Gemma 4).

    ``owner`` is the kind of cache it reads; engines that ignore the sharing store that again.
    """

    owner: FullAttention | SlidingWindow


@dataclass(frozen=True, slots=True)
class Mamba1State:
    """Mamba-1: a convolution over ``intermediate_size`` and a state [intermediate_size, state_size]."""

    intermediate_size: int
    state_size: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class Mamba2State:
    """Mamba-2: ``num_heads x head_dim x state_size``, convolution over inputs, B and C."""

    num_heads: int
    head_dim: int
    state_size: int
    n_groups: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class GatedDeltaState:
    """Gated DeltaNet: value heads x key dim x value dim, convolution over q, k and v."""

    num_k_heads: int
    num_v_heads: int
    head_k_dim: int
    head_v_dim: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class KimiDeltaState:
    """KDA: ``num_heads`` states of head_dim x head_dim, convolutions over q, k and v."""

    num_heads: int
    head_dim: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class LightningState:
    """Lightning (linear) attention: ``num_heads`` states of head_dim x head_dim, no convolution."""

    num_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class ShortConvState:
    """LFM2's short convolution: ``conv_kernel`` columns of ``hidden_size``."""

    hidden_size: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class RgLruState:
    """Griffin's RG-LRU: one recurrent row of ``lru_width`` and a convolution of ``conv_kernel``."""

    lru_width: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class RwkvState:
    """RWKV: ``num_model_dtype_rows`` rows in the model's dtype and fp32 elements.

    RWKV-4 keeps 2 rows of ``hidden_size`` in the model's dtype and 3 in fp32; RWKV-5 and later keep
    the two shift rows and a [num_heads, head_dim, head_dim] state.
    """

    hidden_size: int
    num_model_dtype_rows: int
    num_float32_elements: int


@dataclass(frozen=True, slots=True)
class XlstmState:
    """xLSTM's matrix memory: a head's [qk_head_dim, v_head_dim] matrix, a key row and a scalar."""

    num_heads: int
    qk_head_dim: int
    v_head_dim: int


RecurrentState = (
    Mamba1State
    | Mamba2State
    | GatedDeltaState
    | KimiDeltaState
    | LightningState
    | ShortConvState
    | RgLruState
    | RwkvState
    | XlstmState
)
RECURRENT_STATES = (
    Mamba1State,
    Mamba2State,
    GatedDeltaState,
    KimiDeltaState,
    LightningState,
    ShortConvState,
    RgLruState,
    RwkvState,
    XlstmState,
)

AttentionCache = (
    FullAttention
    | SlidingWindow
    | ChunkedAttention
    | LatentAttention
    | CompressedAttention
    | CrossAttention
    | SharedCache
)

Cache = AttentionCache | RecurrentState

KIND_NAMES: dict[type, str] = {
    FullAttention: "full_attention",
    SlidingWindow: "sliding_window",
    ChunkedAttention: "chunked_attention",
    LatentAttention: "latent_attention",
    CompressedAttention: "compressed_attention",
    CrossAttention: "cross_attention",
    SharedCache: "shared_cache",
    Mamba1State: "mamba",
    Mamba2State: "mamba2",
    GatedDeltaState: "gated_delta_net",
    KimiDeltaState: "kimi_delta_attention",
    LightningState: "lightning_attention",
    ShortConvState: "short_conv",
    RgLruState: "rg_lru",
    RwkvState: "rwkv",
    XlstmState: "xlstm",
}


def kind_name(cache: Cache) -> str:
    """Return the cache's kind as reports and JSON spell it."""
    return KIND_NAMES[type(cache)]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: what it caches and what it stores."""

    caches: tuple[Cache, ...]
    tensors: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """``count`` identical layers in a row."""

    layer: Layer
    count: int


def run_lengths(layers: Sequence[Layer]) -> tuple[LayerGroup, ...]:
    """Encode a list of layers as runs of equal ones, keeping their order."""
    groups: list[LayerGroup] = []
    for layer in layers:
        if groups and (groups[-1].layer is layer or groups[-1].layer == layer):
            groups[-1] = LayerGroup(layer, groups[-1].count + 1)
        else:
            groups.append(LayerGroup(layer, 1))
    return tuple(groups)


def expand(groups: Iterable[LayerGroup]) -> tuple[Layer, ...]:
    """Return the layers one by one, in order."""
    return tuple(group.layer for group in groups for _ in range(group.count))
