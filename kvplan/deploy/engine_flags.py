"""An engine's own command line: its flags, read into options under its own names.

One table an engine: a flag's spellings, the option it sets, how its value is read. Flags that say
what kvplan has a word for (context, ranks, cache format) are lifted out into ``Lifted``; unknown
flags are listed, not refused, because engines add them weekly. Sources: vLLM 0.33
engine/arg_utils.py, SGLang 0.5.23 srt/server_args.py, llama.cpp common/arg.cpp, TensorRT-LLM
commands/serve.py, transformers 5.23 generation/configuration_utils.py.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvplan.errors import InvalidValue

Reader = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """What a command line said: options by the engine's names, and the flags nobody knows."""

    options: tuple[tuple[str, object], ...]
    unknown: tuple[str, ...] = ()

    def get(self, name: str) -> object:
        """Return an option's value, or None."""
        return dict(self.options).get(name)


def _whole(text: str) -> int:
    return int(text)


def _share(text: str) -> float:
    return float(text)


def _word(text: str) -> str:
    return text


def _mapping(text: str) -> object:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def _human(text: str) -> int:
    """Read vLLM's counts: ``32k`` is 32,000 and ``32K`` 32,768 (vLLM utils human_readable_int)."""
    scales = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
    if text in ("auto", "-1"):
        return -1
    if text and text[-1] in scales:
        return int(float(text[:-1]) * scales[text[-1]])
    return int(text)


def _switch(text: str) -> bool:
    if text.casefold() in ("1", "true", "on", "yes", "enabled"):
        return True
    if text.casefold() in ("0", "false", "off", "no", "disabled"):
        return False
    raise ValueError(text)


# reader None: a switch that takes no value.
Flag = tuple[tuple[str, ...], str, Reader | None]

