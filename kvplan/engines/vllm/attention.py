"""vLLM: which attention backend runs, as far as it shapes the cache: block size and row format.

vLLM 0.33 platforms/cuda.py ``_get_backend_priorities`` and the backends' ``supported_kv_cache_dtypes``
and ``get_supported_kernel_block_sizes`` under v1/attention/backends/mla. The generation is the major
number of the device's compute capability, 0 where no device is named.
"""

from functools import lru_cache

from kvplan.engines.base import Notice, Refusal
from kvplan.engines.vllm.groups import DEFAULT_BLOCK_SIZE
from kvplan.engines.vllm.kv_dtypes import DS_MLA_ROW_BYTES
from kvplan.engines.vllm.pages import COMPRESSED_BLOCK_SIZE
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    CompressedAttention,
    FullAttention,
    GatedDeltaState,
    LatentAttention,
)
from kvplan.model import ModelSpec, cache_kinds

HOPPER, BLACKWELL, CONSUMER_BLACKWELL = 9, 10, 12
SPARSE_GENERATIONS = (HOPPER, BLACKWELL, CONSUMER_BLACKWELL)
FLASHMLA_BLOCK, FLASHINFER_MLA_BLOCK, INDEX_KEY_BLOCK = 64, 32, 128
# Heads from which a deployment on Hopper is taken to run on FlashMLA's pages of 64, before that is known.
MANY_HEADS, FLASH_ATTN_MLA_SINCE = 64, (0, 28)
# FlashAttention 4 reads fp8 of such heads in tiles of 64 tokens on Hopper (backends/flash_attn.py).
WIDE_HEAD_DIM, WIDE_FP8_BLOCK, WIDE_FP8_SINCE = 512, 64, (0, 31)
PLAIN_16_BIT = ("bfloat16", "float16")


def generation(compute_capability: str) -> int:
    """Return the major number of a compute capability such as ``9.0``; 0 where there is none."""
    major = compute_capability.partition(".")[0]
    return int(major) if major.isdigit() else 0


@lru_cache(maxsize=1024)
def follows_generation(model: ModelSpec) -> bool:
    """Tell whether kernels differ from one generation of cards to the next.

    Those of latents, of gated DeltaNet and of wide heads do.
    """
    return any(
        isinstance(cache, LatentAttention | GatedDeltaState) or _head_dim(cache) == WIDE_HEAD_DIM
        for cache, _ in cache_kinds(model)
    )


def _head_dim(cache: Cache) -> int:
    return cache.head_dim if isinstance(cache, FullAttention) else 0


def sparse_latent(model: ModelSpec) -> bool:
    """Tell whether the model picks among latent rows by an indexer (DeepSeek-V3.2, GLM-5)."""
    return any(isinstance(cache, LatentAttention) and cache.index_head_dim for cache, _ in cache_kinds(model))


def default_block_size(model: ModelSpec, device_generation: int, dtype: str, version: tuple[int, int]) -> int:
    """Return the block in tokens that all of the model's backends accept, before hybrids align it."""
    kinds = [cache for cache, _ in cache_kinds(model)]
    if any(isinstance(cache, CompressedAttention) for cache in kinds):
        return COMPRESSED_BLOCK_SIZE
    if any(isinstance(cache, FullAttention) and cache.index_head_dim for cache in kinds):
        return INDEX_KEY_BLOCK
    if (
        device_generation == HOPPER
        and dtype in ("fp8", "fp8_e4m3")
        and version >= WIDE_FP8_SINCE
        and any(_head_dim(cache) == WIDE_HEAD_DIM for cache in kinds)
    ):
        return WIDE_FP8_BLOCK
    latent = next((cache for cache in kinds if isinstance(cache, LatentAttention)), None)
    if latent is None or any(isinstance(cache, RECURRENT_STATES) for cache in kinds):
        return DEFAULT_BLOCK_SIZE
    if any(isinstance(cache, LatentAttention) and cache.index_head_dim for cache in kinds):
        return FLASHMLA_BLOCK
    if device_generation == BLACKWELL:
        return FLASHINFER_MLA_BLOCK
    if device_generation not in (0, HOPPER):
        return DEFAULT_BLOCK_SIZE
    if device_generation == HOPPER and version >= FLASH_ATTN_MLA_SINCE:
        # FlashAttention comes first and takes 16 bits alone, FlashMLA the rest.
        return DEFAULT_BLOCK_SIZE if dtype in PLAIN_16_BIT else FLASHMLA_BLOCK
    # FlashMLA's pages of 64, or FlashAttention's of 16: it only rounds a request up.
    return FLASHMLA_BLOCK if latent.num_attention_heads >= MANY_HEADS else DEFAULT_BLOCK_SIZE


def sparse_row_dtype(
    model: ModelSpec, asked: str, device_generation: int, version: tuple[int, int]
) -> tuple[str, tuple[Notice, ...]]:
    """Return the format of a sparse latent row for ``asked`` (resolved, or ``auto``), and why.

    Hopper keeps 16-bit rows unless fp8 is asked, data-centre Blackwell plain fp8, consumer Blackwell
    the packed row. Without a device, and before 0.33, the packed row of 656 B is planned.
    """
    if asked in DS_MLA_ROW_BYTES:
        return asked, ()
    packed = Notice("kv-format-mapped", "sparse latent attention keeps fp8_ds_mla rows of 656 B")
    if not device_generation or version < (0, 33):
        if asked == "fp8_e4m3":
            return asked, ()
        if not device_generation and asked == "auto":
            text = f"{packed.message}; on H100 and H200 vLLM 0.33 keeps bf16 rows unless --kv fp8 is given"
            packed = Notice(packed.code, text)
        return "fp8_ds_mla", (packed,)
    is_auto = asked == "auto"
    if device_generation == BLACKWELL:
        if is_auto and model.model_type == "glm_moe_dsa":
            return "fp8_e4m3", (Notice("kv-format-mapped", "GLM's sparse attention defaults to fp8 there"),)
        return ("bfloat16" if is_auto else asked), ()
    if device_generation == HOPPER and (is_auto or asked in PLAIN_16_BIT):
        return "bfloat16", ()
    return "fp8_ds_mla", (packed,)


def backend_refusals(model: ModelSpec, device_generation: int) -> tuple[Refusal, ...]:
    """Return why no attention backend takes the model on this device, if none does."""
    if device_generation and sparse_latent(model) and device_generation not in SPARSE_GENERATIONS:
        return (
            Refusal(
                "no-attention-backend",
                "No valid attention backend found for cuda with sparse latent attention on "
                f"compute capability {device_generation}.x",
                "a Hopper or Blackwell GPU",
            ),
        )
    return ()
