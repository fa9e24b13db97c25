"""TensorRT-LLM: settings that change memory in ways that are not planned, each said with a notice.

Source: the fields of TensorRT-LLM 1.2 llmapi/llm_args.py (TorchLlmArgs, KvCacheConfig).
"""

from kvplan.engines.base import Notice
from kvplan.workload import Workload

# Setting -> what it does.
NOT_PLANNED: dict[str, str] = {
    "max_attention_window": "windows of another size",
    "sink_token_length": "tokens kept before a window",
    "use_uvm": "a cache in managed memory",
    "cross_kv_cache_fraction": "the share of cross attention",
    "mamba_ssm_cache_dtype": "recurrent states in another format",
    "use_kv_cache_manager_v2": "the second cache manager",
    "kv_connector_config": "a KV connector's buffers",
    "cache_transceiver_config": "buffers of transferred caches",
    "sparse_attention_config": "another indexer",
    "torch_compile_config": "compiled graphs",
    "moe_tensor_parallel_size": "experts divided over other ranks",
    "enable_lm_head_tp_in_adp": "an output projection divided over ranks",
    "pp_partition": "layers divided unevenly",
    "cp_config": "context parallelism",
    "model_kwargs": "a changed config",
    "quant_config": "weights quantized while they load",
    "force_dynamic_quantization": "weights quantized while they load",
    "gather_generation_logits": "logits kept for replies",
    "mm_encoder_only": "the language model left out",
    "extended_runtime_perf_knob_config": "CUDA graphs that are kept",
}
# Values that leave a setting to the engine.
DEFAULTS = ("auto", "-1")
# Setting -> its keys that change memory, what they do.
KEYS: dict[str, tuple[tuple[str, ...], str]] = {
    "cuda_graph_config": (("batch_sizes", "max_batch_size"), "CUDA graphs of other sizes"),
    "moe_config": (("load_balancer",), "redundant experts"),
}


def not_planned(workload: Workload) -> tuple[Notice, ...]:
    """Return a notice for every setting whose effect on memory is not planned."""
    found = [
        (name, what)
        for name, what in NOT_PLANNED.items()
        if (value := workload.option(name)) and str(value) not in DEFAULTS
    ]
    for name, (keys, what) in KEYS.items():
        config = workload.option(name)
        if isinstance(config, dict) and any(config.get(key) for key in keys):
            found.append((name, what))
    return tuple(Notice("flag-not-planned", f"{name}: {what} not counted") for name, what in found)
