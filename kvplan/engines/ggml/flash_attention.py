"""What CUDA's fused attention allocates behind its result.

ggml/src/ggml-cuda/fattn-common.cuh ggml_cuda_flash_attn_ext_get_f16_extra_data.
"""

from kvplan.engines.ggml.tensor import F16, Tensor
from kvplan.units import round_up

ALIGNMENT = 128
# With so few tokens the vector kernel reads quantized caches as they are, for keys up to this size.
FEW_TOKENS, VECTOR_KEY_DIM = 2, 256


def half_precision_bytes(node: Tensor) -> int:
    """Return the bytes of the fp16 copies of a cache in another type.

    Values that are a part of the keys (MLA) are converted with them, unless both were copied to the
    card, each on its own.
    """
    _, key, value, *_ = node.src
    if node.ne[2] <= FEW_TOKENS and key.ne[0] <= VECTOR_KEY_DIM:
        return 0
    end = node.num_bytes
    if key.type != F16:
        end = round_up(end, ALIGNMENT) + 2 * key.num_elements
    is_part = value.view_src is not None and value.view_src is key.view_src
    if value.type != F16 and not is_part:
        end = round_up(end, ALIGNMENT) + 2 * value.num_elements
    return end - node.num_bytes
