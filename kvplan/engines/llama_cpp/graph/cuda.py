"""Which operations CUDA has a kernel for, as far as llama.cpp's graphs meet the limits.

ggml/src/ggml-cuda/ggml-cuda.cu ggml_backend_cuda_device_supports_op and fattn.cu
ggml_cuda_get_best_fattn_kernel, for cards with tensor cores (Turing and later).
"""

from kvplan.engines.ggml.tensor import Tensor

ALIGNMENT = 128
HOST_ALIGNMENT = 32
CELL_STRIDE = 256
# ggml-cuda.cu MATRIX_ROW_PADDING: a quantized tensor with shorter last rows has room for a whole one.
ROW_PADDING = 512
SAME_SIZED_HEADS = frozenset((40, 64, 72, 80, 96, 112, 128, 256, 512))
CACHE_TYPES = frozenset(("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"))
# Sizes of key and value heads that differ -> the query heads per KV head the kernel works in.
UNEQUAL_HEADS = {(192, 128): 8, (320, 256): 32, (576, 512): 2}

# lightning-indexer.cu: the size and the numbers of heads it takes.
INDEXER_HEAD, INDEXER_HEADS = 128, (32, 64)


def has_kernel(tensor: Tensor) -> bool:
    """Tell whether CUDA runs the operation."""
    match tensor.op:
        case "flash_attn":
            query, key, value = tensor.src[:3]
            return flash_attention_runs(
                key.ne[0], value.ne[0], query.ne[2] // key.ne[2], key.ne[1], key.type, value.type
            )
        case "ssm_scan":
            state, decay = tensor.src[0], tensor.src[3]
            return has_scan_kernel(*state.ne[:3], decay.ne[0] == 1)
        case "mul_mat_id_f32":
            return False
        case "lightning_indexer":
            query, key = tensor.src[:2]
            return query.ne[0] == INDEXER_HEAD and query.ne[1] in INDEXER_HEADS and key.type in CACHE_TYPES
        case "ssm_conv":
            return has_conv_kernel(tensor.src[0].ne[1])
    return True


def has_scan_kernel(state_size: int, head_dim: int, num_heads: int, is_second: bool, /) -> bool:
    """Tell whether CUDA scans states of this shape, of Mamba-1 or the second."""
    if is_second:
        return state_size in (96, 128, 256) and head_dim % 16 == 0
    return state_size == 16 and head_dim == 1 and num_heads % 128 == 0


def has_conv_kernel(channels: int) -> bool:
    """Tell whether CUDA convolves this many channels."""
    return channels % 128 == 0


def flash_attention_runs(
    key_dim: int, value_dim: int, queries_per_head: int, num_cells: int, type_k: str, type_v: str
) -> bool:
    """Tell whether a fused attention kernel takes heads and caches like these."""
    if type_k not in CACHE_TYPES or type_v not in CACHE_TYPES:
        return False
    grouped = queries_per_head >= 2 and num_cells % CELL_STRIDE == 0
    if key_dim == value_dim:
        return key_dim in SAME_SIZED_HEADS and (key_dim != 512 or grouped)
    every = UNEQUAL_HEADS.get((key_dim, value_dim))
    if every is None or not grouped:
        return False
    return every == 2 or queries_per_head % every == 0
