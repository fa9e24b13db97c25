"""SGLang's flags. Source: SGLang 0.5.23 srt/arg_groups/fields/*.py; older spellings from 0.4."""

import re
from decimal import Decimal

from kvplan.deploy.flags.readers import Flag, mapping, share, whole, wholes, word
from kvplan.deploy.flags.sglang_rest import UNPLANNED

SCALES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def count(text: str) -> int:
    """Read SGLang's counts: ``32k`` is 32,000, ``32Ki`` 32,768; small and capital letters differ.

    Source: SGLang 0.5.23 srt/utils/common.py human_readable_int.
    """
    found = re.fullmatch(r"(\d+)(\.\d+)?([kKMGT]i?)", text)
    if not found:
        return int(text)
    number, decimals, suffix = found.groups()
    if suffix not in SCALES or (decimals and suffix.endswith("i")):
        raise ValueError(text)
    return int(Decimal(number + (decimals or "")) * SCALES[suffix])


FLAGS: tuple[Flag, ...] = (
    # the model
    (("--model-path", "--model"), "model", word),
    (("--context-length",), "context_length", count),
    (("--dtype",), "dtype", word),
    (("--quantization",), "quantization", word),
    (("--kv-cache-dtype",), "kv_cache_dtype", word),
    (("--enable-multimodal",), "enable_multimodal", None),
    (("--language-only",), "language_only", None),
    (("--language-model-only",), "language_model_only", None),
    (("--mm-feature-transport",), "mm_feature_transport", word),
    (("--is-embedding",), "is_embedding", None),
    # pools and scheduling
    (("--mem-fraction-static",), "mem_fraction_static", share),
    (("--max-running-requests",), "max_running_requests", whole),
    (("--max-total-tokens",), "max_total_tokens", count),
    (("--chunked-prefill-size",), "chunked_prefill_size", whole),
    (("--max-prefill-tokens",), "max_prefill_tokens", whole),
    (("--page-size",), "page_size", whole),
    (("--disable-radix-cache",), "disable_radix_cache", None),
    (("--disable-overlap-schedule",), "disable_overlap_schedule", None),
    (("--swa-full-tokens-ratio",), "swa_full_tokens_ratio", share),
    (("--disable-hybrid-swa-memory",), "disable_hybrid_swa_memory", None),
    (("--mamba-full-memory-ratio",), "mamba_full_memory_ratio", share),
    (("--max-mamba-cache-size",), "max_mamba_cache_size", whole),
    (("--mamba-ssm-dtype",), "mamba_ssm_dtype", word),
    (("--mamba-radix-cache-strategy",), "mamba_radix_cache_strategy", word),
    (("--linear-attn-backend",), "linear_attn_backend", word),
    (("--enable-hierarchical-cache", "--enable-hicache"), "enable_hierarchical_cache", None),
    (("--hicache-ratio",), "hicache_ratio", share),
    (("--hicache-size",), "hicache_size", whole),
    # ranks
    (("--tp-size", "--tensor-parallel-size", "--tp"), "tp_size", whole),
    (("--pp-size", "--pipeline-parallel-size", "--pp"), "pp_size", whole),
    (("--dp-size", "--data-parallel-size", "--dp"), "dp_size", whole),
    (("--attn-dp-size", "--attention-data-parallel-size"), "attn_dp_size", whole),
    (("--attn-cp-size", "--attention-context-parallel-size"), "attn_cp_size", whole),
    (("--dcp-size", "--decode-context-parallel-size"), "dcp_size", whole),
    (("--ep-size", "--expert-parallel-size", "--ep"), "ep_size", whole),
    (("--enable-dp-attention",), "enable_dp_attention", None),
    (("--moe-a2a-backend",), "moe_a2a_backend", word),
    (("--enable-deepep-moe",), "enable_deepep_moe", None),
    (("--enable-two-batch-overlap",), "enable_two_batch_overlap", None),
    # kernels and graphs
    (("--attention-backend",), "attention_backend", word),
    (("--prefill-attention-backend",), "prefill_attention_backend", word),
    (("--decode-attention-backend",), "decode_attention_backend", word),
    (("--dsa-prefill-backend", "--nsa-prefill-backend"), "dsa_prefill_backend", word),
    (("--dsa-decode-backend", "--nsa-decode-backend"), "dsa_decode_backend", word),
    (("--cuda-graph-max-bs-decode",), "cuda_graph_max_bs_decode", whole),
    (("--cuda-graph-max-bs-prefill",), "cuda_graph_max_bs_prefill", whole),
    (("--cuda-graph-max-bs",), "cuda_graph_max_bs", whole),
    (("--cuda-graph-bs-decode", "--cuda-graph-bs"), "cuda_graph_bs_decode", wholes),
    (("--cuda-graph-bs-prefill",), "cuda_graph_bs_prefill", wholes),
    (("--cuda-graph-config",), "cuda_graph_config", mapping),
    (("--disable-cuda-graph",), "disable_cuda_graph", None),
    (("--disable-decode-cuda-graph",), "disable_decode_cuda_graph", None),
    (("--disable-prefill-cuda-graph",), "disable_prefill_cuda_graph", None),
    # speculation
    (("--speculative-algorithm", "--speculative-algo"), "speculative_algorithm", word),
    (
        ("--speculative-draft-model-path", "--speculative-draft-model"),
        "speculative_draft_model_path",
        word,
    ),
    (("--speculative-num-steps",), "speculative_num_steps", whole),
    (("--speculative-eagle-topk",), "speculative_eagle_topk", whole),
    (("--speculative-num-draft-tokens",), "speculative_num_draft_tokens", whole),
    # offloading, adapters, disaggregation
    (("--cpu-offload-gb",), "cpu_offload_gb", share),
    (("--enable-lora",), "enable_lora", None),
    (("--max-lora-rank",), "max_lora_rank", whole),
    (("--max-loras-per-batch",), "max_loras_per_batch", whole),
    (("--disaggregation-mode",), "disaggregation_mode", word),
    (
        ("--disaggregation-decode-enable-radix-cache",),
        "disaggregation_decode_enable_radix_cache",
        None,
    ),
    *UNPLANNED,
)
