"""vLLM's flags that touch memory. Source: vLLM 0.33 engine/arg_utils.py; old names from 0.6 to 0.12."""

from kvplan.deploy.flags.readers import Flag, human, mapping, mapping_or_level, share, whole, word

_MODEL: tuple[Flag, ...] = (
    (("--model",), "model", word),
    (("--dtype",), "dtype", word),
    (("--quantization", "-q"), "quantization", word),
    (("--hf-overrides",), "hf_overrides", word),
    (("--rope-scaling",), "rope_scaling", word),
    (("--rope-theta",), "rope_theta", word),
    (("--language-model-only",), "language_model_only", None),
    (("--no-language-model-only",), "!language_model_only", None),
    (("--limit-mm-per-prompt",), "limit_mm_per_prompt", mapping),
    (("--mm-processor-kwargs",), "mm_processor_kwargs", mapping),
    (("--skip-mm-profiling",), "skip_mm_profiling", None),
)
_CACHE: tuple[Flag, ...] = (
    (("--max-model-len",), "max_model_len", human),
    (("--gpu-memory-utilization", "-gmu"), "gpu_memory_utilization", share),
    (("--kv-cache-memory-bytes", "--kv-cache-memory"), "kv_cache_memory_bytes", human),
    (("--num-gpu-blocks-override",), "num_gpu_blocks_override", whole),
    (("--block-size",), "block_size", whole),
    (("--kv-cache-dtype",), "kv_cache_dtype", word),
    (("--mamba-ssm-cache-dtype",), "mamba_ssm_cache_dtype", word),
    (("--mamba-cache-dtype",), "mamba_cache_dtype", word),
    (("--mamba-block-size",), "mamba_block_size", whole),
    (("--mamba-cache-mode",), "mamba_cache_mode", word),
    (("--enable-prefix-caching",), "enable_prefix_caching", None),
    (("--no-enable-prefix-caching",), "!enable_prefix_caching", None),
    (("--disable-hybrid-kv-cache-manager",), "disable_hybrid_kv_cache_manager", None),
    (
        ("--no-disable-hybrid-kv-cache-manager", "--enable-hybrid-kv-cache-manager"),
        "!disable_hybrid_kv_cache_manager",
        None,
    ),
    (("--disable-sliding-window",), "disable_sliding_window", None),
    (("--cpu-offload-gb",), "cpu_offload_gb", share),
    (("--swap-space",), "swap_space", share),
    (("--kv-offloading-size",), "kv_offloading_size", share),
    (("--kv-transfer-config",), "kv_transfer_config", mapping),
)
_SCHEDULER: tuple[Flag, ...] = (
    (("--max-num-seqs",), "max_num_seqs", human),
    (("--max-num-batched-tokens",), "max_num_batched_tokens", human),
    (("--enable-chunked-prefill",), "enable_chunked_prefill", None),
    (("--no-enable-chunked-prefill",), "!enable_chunked_prefill", None),
    (("--async-scheduling",), "async_scheduling", None),
    (("--no-async-scheduling",), "!async_scheduling", None),
    (("--performance-mode",), "performance_mode", word),
    (("--speculative-config", "-sc"), "speculative_config", mapping),
    (("--speculative-model",), "speculative_model", word),
    (("--num-speculative-tokens",), "num_speculative_tokens", whole),
    (("--attention-backend",), "attention_backend", word),
    (("--enforce-eager",), "enforce_eager", None),
    (("--no-enforce-eager",), "!enforce_eager", None),
    (("--compilation-config", "-cc", "-O"), "compilation_config", mapping_or_level),
    (("-O0",), "uncompiled", None),
    (("-O1", "-O2", "-O3"), "!uncompiled", None),
    (("--max-cudagraph-capture-size", "--max-seq-len-to-capture"), "max_cudagraph_capture_size", whole),
)
_PARALLEL: tuple[Flag, ...] = (
    (("--tensor-parallel-size", "-tp"), "tensor_parallel_size", whole),
    (("--pipeline-parallel-size", "-pp"), "pipeline_parallel_size", whole),
    (("--data-parallel-size", "-dp"), "data_parallel_size", whole),
    (("--decode-context-parallel-size", "-dcp"), "decode_context_parallel_size", whole),
    (("--prefill-context-parallel-size", "-pcp"), "prefill_context_parallel_size", whole),
    (("--enable-expert-parallel", "-ep"), "enable_expert_parallel", None),
    (("--no-enable-expert-parallel",), "!enable_expert_parallel", None),
    (("--enable-eplb",), "enable_eplb", None),
    (("--num-redundant-experts",), "num_redundant_experts", whole),
    (("--eplb-config",), "eplb_config", mapping),
)
_ADAPTERS: tuple[Flag, ...] = (
    (("--enable-lora",), "enable_lora", None),
    (("--no-enable-lora",), "!enable_lora", None),
    (("--max-loras",), "max_loras", whole),
    (("--max-lora-rank",), "max_lora_rank", whole),
)

FLAGS: tuple[Flag, ...] = (*_MODEL, *_CACHE, *_SCHEDULER, *_PARALLEL, *_ADAPTERS)
