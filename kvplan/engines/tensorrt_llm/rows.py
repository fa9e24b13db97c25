"""One token's row in one layer under TensorRT-LLM, by kind and cache dtype.

TensorRT-LLM main of 2026 _torch/pyexecutor/resource_manager.py (get_cache_size_per_token,
get_cache_bytes_per_token) and _torch/attention_backend/sparse/dsa.py (the indexer's keys).
"""

from kvplan.errors import UnknownFormat, did_you_mean
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
)
from kvplan.model import ModelSpec
from kvplan.units import ceil_div
from kvplan.workload import Workload

# Kinds with pools of their own that were not read.
NOT_ROWS = (CompressedAttention, CrossAttention, SharedCache)
FP4_BLOCK = 16
NAMES: dict[str, str] = {"fp16": "float16", "bf16": "bfloat16", "fp8_e4m3": "fp8", "fp4": "nvfp4"}
KNOWN = ("auto", "fp8", "nvfp4", "float16", "bfloat16")


def kv_dtype_of(model: ModelSpec, workload: Workload) -> str:
    """Return the cache's dtype: ``auto`` follows the checkpoint's own scheme, else the model.

    Raises UnknownFormat for what the PyTorch backend does not keep ("Cannot support ... KV cache").
    """
    if workload.kv_cache_dtype_k != workload.kv_cache_dtype_v:
        raise UnknownFormat(
            "TensorRT-LLM keeps keys and values in one format",
            why="kv_cache_config.dtype sets both",
            hint="use --kv with one format",
        )
    asked = workload.kv_cache_dtype_k
    name = NAMES.get(asked, asked)
    if name not in KNOWN:
        raise UnknownFormat(
            f"TensorRT-LLM has no KV cache format '{asked}'",
            why=did_you_mean(asked, KNOWN) or f"it takes {', '.join(KNOWN)}",
            hint="name one of them, or the engine that has it: kvplan list engines",
        )
    if name != "auto":
        return name
    own = (model.quantization.kv_cache_dtype if model.quantization else None) or ""
    if own.startswith("fp8"):
        return "fp8"
    if own.startswith("nvfp4"):
        return "nvfp4"
    return model.dtype if model.dtype in ("float16", "bfloat16") else "bfloat16"


def window_of(cache: Cache) -> int:
    """Return the tokens a layer attends to, 0 where it is all of them."""
    match cache:
        case SlidingWindow():
            return cache.sliding_window
        case ChunkedAttention():
            return cache.attention_chunk_size
    return 0


def row_bytes(cache: Cache, kv_dtype: str, ranks: int) -> int:
    """Return one layer's bytes of a token on one rank.

    Heads are divided upwards, so that each rank keeps at least one; values are as wide as keys;
    latent rows are replicated and the indexer adds fp8 keys with an fp32 scale per 128.
    """
    match cache:
        case LatentAttention():
            row = _packed(cache.kv_lora_rank + cache.qk_rope_head_dim, kv_dtype)
            if cache.index_head_dim:
                row += cache.index_head_dim + cache.index_head_dim // 128 * 4
            return row
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            return _packed(2 * ceil_div(cache.num_key_value_heads, ranks) * cache.head_dim, kv_dtype)
    return 0


def _packed(elements: int, kv_dtype: str) -> int:
    if kv_dtype == "fp8":
        return elements
    if kv_dtype == "nvfp4":
        return ceil_div(elements, 2) + ceil_div(elements, FP4_BLOCK)
    return elements * 2