_VLLM: tuple[Flag, ...] = (
    (("--model",), "model", _word),
    (("--max-model-len",), "max_model_len", _human),
    (("--gpu-memory-utilization",), "gpu_memory_utilization", _share),
    (("--kv-cache-memory-bytes", "--kv-cache-memory"), "kv_cache_memory_bytes", _human),
    (("--max-num-seqs",), "max_num_seqs", _human),
    (("--max-num-batched-tokens",), "max_num_batched_tokens", _human),
    (("--block-size",), "block_size", _whole),
    (("--kv-cache-dtype",), "kv_cache_dtype", _word),
    (("--mamba-ssm-cache-dtype",), "mamba_ssm_cache_dtype", _word),
    (("--mamba-cache-dtype",), "mamba_cache_dtype", _word),
    (("--mamba-block-size",), "mamba_block_size", _whole),
    (("--dtype",), "dtype", _word),
    (("--quantization", "-q"), "quantization", _word),
    (("--tensor-parallel-size", "-tp"), "tensor_parallel_size", _whole),
    (("--pipeline-parallel-size", "-pp"), "pipeline_parallel_size", _whole),
    (("--data-parallel-size", "-dp"), "data_parallel_size", _whole),
    (("--decode-context-parallel-size", "-dcp"), "decode_context_parallel_size", _whole),
    (("--enable-expert-parallel",), "enable_expert_parallel", None),
    (("--enforce-eager",), "enforce_eager", None),
    (("--enable-prefix-caching",), "enable_prefix_caching", None),
    (("--no-enable-prefix-caching",), "!enable_prefix_caching", None),
    (("--disable-hybrid-kv-cache-manager",), "disable_hybrid_kv_cache_manager", None),
    (("--enable-chunked-prefill",), "enable_chunked_prefill", None),
    (("--no-enable-chunked-prefill",), "!enable_chunked_prefill", None),
    (("--async-scheduling",), "async_scheduling", None),
    (("--no-async-scheduling",), "!async_scheduling", None),
    (("--speculative-config",), "speculative_config", _mapping),
    (("--cpu-offload-gb",), "cpu_offload_gb", _share),
    (("--swap-space",), "swap_space", _share),
    (("--kv-offloading-size",), "kv_offloading_size", _share),
    (("--enable-lora",), "enable_lora", None),
    (("--max-loras",), "max_loras", _whole),
    (("--max-lora-rank",), "max_lora_rank", _whole),
    (("--limit-mm-per-prompt",), "limit_mm_per_prompt", _mapping),
    (("--language-model-only",), "language_model_only", None),
    (("--performance-mode",), "performance_mode", _word),
    (("--attention-backend",), "attention_backend", _word),
)
_SGLANG: tuple[Flag, ...] = (
    (("--model-path", "--model"), "model", _word),
    (("--context-length",), "context_length", _whole),
    (("--mem-fraction-static",), "mem_fraction_static", _share),
    (("--max-running-requests",), "max_running_requests", _whole),
    (("--max-total-tokens",), "max_total_tokens", _whole),
    (("--chunked-prefill-size",), "chunked_prefill_size", _whole),
    (("--max-prefill-tokens",), "max_prefill_tokens", _whole),
    (("--page-size",), "page_size", _whole),
    (("--kv-cache-dtype",), "kv_cache_dtype", _word),
    (("--dtype",), "dtype", _word),
    (("--quantization",), "quantization", _word),
    (("--tensor-parallel-size", "--tp-size", "--tp"), "tp_size", _whole),
    (("--pipeline-parallel-size", "--pp-size", "--pp"), "pp_size", _whole),
    (("--data-parallel-size", "--dp-size", "--dp"), "dp_size", _whole),
    (("--expert-parallel-size", "--ep-size", "--ep"), "ep_size", _whole),
    (("--enable-dp-attention",), "enable_dp_attention", None),
    (("--cuda-graph-max-bs",), "cuda_graph_max_bs", _whole),
    (("--disable-cuda-graph",), "disable_cuda_graph", None),
    (("--disable-radix-cache",), "disable_radix_cache", None),
    (("--swa-full-tokens-ratio",), "swa_full_tokens_ratio", _share),
    (("--disable-hybrid-swa-memory",), "disable_hybrid_swa_memory", None),
    (("--mamba-full-memory-ratio",), "mamba_full_memory_ratio", _share),
    (("--max-mamba-cache-size",), "max_mamba_cache_size", _whole),
    (("--mamba-ssm-dtype",), "mamba_ssm_dtype", _word),
    (("--attention-backend",), "attention_backend", _word),
    (("--speculative-algorithm", "--speculative-algo"), "speculative_algorithm", _word),
    (("--speculative-num-draft-tokens",), "speculative_num_draft_tokens", _whole),
    (("--speculative-num-steps",), "speculative_num_steps", _whole),
    (("--speculative-draft-model-path",), "speculative_draft_model_path", _word),
    (("--cpu-offload-gb",), "cpu_offload_gb", _share),
    (("--moe-a2a-backend",), "moe_a2a_backend", _word),
    (("--enable-deepep-moe",), "enable_deepep_moe", None),
    (("--disaggregation-mode",), "disaggregation_mode", _word),
)
_LLAMA_CPP: tuple[Flag, ...] = (
    (("-m", "--model"), "model", _word),
    (("-c", "--ctx-size"), "ctx_size", _whole),
    (("-np", "--parallel"), "parallel", _whole),
    (("-b", "--batch-size"), "n_batch", _whole),
    (("-ub", "--ubatch-size"), "n_ubatch", _whole),
    (("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers", _word),
    (("-fa", "--flash-attn"), "flash_attn", _word),
    (("-ctk", "--cache-type-k"), "cache_type_k", _word),
    (("-ctv", "--cache-type-v"), "cache_type_v", _word),
    (("-kvu", "--kv-unified"), "kv_unified", None),
    (("-no-kvu", "--no-kv-unified"), "!kv_unified", None),
    (("--swa-full",), "swa_full", None),
    (("-ts", "--tensor-split"), "tensor_split", _word),
    (("-sm", "--split-mode"), "split_mode", _word),
    (("-mg", "--main-gpu"), "main_gpu", _whole),
    (("-cmoe", "--cpu-moe"), "cpu_moe", None),
    (("-ncmoe", "--n-cpu-moe"), "n_cpu_moe", _whole),
    (("-nkvo", "--no-kv-offload"), "no_kv_offload", None),
    (("--no-op-offload",), "no_op_offload", None),
    (("--no-mmap",), "no_mmap", None),
    (("-fit", "--fit"), "fit", _word),
    (("-fitt", "--fit-target"), "fit_target", _word),
    (("-fitc", "--fit-ctx"), "fit_ctx", _whole),
    (("--mmproj",), "mmproj", _word),
    (("-md", "--model-draft"), "model_draft", _word),
    (("-ot", "--override-tensor"), "override_tensor", _word),
)
_TENSORRT_LLM: tuple[Flag, ...] = (
    (("--max_seq_len",), "max_seq_len", _whole),
    (("--max_batch_size",), "max_batch_size", _whole),
    (("--max_num_tokens",), "max_num_tokens", _whole),
    (("--tp_size",), "tp_size", _whole),
    (("--pp_size",), "pp_size", _whole),
    (("--ep_size",), "ep_size", _whole),
    (
        ("--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction"),
        "free_gpu_memory_fraction",
        _share,
    ),
    (("--kv_cache_dtype",), "kv_cache_dtype", _word),
)
_TRANSFORMERS: tuple[Flag, ...] = (
    (("--cache-implementation",), "cache_implementation", _word),
    (("--cache-config",), "cache_config", _mapping),
    (("--max-cache-len",), "max_cache_len", _whole),
    (("--max-new-tokens",), "max_new_tokens", _whole),
    (("--num-beams",), "num_beams", _whole),
    (("--num-return-sequences",), "num_return_sequences", _whole),
    (("--prefill-chunk-size",), "prefill_chunk_size", _whole),
)
FLAGS: dict[str, tuple[Flag, ...]] = {
    "vllm": _VLLM,
    "sglang": _SGLANG,
    "llama.cpp": _LLAMA_CPP,
    "ollama": _LLAMA_CPP,
    "tensorrt-llm": _TENSORRT_LLM,
    "transformers": _TRANSFORMERS,
}
OFF_BY_DEFAULT = ("enforce_eager",)


def read_flags(engine: str, words: Sequence[str]) -> EngineFlags:
    """Read an engine's command-line words.

    Raises InvalidValue for a known flag whose value is missing or cannot be read.
    """
    table = {spelling: flag for flag in FLAGS.get(engine, ()) for spelling in flag[0]}
    options: dict[str, object] = {}
    unknown: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        spelling, joined, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if engine == "vllm" and spelling.startswith("--"):
            spelling = "--" + spelling[2:].replace("_", "-")
        flag = table.get(spelling)
        if flag is None:
            unknown.append(word)
            while queue and not queue[0].startswith("-"):
                queue.pop(0)
            continue
        _, name, reader = flag
        if reader is None:
            options[name.removeprefix("!")] = _switch_value(name, value if joined else "")
            continue
        if not joined:
            if name == "flash_attn" and (not queue or queue[0].startswith("-")):
                value = "on"
            elif not queue:
                raise _unreadable(engine, spelling, "nothing")
            else:
                value = queue.pop(0)
        try:
            options[name] = reader(value)
        except ValueError:
            raise _unreadable(engine, spelling, f"'{value}'") from None
    return EngineFlags(tuple(options.items()), tuple(unknown))


def _switch_value(name: str, value: str) -> bool:
    given = True if not value else _switch(value)
    return not given if name.startswith("!") else given


def _unreadable(engine: str, spelling: str, found: str) -> InvalidValue:
    return InvalidValue(
        f"{engine}: {spelling} cannot be read",
        why=f"its value is {found}",
        hint=f"see {engine}'s own help for {spelling}",
    )
