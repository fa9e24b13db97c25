"""What llama.cpp does not start, memory aside, and in which words.

llama.cpp 0c1e57098: src/llama-context.cpp llama_init_from_model (cache types, flash attention),
src/llama-model.cpp make_gpu_buft_list (``--split-mode row``), src/llama-arch.cpp llm_arch_supports_sm_tensor.
"""

from kvplan.dtypes import GGML_TYPES
from kvplan.engines.base import Refusal
from kvplan.engines.llama_cpp.settings import WITHOUT_FLASH_ATTENTION, Settings
from kvplan.gguf.names import llama_cpp_arch
from kvplan.layers import ChunkedAttention, FullAttention, LatentAttention, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds

# Backends whose buffers can be split by rows, by the vendor of their cards.
SPLITS_ROWS = frozenset(("intel",))
NOT_BY_TENSOR = frozenset(
    ("grok", "mpt", "plamo2", "minicpm3", "gemma3n", "mamba", "mamba2", "jamba", "falcon-h1", "olmo2",
     "olmoe", "deepseek2", "deepseek32", "glm-dsa", "bitnet", "t5", "nemotron_h", "nemotron_h_moe",
     "granitehybrid", "minimax-m2", "mistral4", "kimi-linear")
)  # fmt: skip


def refusals(model: ModelSpec, settings: Settings, vendor: str, *, is_older: bool) -> tuple[Refusal, ...]:
    """Return why the engine refuses a plan, if it does.

    ``vendor`` is that of the cards, empty without. Builds that are older than these rules may still split
    rows on other cards.
    """
    if any(isinstance(cache, LatentAttention) for cache, _ in cache_kinds(model)) and (
        settings.type_k != settings.type_v
    ):
        return (Refusal("mla-types-differ", "MLA keeps one latent: K and V need the same type", "--kv q8_0"),)
    flash_attn = settings.flash_attn and llama_cpp_arch(model) not in WITHOUT_FLASH_ATTENTION
    if GGML_TYPES[settings.type_v].block_size > 1 and not flash_attn:
        text = "V cache quantization requires flash_attn"
        if settings.flash_attn:
            text += ", which this architecture runs without"
            return (Refusal("quantized-v-needs-flash-attention", text, "--kv fp16"),)
        return (Refusal("quantized-v-needs-flash-attention", text, "-- --flash-attn on"),)
    if settings.flash_attn and (text := _uneven_block(model, settings)):
        return (Refusal("cache-type-block", text, "--kv fp16"),)
    return _split(model, settings, vendor, is_older=is_older)


def _uneven_block(model: ModelSpec, settings: Settings) -> str:
    for cache, _ in cache_kinds(model):
        match cache:
            case FullAttention() | SlidingWindow() | ChunkedAttention():
                sizes = (cache.head_dim, cache.v_head_dim)
            case LatentAttention():
                sizes = (cache.kv_lora_rank + cache.qk_rope_head_dim, cache.kv_lora_rank)
            case _:
                continue
        for name, kind, size in zip("KV", (settings.type_k, settings.type_v), sizes, strict=True):
            block = GGML_TYPES[kind].block_size
            if size % block:
                head = f"n_embd_head_{name.casefold()}={size}"
                return f"{name} cache type {kind} with block size {block} does not divide {head}"
    return ""


def _split(model: ModelSpec, settings: Settings, vendor: str, *, is_older: bool) -> tuple[Refusal, ...]:
    if not vendor:
        return ()
    if settings.split_mode == "row" and vendor not in SPLITS_ROWS and not is_older:
        text = "device does not support split buffers: this build splits rows on no such card"
        return (Refusal("split-mode-row", text, "-- --split-mode layer"),)
    if settings.split_mode == "tensor":
        arch = llama_cpp_arch(model)
        if arch in NOT_BY_TENSOR:
            text = f"LLAMA_SPLIT_MODE_TENSOR not implemented for architecture '{arch}'"
            return (Refusal("split-mode-tensor", text, "-- --split-mode layer"),)
        if not settings.flash_attn:
            text = "SPLIT_MODE_TENSOR requires flash_attn to be enabled"
            return (Refusal("split-mode-tensor", text, "-- --flash-attn on"),)
    return ()
