"""TensorRT-LLM's flags and the keys of its options file.

Source: TensorRT-LLM main of 2026 commands/serve.py (click options, underscores) and
llmapi/llm_args.py (KvCacheConfig, LoraConfig, PeftCacheConfig, the decoding configs). ``--config`` (or
``--extra_llm_api_options``) names a YAML file whose keys overrule the flags; ``YAML_OPTIONS`` says which
option each key sets.
"""

from kvplan.deploy.flags.readers import Flag, mapping, share, whole, word, words

# Settings whose effect on memory is not planned (engines/tensorrt_llm/unplanned.py says what they do).
_SWITCHES = (
    "use_uvm use_kv_cache_manager_v2 enable_lm_head_tp_in_adp force_dynamic_quantization "
    "gather_generation_logits mm_encoder_only"
)
_OBJECTS = (
    "kv_connector_config cache_transceiver_config sparse_attention_config cuda_graph_config "
    "torch_compile_config cp_config model_kwargs quant_config moe_config extended_runtime_perf_knob_config"
)
_LISTS = "max_attention_window pp_partition"
_VALUES = "sink_token_length cross_kv_cache_fraction mamba_ssm_cache_dtype moe_tensor_parallel_size"
UNPLANNED: tuple[Flag, ...] = (
    *(((f"--{name}",), name, None) for name in _SWITCHES.split()),
    *(((f"--{name}",), name, mapping) for name in _OBJECTS.split()),
    *(((f"--{name}",), name, words) for name in _LISTS.split()),
    *(((f"--{name}",), name, word) for name in _VALUES.split()),
)

FLAGS: tuple[Flag, ...] = (
    (("--backend",), "backend", word),
    (("--max_seq_len",), "max_seq_len", whole),
    (("--max_batch_size",), "max_batch_size", whole),
    (("--max_num_tokens",), "max_num_tokens", whole),
    (("--max_beam_width",), "max_beam_width", whole),
    (("--tp_size", "--tensor_parallel_size"), "tp_size", whole),
    (("--pp_size", "--pipeline_parallel_size"), "pp_size", whole),
    (("--cp_size", "--context_parallel_size"), "cp_size", whole),
    (("--ep_size", "--moe_expert_parallel_size"), "ep_size", whole),
    (
        (
            "--free_gpu_memory_fraction",
            "--kv_cache_free_gpu_memory_fraction",
            "--kv_cache_config.free_gpu_memory_fraction",
        ),
        "free_gpu_memory_fraction",
        share,
    ),
    (("--kv_cache_dtype", "--kv_cache_config.dtype"), "kv_cache_dtype", word),
    (("--max_tokens", "--kv_cache_config.max_tokens"), "max_tokens", whole),
    (("--tokens_per_block", "--kv_cache_config.tokens_per_block"), "tokens_per_block", whole),
    (("--host_cache_size", "--kv_cache_config.host_cache_size"), "host_cache_size", whole),
    (
        ("--max_gpu_total_bytes", "--kv_cache_config.max_gpu_total_bytes"),
        "max_gpu_total_bytes",
        whole,
    ),
    (("--speculative_config",), "speculative_config", mapping),
    (("--lora_config",), "lora_config", mapping),
    (("--peft_cache_config",), "peft_cache_config", mapping),
    (("--enable_lora",), "enable_lora", None),
    (("--enable_attention_dp",), "enable_attention_dp", None),
    (("--enable_chunked_prefill",), "enable_chunked_prefill", None),
    (("--config", "--extra_llm_api_options"), "extra_llm_api_options", word),
    *UNPLANNED,
)

# Dotted key of the options file -> the option it sets.
YAML_OPTIONS: dict[str, str] = {
    "kv_cache_config.free_gpu_memory_fraction": "free_gpu_memory_fraction",
    "kv_cache_config.max_tokens": "max_tokens",
    "kv_cache_config.dtype": "kv_cache_dtype",
    "kv_cache_config.max_gpu_total_bytes": "max_gpu_total_bytes",
    "kv_cache_config.tokens_per_block": "tokens_per_block",
    "kv_cache_config.host_cache_size": "host_cache_size",
    "kv_cache_config.enable_block_reuse": "enable_block_reuse",
    "max_seq_len": "max_seq_len",
    "max_batch_size": "max_batch_size",
    "max_num_tokens": "max_num_tokens",
    "max_beam_width": "max_beam_width",
    "backend": "backend",
    "speculative_config": "speculative_config",
    "lora_config": "lora_config",
    "peft_cache_config": "peft_cache_config",
    "enable_lora": "enable_lora",
    "context_parallel_size": "cp_size",
    "tensor_parallel_size": "tp_size",
    "pipeline_parallel_size": "pp_size",
    "moe_expert_parallel_size": "ep_size",
    "enable_attention_dp": "enable_attention_dp",
    "enable_chunked_prefill": "enable_chunked_prefill",
}
