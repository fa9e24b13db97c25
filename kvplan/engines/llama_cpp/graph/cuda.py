"""Which operations CUDA has a kernel for, as far as llama.cpp's graphs meet the limits.

ggml/src/ggml-cuda/ggml-cuda.cu ggml_backend_cuda_device_supports_op and fattn.cu
ggml_cuda_get_best_fattn_kernel, for cards with tensor cores (Turing and later).
"""

from kvplan.engines.ggml.tensor import F16, Tensor
from kvplan.units import round_up

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
            if decay.ne[0] == 1:
                return state.ne[0] in (96, 128, 256) and state.ne[1] % 16 == 0
            return state.ne[0] == 16 and state.ne[1] == 1 and state.ne[2] % 128 == 0
        case "mul_mat_id_f32":
            return False
        case "lightning_indexer":
            query, key = tensor.src[:2]
            return query.ne[0] == INDEXER_HEAD and query.ne[1] in INDEXER_HEADS and key.type in CACHE_TYPES
        case "ssm_conv":
            return tensor.src[0].ne[1] % 128 == 0
    return True


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


def scratch_bytes(attention: Tensor) -> int:
    """Return the fp16 copies of a quantized cache that a fused attention reads, behind its result.

    fattn-common.cuh ggml_cuda_flash_attn_ext_get_f16_extra_data; with two tokens or fewer the vector
    kernel reads quantized caches as they are. Values that are a part of the keys have no copy of their
    own, but where both were brought from elsewhere they are two tensors.
    """
    k, v = attention.src[1:3]
    if attention.ne[2] <= 2 and k.ne[0] <= 256:
        return 0
    end = attention.num_bytes
    if k.type != F16:
        end = round_up(end, ALIGNMENT) + 2 * k.num_elements
    if v.type != F16 and (v.view_src is None or v.view_src is not k.view_src):
        end = round_up(end, ALIGNMENT) + 2 * v.num_elements
    return end - attention.num_bytes
