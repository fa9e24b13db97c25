"""Ollama's parameters: those of a Modelfile and of a request, and its environment variables.

Source: ollama/ollama fb30760996: api/types.go (options), envconfig/config.go (variables),
docs/modelfile.mdx. A parameter is spelled ``--num_ctx 8192`` here, dashes as well as underscores.
"""

from kvplan.deploy.flags.readers import Flag, whole, word


def _parameter(name: str, *others: str) -> tuple[str, ...]:
    """Return a parameter's spellings; ``others`` are llama.cpp's for the same thing."""
    return tuple(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}", *others)))


FLAGS: tuple[Flag, ...] = (
    (_parameter("num_ctx", "-c", "--ctx-size"), "num_ctx", whole),
    (_parameter("num_parallel", "-np", "--parallel"), "num_parallel", whole),
    (_parameter("num_batch", "-b", "--batch-size"), "num_batch", whole),
    (_parameter("num_gpu", "-ngl", "--n-gpu-layers"), "num_gpu", whole),
    (_parameter("main_gpu", "-mg"), "main_gpu", whole),
    (_parameter("num_predict"), "num_predict", whole),
    (_parameter("use_mmap"), "use_mmap", word),
    (_parameter("kv_cache_type"), "kv_cache_type", word),
    (_parameter("flash_attention"), "flash_attention", word),
    (_parameter("gpu_overhead"), "gpu_overhead", whole),
    (_parameter("mmproj"), "mmproj", word),
    (_parameter("adapter", "--lora"), "lora", word),
    (_parameter("draft", "-md", "--model-draft"), "model_draft", word),
)

ENVIRONMENT: dict[str, str] = {
    "OLLAMA_CONTEXT_LENGTH": "--num_ctx",
    "OLLAMA_NUM_PARALLEL": "--num_parallel",
    "OLLAMA_KV_CACHE_TYPE": "--kv_cache_type",
    "OLLAMA_FLASH_ATTENTION": "--flash_attention",
    "OLLAMA_GPU_OVERHEAD": "--gpu_overhead",
}
# PARAMETER lines of a Modelfile that memory depends on, and ADAPTER.
MODELFILE: dict[str, str] = {
    "num_ctx": "--num_ctx",
    "num_batch": "--num_batch",
    "num_gpu": "--num_gpu",
    "main_gpu": "--main_gpu",
    "num_predict": "--num_predict",
    "use_mmap": "--use_mmap",
}
