"""LMDeploy's flags that touch memory. Source: LMDeploy 0.18 cli/serve.py and cli/utils.py (api_server)."""

from kvplan.deploy.flags.readers import Flag, mapping, share, whole, wholes, word, words

# cli/utils.py quant_policy: names of messages.py's QuantPolicy, or its numbers.
QUANT_POLICIES: dict[str, int] = {
    "none": 0,
    "int4": 4,
    "int8": 8,
    "fp8": 16,
    "fp8_e4m3": 16,
    "fp8_e5m2": 17,
    "turbo_quant": 42,
}


def quant_policy(text: str) -> int:
    """Read a cache policy by name or number."""
    value = QUANT_POLICIES.get(text.casefold())
    if value is None:
        value = int(text)
        if value not in QUANT_POLICIES.values():
            raise ValueError(text)
    return value


FLAGS: tuple[Flag, ...] = (
    (("--backend",), "backend", word),
    (("--model-format",), "model_format", word),
    (("--language-model-only",), "language_model_only", None),
    (("--session-len",), "session_len", whole),
    (("--max-batch-size",), "max_batch_size", whole),
    (("--cache-max-entry-count",), "cache_max_entry_count", share),
    (("--num-gpu-blocks",), "num_gpu_blocks", whole),
    (("--cache-block-seq-len",), "cache_block_seq_len", whole),
    (("--quant-policy",), "quant_policy", quant_policy),
    (("--prefix-cache-state-budget",), "prefix_cache_state_budget", whole),
    (("--max-prefill-token-num",), "max_prefill_token_num", whole),
    (("--tp",), "tp", whole),
    (("--dp",), "dp", whole),
    (("--ep",), "ep", whole),
    (("--cp",), "cp", whole),
    (("--adapters",), "adapters", words),
    (("--speculative-algorithm",), "speculative_algorithm", word),
    (("--speculative-draft-model",), "speculative_draft_model", word),
    (("--speculative-num-draft-tokens",), "speculative_num_draft_tokens", whole),
    (("--speculative-dflash-block-size",), "speculative_dflash_block_size", whole),
    (("--hf-overrides",), "hf_overrides", mapping),
    (("--kv-transfer-config",), "kv_transfer_config", mapping),
    (("--kernel-block-size",), "kernel_block_size", whole),
    (("--dllm-block-length",), "dllm_block_length", whole),
    (("--cudagraph-capture-batch-sizes",), "cudagraph_capture_batch_sizes", wholes),
    (("--piecewise-cudagraph-max-tokens",), "piecewise_cudagraph_max_tokens", whole),
    (("--role",), "role", word),
)
