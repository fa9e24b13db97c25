"""Weights of recurrent layers that stay in system memory: cards have no kernel for their shape.

llama.cpp asks a backend for each weight whether it runs the operation that reads it
(src/llama-model-loader.cpp weight_buft_supported), and the CPU takes what CUDA does not run
(ggml-cuda.cu ggml_backend_cuda_device_supports_op, SSM_SCAN and SSM_CONV).
"""

from functools import lru_cache

from kvplan.engines.llama_cpp.graph.cuda import has_conv_kernel, has_scan_kernel
from kvplan.gguf.mix import allocated_bytes
from kvplan.layers import Layer, Mamba1State, Mamba2State

FLOAT = 4
# src/models/plamo2.cpp: the decays are a row there, which the loader takes for a state's size.
ROW_OF_DECAYS = frozenset(("plamo2",))


@lru_cache(maxsize=1024)
def kept_in_ram(layer: Layer, arch: str) -> tuple[int, int]:
    """Return the bytes that a card is spared and those that system memory holds instead."""
    spared = held = 0
    for cache in layer.caches:
        for num_columns, num_elements in _unsupported(cache, arch):
            spared += allocated_bytes("f32", num_columns, FLOAT * num_elements, "cuda")
            held += allocated_bytes("f32", num_columns, FLOAT * num_elements, "cpu")
    return spared, held


def _unsupported(cache: object, arch: str) -> list[tuple[int, int]]:
    """Return (columns, elements) of the decays and the convolution where CUDA has no kernel for them."""
    match cache:
        case Mamba1State():
            inner = channels = cache.intermediate_size
            scan = (cache.state_size, 1, inner, False)
            decays = (cache.state_size, cache.state_size * inner)
        case Mamba2State():
            inner = cache.num_heads * cache.head_dim
            channels = inner + 2 * cache.n_groups * cache.state_size
            scan = (cache.state_size, cache.head_dim, cache.num_heads, True)
            decays = (1, cache.num_heads)
        case _:
            return []
    found = []
    if arch in ROW_OF_DECAYS or not has_scan_kernel(*scan):
        found.append(decays)
    if not has_conv_kernel(channels):
        found.append((cache.conv_kernel, cache.conv_kernel * channels))
    return found
