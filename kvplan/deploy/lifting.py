"""What an engine's own options mean in kvplan's words: context, parallelism, cache formats."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from kvplan.workload import ContextSource, Workload

# An engine's option -> (kvplan's flag, workload field).
LIFTED: dict[str, tuple[str, str]] = {
    "max_model_len": ("--ctx", "context_tokens"),
    "context_length": ("--ctx", "context_tokens"),
    "max_seq_len": ("--ctx", "context_tokens"),
    "session_len": ("--ctx", "context_tokens"),
    "tensor_parallel_size": ("--tp", "tensor_parallel"),
    "tp_size": ("--tp", "tensor_parallel"),
    "tp": ("--tp", "tensor_parallel"),
    "num_shard": ("--tp", "tensor_parallel"),
    "pipeline_parallel_size": ("--pp", "pipeline_parallel"),
    "pp_size": ("--pp", "pipeline_parallel"),
    "kv_cache_dtype": ("--kv", "kv_cache_dtype_k"),
    # What these mean depends on the engine's other flags: it reads them itself.
    "ctx_size": ("--ctx", ""),
    "num_ctx": ("--ctx", ""),
    "parallel": ("--batch", ""),
    "num_parallel": ("--batch", ""),
    "kv_cache_type": ("--kv", ""),
    "quant_policy": ("--kv", ""),
    "cache_type_k": ("--kv-k", "kv_cache_dtype_k"),
    "cache_type_v": ("--kv-v", "kv_cache_dtype_v"),
}


def lift(workload: Workload, name: str, value: object, source: ContextSource = "flag") -> Workload:
    """Return the workload with one engine option put where kvplan keeps it; others leave it as it is."""
    if name not in LIFTED:
        return workload
    field = LIFTED[name][1]
    if not field:
        return workload
    if field == "context_tokens":
        tokens = cast(int, value)
        return workload if tokens <= 0 else replace(workload, context_tokens=tokens, context_source=source)
    if name == "kv_cache_dtype":
        text = str(value).casefold()
        return replace(workload, kv_cache_dtype_k=text, kv_cache_dtype_v=text)
    if field == "kv_cache_dtype_k":
        return replace(workload, kv_cache_dtype_k=str(value).casefold())
    if field == "kv_cache_dtype_v":
        return replace(workload, kv_cache_dtype_v=str(value).casefold())
    if field == "tensor_parallel":
        return replace(workload, tensor_parallel=cast(int, value))
    return replace(workload, pipeline_parallel=cast(int, value))


def lift_all(
    workload: Workload, options: Iterable[tuple[str, object]], source: ContextSource = "flag"
) -> Workload:
    """Lift every option of an engine's command line."""
    for name, value in options:
        workload = lift(workload, name, value, source)
    return workload
