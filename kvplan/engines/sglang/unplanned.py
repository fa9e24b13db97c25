"""SGLang: flags that change memory in ways that are not planned, each said with a notice.

Source: the help of each flag and its use in SGLang 0.5.23 srt/arg_groups/fields/*.py, srt/model_executor.
"""

from kvplan.engines.base import Notice
from kvplan.workload import Workload

# Option -> what it does.
NOT_PLANNED: dict[str, str] = {
    "disaggregation_decode_enable_offload_kvcache": "cache moved to system memory by a decode server",
    "disaggregation_decode_extra_slots": "extra request slots of a decode server",
    "encoder_only": "the language model left out",
    "enable_pdmux": "prefills beside decodes on one card",
    "enable_fp32_lm_head": "an output projection in 32 bits",
    "enable_weights_cpu_backup": "a copy of the weights in system memory",
    "enable_draft_weights_cpu_backup": "a copy of the draft in system memory",
    "enable_return_hidden_states": "hidden states kept for replies",
    "enable_return_aux_hidden_states": "hidden states kept for replies",
    "enable_return_routed_experts": "buffers of routed experts",
    "enable_return_indexer_topk": "buffers of the indexer's choices",
    "enable_encoder_swa_bounded_replay": "windows that are replayed",
    "enable_decoder_swa_bounded_replay": "windows that are replayed",
    "prefill_kv_cache_dequant_dtype": "buffers of a dequantized cache",
    "enable_deepseek_v4_fp4_indexer": "an indexer's cache in 4 bits",
    "qsa_indexer_dtype": "an indexer's cache in another format",
    "enable_int8_mamba_checkpoint": "checkpoints of states in 8 bits",
    "int8_mamba_ckpt_size": "checkpoints of states in 8 bits",
    "enable_linear_replayssm": "recurrent states kept as inputs",
    "enable_linear_replayssm_spec": "recurrent states kept as inputs",
    "linear_replayssm_cache_len": "recurrent states kept as inputs",
    "cuda_graph_bs_decode": "CUDA graphs of other sizes",
    "cuda_graph_bs_prefill": "CUDA graphs of other sizes",
    "cuda_graph_backend_decode": "CUDA graphs of another kind",
    "cuda_graph_backend_prefill": "CUDA graphs of another kind",
    "cuda_graph_max_seq_len_prefill": "CUDA graphs of other sizes",
    "cuda_graph_prefill_max_context": "CUDA graphs of other sizes",
    "enable_symm_mem": "buffers of symmetric memory",
    "enable_torch_symm_mem": "buffers of symmetric memory",
    "enable_mscclpp": "communication buffers of MSCCL++",
    "flashinfer_allreduce_fusion_backend": "workspaces of fused all-reduces",
    "ep_num_redundant_experts": "redundant experts",
    "enable_eplb": "redundant experts",
    "expert_distribution_recorder_buffer_size": "recorded expert counts",
    "elastic_ep_backend": "elastic experts",
    "enable_elastic_expert_backup": "a copy of the experts",
    "max_ep_size": "elastic experts",
    "enable_paged_experts": "experts paged from system memory",
    "paged_experts_num_resident": "experts paged from system memory",
    "kt_weight_path": "experts that KTransformers computes in system memory",
    "kt_num_gpu_experts": "experts that KTransformers computes in system memory",
    "offload_group_size": "layers kept in system memory by groups",
    "offload_num_in_group": "layers kept in system memory by groups",
    "ple_offload_embedding": "embeddings by n-gram kept in system memory",
    "dllm_algorithm": "the blocks of a diffusion model",
    "lora_target_modules": "adapters of some modules alone",
    "experts_shared_outer_loras": "adapters of experts",
    "lora_use_virtual_experts": "adapters of experts",
    "enable_unified_memory": "one pool for all kinds of layers",
    "hicache_host_memory_fraction": "another size of the host's pool",
    "hicache_host_memory_mode": "another use of the host's pool",
    "enable_unified_cache_external_linker": "a linked cache's buffers",
    "enable_hisparse": "a cache partly in system memory",
    "hisparse_config": "a cache partly in system memory",
    "enable_lmcache": "a KV connector's buffers",
    "enable_flexkv": "a KV connector's buffers",
    "enable_prefix_mm_cache": "embeddings of images that are kept",
    "enable_mm_global_cache": "embeddings of images that are kept",
    "mm_enable_dp_encoder": "a tower whole on every rank",
    "mm_process_config": "changed image sizes",
    "json_model_override_args": "a changed config",
    "modelopt_quant": "weights quantized while they load",
    "quantize_and_serve": "weights quantized while they load",
    "rl_quant_profile": "weights quantized while they load",
    "weight_cache_mode": "weights held by another process",
    "pp_max_micro_batch_size": "smaller micro-batches",
    "pp_async_batch_depth": "buffers of batches in flight",
    "moe_dp_size": "experts over data-parallel ranks",
    "dwdp_size": "experts' weights fetched ahead",
    "dcp_replicate_q_proj": "queries whole on every rank",
    "enable_prefill_cp": "prefill context parallelism",
    "enable_dsa_cache_layer_split": "a cache divided over ranks by layers",
    "enable_kv_cache_sharding": "a cache divided over ranks",
    "enable_dp_lm_head": "an output projection divided over attention ranks",
    "enable_shared_experts_attn_tp": "shared experts divided over attention ranks",
    "shared_experts_tp_size": "shared experts divided over other ranks",
    "enable_dense_mlp_attn_tp": "dense layers divided over attention ranks",
    "moe_dense_tp_size": "dense layers divided over other ranks",
    "c128_page_size": "other pages of compressed rows",
    "swa_prefix_tails": "windows kept for shared prefixes",
    "prefill_only_disable_kv_cache": "a server without a cache",
    "uno_lora_path": "an adapter that drafts",
    "speculative_dflash_block_size": "the block of DFlash",
    "speculative_dspark_block_size": "the block of DSpark",
    "speculative_domino_candidate_pool_size": "candidates of Domino",
    "speculative_token_map": "a draft's shorter vocabulary",
    "speculative_draft_kv_cache_dtype": "a draft's cache in another format",
    "speculative_draft_window_size": "a draft's window",
    "speculative_draft_sink_size": "a draft's window",
    "speculative_draft_model_quantization": "a quantized draft",
    "enable_multi_layer_eagle": "EAGLE of several layers",
    "speculative_adaptive": "drafts of a changing length",
}
# Values that turn a flag off, and the defaults that are none of them.
OFF = frozenset(("", "0", "-1", "off", "none", "auto", "false", "{}"))
DEFAULTS: dict[str, str] = {
    "linear_replayssm_cache_len": "16",
    "offload_num_in_group": "1",
    "hicache_host_memory_mode": "cache",
    "hicache_host_memory_fraction": "0.8",
    "moe_dp_size": "1",
    "dwdp_size": "1",
    "c128_page_size": "16",
    "speculative_domino_candidate_pool_size": "2048",
}


def not_planned(workload: Workload) -> tuple[Notice, ...]:
    """Return a notice for every flag whose effect on memory is not planned."""
    found: list[tuple[str, str]] = []
    for name, what in NOT_PLANNED.items():
        value = workload.option(name)
        if not value or str(value).casefold() in OFF or str(value) == DEFAULTS.get(name):
            continue
        found.append((name, what))
    return tuple(
        Notice("flag-not-planned", f"--{name.replace('_', '-')}: {what} not counted") for name, what in found
    )
