"""TensorRT-LLM's YAML options (``--extra_llm_api_options``), turned into its flags."""

from kvplan.deploy.carriers.option_keys import flag_words
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Text, table

# Keys of the file whose flag is spelled differently.
RENAMED: dict[str, str] = {
    "tensor_parallel_size": "tp_size",
    "pipeline_parallel_size": "pp_size",
    "moe_expert_parallel_size": "ep_size",
}
CACHE_RENAMED: dict[str, str] = {
    "free_gpu_memory_fraction": "kv_cache_free_gpu_memory_fraction",
    "dtype": "kv_cache_dtype",
}
TYPICAL = frozenset(
    [
        "kv_cache_config",
        "cuda_graph_config",
        "max_num_tokens",
        "enable_attention_dp",
        "moe_expert_parallel_size",
        "moe_config",
        "disable_overlap_scheduler",
        "attention_dp_config",
        "cache_transceiver_config",
    ]
)


def is_options(document: Table) -> bool:
    """Tell whether a document is such a file: it has at least two keys that only this engine knows."""
    return len(TYPICAL.intersection(document)) >= 2


def option_words(document: Table) -> list[Word]:
    """Return the flags of a file of options."""
    top = Table()
    top.line = document.line
    for key, value in document.items():
        if key in ("backend", "kv_cache_config"):
            continue
        top[_renamed(key, RENAMED)] = value
    words = flag_words(top, underscores=True)
    inner = table(document.get("kv_cache_config"))
    renamed = Table()
    renamed.line = inner.line
    for key, value in inner.items():
        renamed[_renamed(key, CACHE_RENAMED)] = value
    return [*words, *flag_words(renamed, underscores=True)]


def _renamed(key: str, names: dict[str, str]) -> Text:
    found = Text(names.get(key, key))
    found.line = key.line if isinstance(key, Text) else 0
    return found
