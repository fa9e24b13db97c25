"""llama.cpp's tensors: one K and one V of cells a layer, states in fp32.

llama.cpp 0c1e57098 src/llama-kv-cache.cpp (``ggml_new_tensor_3d(n_embd_k_gqa, kv_size, n_stream)``),
src/llama-kv-cache-dsa.cpp (an indexer's keys apart), src/llama-memory-recurrent.cpp, ggml-cuda.cu
(``ggml_backend_cuda_buffer_type_get_alloc_size`` pads the last row of a quantized tensor to 512 values;
tensors start at multiples of 128 bytes).
"""

from collections import Counter

from kvplan.engines.base import Plan
from kvplan.engines.llama_cpp.cache import Cells, cells_of, value_width_of, window_of
from kvplan.engines.llama_cpp.placement import layout_of
from kvplan.gguf.names import llama_cpp_arch
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
    kind_name,
)
from kvplan.model import cache_kinds, expand_layers
from kvplan.units import round_up
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup, with_planned
from kvplan.verify.state_tensors import StateTypes, state_tensors
from kvplan.verify.storage import TensorShape, rows

ROW_PADDING = 512
ALIGNMENT = 128
STATE_TYPES = StateTypes("float32", "float32", "float32", "float32")


def layout(plan: Plan) -> CacheLayout:
    """Return the tensors of one context, as they lie on CUDA devices and in system memory."""
    model = plan.model
    settings = dict(plan.engine_options)
    window = window_of(cache_kinds(model), llama_cpp_arch(model))
    cells = cells_of(
        _int(settings["n_ctx"]),
        _int(settings["n_parallel"]),
        _int(settings["n_ubatch"]),
        window,
        kv_unified=bool(settings["kv_unified"]),
        swa_full=bool(settings["swa_full"]),
    )
    groups = tuple(
        LayoutGroup(
            kind_name(cache),
            count,
            _tensors(cache, plan, cells, honours_window=window > 0, on_device=on_device),
        )
        for (cache, on_device), count in _places(plan).items()
    )
    return with_planned(plan, groups, _int(settings["n_parallel"]))


def _places(plan: Plan) -> Counter[tuple[Cache, bool]]:
    """Count the layers' caches by whether they lie in CUDA's buffers: the last layers' do."""
    settings = dict(plan.engine_options)
    cards = [each.device for each in plan.devices if each.device.kind == "gpu"]
    layers = expand_layers(plan.model)
    first = len(layers)
    if cards and layout_of(cards[0]) == "cuda" and settings["kv_offload"]:
        first = max(0, len(layers) + 1 - _int(settings["n_gpu_layers"]))
    return Counter((cache, index >= first) for index, layer in enumerate(layers) for cache in layer.caches)


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _tensors(
    cache: Cache, plan: Plan, cells: Cells, *, honours_window: bool, on_device: bool
) -> tuple[TensorShape, ...]:
    key, value = plan.kv_dtype_k, plan.kv_dtype_v
    match cache:
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            windowed = honours_window and not isinstance(cache, FullAttention)
            held = cells.window if windowed else cells.full
            heads = cache.num_key_value_heads
            # Without flash attention all layers' values are as wide as the widest layer's.
            flash_attn = bool(dict(plan.engine_options)["flash_attn"])
            width = value_width_of(cache_kinds(plan.model), flash_attn=flash_attn) or heads * cache.v_head_dim
            return (
                *_rows("keys", key, heads * cache.head_dim, held, cells, on_device=on_device),
                *_rows("values", value, width, held, cells, on_device=on_device),
            )
        case LatentAttention():
            width = cache.kv_lora_rank + cache.qk_rope_head_dim
            latents = _rows("latents", key, width, cells.full, cells, on_device=on_device)
            if not cache.index_head_dim:
                return latents
            index = _rows("index keys", key, cache.index_head_dim, cells.full, cells, on_device=on_device)
            return (*latents, *index)
        case SharedCache():
            return ()
    return state_tensors(cache, cells.num_sequences, STATE_TYPES)


def _rows(
    name: str, type_name: str, width: int, held: int, cells: Cells, *, on_device: bool
) -> tuple[TensorShape, ...]:
    tensors = rows(name, type_name, (cells.num_streams, held), width)
    if not on_device:
        return tensors
    num_bytes = sum(tensor.num_bytes for tensor in tensors)
    padded = num_bytes
    if len(tensors) > 1 and width % ROW_PADDING:
        # Kernels read whole rows of 512: the last one needs something behind it.
        missing = rows(name, type_name, (1,), ROW_PADDING - width % ROW_PADDING)
        padded += sum(tensor.num_bytes for tensor in missing)
    padded = round_up(padded, ALIGNMENT)
    if padded == num_bytes:
        return tensors
    return (*tensors, TensorShape(f"{name} padding", "uint8", (padded - num_bytes,)))
