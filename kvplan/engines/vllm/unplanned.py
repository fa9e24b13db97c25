"""vLLM: flags that change memory in ways that are not planned, each said with a notice.

Source: the help of each flag in vLLM 0.33 engine/arg_utils.py and config/.
"""

from kvplan.engines.base import Notice
from kvplan.workload import Workload

# Flag -> what it does.
NOT_PLANNED: dict[str, str] = {
    "kv_transfer_config": "a KV connector's buffers",
    "enable_eplb": "redundant experts",
    "num_redundant_experts": "redundant experts",
    "prefill_context_parallel_size": "prefill context parallelism",
    "disable_sliding_window": "windows cut to the context",
    "hf_overrides": "a changed config",
    "rope_scaling": "a changed rope",
    "mm_processor_kwargs": "changed image sizes",
    "mm_encoder_only": "the language model left out",
    "video_pruning_rate": "fewer tokens a video",
    "quantization_config": "weights quantized while they load",
    "use_replayssm": "recurrent states kept as inputs",
    "enable_mamba_shared_prefix_checkpoint": "states kept for shared prefixes",
    "offload_group_size": "layers kept in system memory by groups",
    "cpu_offload_params": "parameters kept in system memory by name",
    "kv_cache_dtype_skip_layers": "the padding of layers kept wide (they are an interval)",
    "enable_dbo": "buffers of two overlapped batches",
    "ubatch_size": "buffers of overlapped batches",
    "enable_tower_connector_lora": "adapters of towers",
}
# Expert-parallel kernels with communication buffers of their own.
BUFFERED_BACKENDS = ("deepep", "pplx", "mori", "nixl")


def not_planned(workload: Workload) -> tuple[Notice, ...]:
    """Return a notice for every flag whose effect on memory is not planned."""
    found = [(name, what) for name, what in NOT_PLANNED.items() if workload.option(name)]
    backend = str(workload.option("all2all_backend") or "")
    if backend.startswith(BUFFERED_BACKENDS):
        found.append(("all2all_backend", f"the communication buffers of {backend}"))
    if workload.option("runner") in ("pooling", "embed", "embedding", "classify", "score", "reward"):
        found.append(("runner", "a pooler in the sampler's place"))
    attention = workload.option("attention_config")
    if isinstance(attention, dict) and attention.get("hisparse_config"):
        found.append(("attention_config", "a cache partly in system memory"))
    return tuple(
        Notice("flag-not-planned", f"--{name.replace('_', '-')}: {what} not counted") for name, what in found
    )
