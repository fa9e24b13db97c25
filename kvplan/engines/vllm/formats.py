"""vLLM: which weight and cache formats it takes, and what a generic name becomes.

vLLM 0.33 config/cache.py (CacheDType), model_executor/layers/quantization (weight formats).
"""

from kvplan.engines.base import Notice, not_loaded
from kvplan.engines.vllm.attention import sparse_latent, sparse_row_dtype
from kvplan.engines.vllm.kv_dtypes import DS_MLA_ROW_BYTES, KV_DTYPES, TURBOQUANT
from kvplan.engines.vllm.settings import model_dtype
from kvplan.errors import UnknownFormat, did_you_mean
from kvplan.layers import CompressedAttention, LatentAttention
from kvplan.model import ModelSpec, cache_kinds
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, served_format_name
from kvplan.workload import Workload

# Generic names and what vLLM calls them.
GENERIC: dict[str, str] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
    "int8": "int8_per_token_head",
    "int4": "int4_per_token_head",
    "fp8_e4m3fn": "fp8_e4m3",
}
KV_NAMES: tuple[str, ...] = ("auto", *KV_DTYPES, *TURBOQUANT, *GENERIC)
WEIGHT_FAMILIES = ("plain", "fp8", "int8", "int4", "bnb", "fp4")
FOREIGN_FAMILIES = ("mlx", "exl")
TAKEN = "16-bit, fp8, int8, AWQ, GPTQ, bitsandbytes, MXFP4 and NVFP4 (GGUF experimentally)"


# What ``--quantization`` makes of an unquantized checkpoint while it loads.
QUANTIZED_WHILE_LOADING: dict[str, str] = {"fp8": "fp8", "bitsandbytes": "nf4"}


def weights_format_of(model: ModelSpec, workload: Workload) -> str:
    """Return the weights' format: the asked one, what the flags convert to, else the published one."""
    if workload.weights_format is None and model.quantization is None:
        converted = QUANTIZED_WHILE_LOADING.get(str(workload.option("quantization")))
        if converted:
            return format_name_of(model, converted)
        dtype = model_dtype(model, workload)
        if dtype == "float32" and weight_format(model.weights_format).family == "plain":
            return format_name_of(model, "fp32")
        return served_format_name(model, None, dtype)
    return format_name_of(model, workload.weights_format)


def check_weights(format_name: str) -> None:
    """Raise UnknownFormat for weights that vLLM does not load."""
    if weight_format(format_name).family in FOREIGN_FAMILIES:
        raise not_loaded("vLLM", format_name, TAKEN)


def kv_dtype_of(
    model: ModelSpec, workload: Workload, device_generation: int, version: tuple[int, int]
) -> tuple[str, tuple[Notice, ...]]:
    """Return vLLM's cache dtype and a notice where a generic name was mapped.

    ``auto`` follows the checkpoint's own cache scheme, else the model. Raises UnknownFormat for what
    vLLM lacks and for a packed latent row on a model without latents.
    """
    if workload.kv_cache_dtype_k != workload.kv_cache_dtype_v:
        raise UnknownFormat(
            f"vLLM keeps keys and values in one format, not {workload.kv_cache_dtype_k} and "
            f"{workload.kv_cache_dtype_v}",
            why="--kv-cache-dtype sets both",
            hint="use --kv with one format",
        )
    asked = workload.kv_cache_dtype_k
    name = GENERIC.get(asked, asked)
    notices: tuple[Notice, ...] = ()
    if name != asked and asked in ("int8", "int4"):
        notices = (Notice("kv-format-mapped", f"{asked} is vLLM's {name}"),)
    is_sparse = sparse_latent(model)
    if name == "auto":
        own = model.quantization.kv_cache_dtype if model.quantization else None
        name = own or ("auto" if is_sparse else model_dtype(model, workload))
    if name != "auto" and name not in KV_DTYPES and name not in TURBOQUANT:
        raise UnknownFormat(
            f"vLLM has no KV cache format '{asked}'",
            why=did_you_mean(asked, KV_NAMES) or f"it takes {', '.join(KV_NAMES[:11])}",
            hint="name one of them, or the engine that has it: kvplan list engines",
        )
    _check_latent(model, asked, name)
    if is_sparse:
        name, more = sparse_row_dtype(model, name, device_generation, version)
        notices += more
    if any(isinstance(cache, CompressedAttention) for cache, _ in cache_kinds(model)):
        name = "fp8_ds_mla"
    return name, notices


def _check_latent(model: ModelSpec, asked: str, name: str) -> None:
    """Refuse formats that only latent attention has, and those it lacks.

    vLLM 0.33 ``supported_kv_cache_dtypes`` of v1/attention/backends/mla: none has a per-token-head format.
    """
    kinds = [cache for cache, _ in cache_kinds(model)]
    has_latent = any(isinstance(cache, LatentAttention | CompressedAttention) for cache in kinds)
    if name in DS_MLA_ROW_BYTES and not has_latent:
        raise UnknownFormat(
            f"{asked} is a row of latent attention, which {model.name} does not have",
            why="vLLM's packed DS-MLA rows hold a latent and its rope part",
            hint="use --kv fp8",
        )
    packs_heads = name in KV_DTYPES and KV_DTYPES[name].per_token_head
    is_plain_nvfp4 = name.startswith("nvfp4") and name not in DS_MLA_ROW_BYTES
    if has_latent and (name in TURBOQUANT or packs_heads or is_plain_nvfp4):
        raise UnknownFormat(
            f"vLLM has no {asked} for latent attention",
            why="no MLA backend takes it: 16-bit, fp8 and the packed fp8_ds_mla and nvfp4_ds_mla rows",
            hint="use --kv fp8",
        )
