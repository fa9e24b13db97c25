"""The arguments that vLLM repeats in its log: ``non-default args: {...}`` and the engine's config line.

Source: vLLM entrypoints/utils.py log_non_default_args and v1/engine/core.py (0.6 to 0.33).
"""

import ast
import re

_CONFIG = re.compile(r"with config: (.*)", re.IGNORECASE)
_ARGUMENTS = re.compile(r"non-default args: (\{.*\})")
_PAIR = re.compile(r"\b(\w+)=('[^']*'|\"[^\"]*\"|torch\.\w+|[\w./-]+)")
_OBJECT = re.compile(r"'(speculative_config|limit_mm_per_prompt)': (\{[^{}]*\})")
_NESTED = re.compile(r"\{[^{}]*\}|\([^()]*\)|\[[^\[\]]*\]")
_ITEM = re.compile(r"'(\w+)': ('[^']*'|\"[^\"]*\"|True|False|None|-?\d[\d.]*)(?=[,}])")
# What the config line calls what the command line calls otherwise.
_CONFIG_NAMES = {"max_seq_len": "max_model_len"}
KEPT_SETTINGS = frozenset(
    {
        "model",
        "dtype",
        "max_model_len",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "quantization",
        "enforce_eager",
        "kv_cache_dtype",
        "gpu_memory_utilization",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enable_prefix_caching",
        "block_size",
        "enable_expert_parallel",
        "cpu_offload_gb",
        "swap_space",
        "speculative_config",
        "kv_cache_memory_bytes",
        "served_model_name",
        "trust_remote_code",
        "load_format",
        "enable_lora",
        "max_loras",
        "max_lora_rank",
        "fully_sharded_loras",
        "disable_hybrid_kv_cache_manager",
        "num_gpu_blocks_override",
        "limit_mm_per_prompt",
        "language_model_only",
        "mm_encoder_tp_mode",
        "mamba_ssm_cache_dtype",
        "mamba_cache_mode",
        "decode_context_parallel_size",
        "async_scheduling",
        "enable_chunked_prefill",
        "max_cudagraph_capture_size",
    }
)


def settings_in(text: str) -> dict[str, object]:
    """Read the arguments vLLM repeats, and its config line, as far as they concern memory."""
    found = _ARGUMENTS.search(text)
    if found:
        try:
            said = ast.literal_eval(found.group(1))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            # An object among them (CompilationConfig(...)): what stands there plainly is read alone.
            said = _plain_items(found.group(1))
        if isinstance(said, dict):
            given = {str(key): value for key, value in said.items()}
            if "model_tag" in given:
                given.setdefault("model", given["model_tag"])
            return {key: value for key, value in given.items() if key in KEPT_SETTINGS}
    found = _CONFIG.search(text)
    if not found:
        return {}
    settings: dict[str, object] = {}
    for key, value in _PAIR.findall(found.group(1)):
        name = _CONFIG_NAMES.get(key, key)
        if name in KEPT_SETTINGS:
            settings.setdefault(name, _value(value))
    return settings


def _plain_items(text: str) -> dict[str, object]:
    """Read the plain values of a printed mapping, and the plain mappings among them."""
    said: dict[str, object] = {}
    for name, inner in _OBJECT.findall(text):
        said[name] = {key: _value(value) for key, value in _ITEM.findall(inner)}
    flat, before = text[1:-1], ""
    while flat != before:
        flat, before = _NESTED.sub("...", flat), flat
    return said | {name: _value(value) for name, value in _ITEM.findall(f"{{{flat}}}")}


def _value(text: str) -> object:
    if text[:1] in "'\"":
        return text[1:-1]
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text.removeprefix("torch.")
