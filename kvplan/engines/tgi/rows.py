"""One token's row in one layer under TGI.

text-generation-inference server/text_generation_server/models/flash_causal_lm.py (num_kv_heads,
head_size: keys and values alike, a single KV head on every rank), models/__init__.py (DeepSeek keeps
decompressed heads of at least 192) and layers/attention/kv_cache.py. Windows are kept in full; with
prefix caching off the router hands out no more blocks than the window (backends/v3/src/
block_allocator.rs), so a window's part lies between the two.
"""

from kvplan.engines.tgi.settings import Settings
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    FullAttention,
    LatentAttention,
    SlidingWindow,
)
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.textbook import state_bytes
from kvplan.units import ceil_div

# models/__init__.py reads qk_nope_dim and qk_rope_dim, which no config has: 128 + 64 by default.
LATENT_HEAD = 192
# ModelType of the 3.x server: families with code of TGI's own. Others run on transformers' code.
OWN_CODE = frozenset((
    "deepseek_v2", "deepseek_v3", "idefics2", "idefics3", "llava_next", "llama", "phi3", "granite",
    "gemma", "paligemma", "gemma2", "gemma3", "gemma3_text", "cohere", "dbrx", "mistral", "mixtral",
    "gpt_bigcode", "phi", "phimoe", "baichuan", "falcon", "starcoder2", "qwen2", "qwen2_vl",
    "qwen2_5_vl", "galactica", "santacoder", "gpt2", "gpt_neox", "gptj", "mllama",
))  # fmt: skip
WINDOW_WHY = "a window's blocks are reused with prefix caching off, kept in full with it on"
OTHER_WHY = "runs on transformers' code or not at all: not read"


def row_bytes(cache: Cache, settings: Settings, ranks: int) -> int:
    """Return one layer's bytes of a token on one rank; 0 for what keeps no rows."""
    match cache:
        case LatentAttention():
            heads = ceil_div(cache.num_attention_heads, ranks)
            return 2 * heads * max(LATENT_HEAD, cache.v_head_dim) * settings.element_bytes
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            kv_heads = cache.num_key_value_heads
            heads = kv_heads if kv_heads == 1 else ceil_div(kv_heads, ranks)
            return 2 * heads * cache.head_dim * settings.element_bytes
    return 0


def token_bytes(model: ModelSpec, settings: Settings, ranks: int) -> int:
    """Return all layers' bytes of a token on one rank."""
    return sum(row_bytes(cache, settings, ranks) * count for cache, count in cache_kinds(model))


def load_bytes(
    model: ModelSpec, settings: Settings, ranks: int, num_sequences: int, context_tokens: int
) -> Quantity:
    """Return what the load takes of a rank's pool: whole blocks, and the one kept for health checks.

    The pool must hold a request of ``context_tokens`` besides (backends/v3/src/lib.rs).
    """
    block = settings.block_size
    row = token_bytes(model, settings, ranks)
    num_blocks = max(
        num_sequences * settings.request_blocks(context_tokens) + 1, ceil_div(context_tokens, block)
    )
    full = num_blocks * block * row
    others = Quantity(0, 0, 0, "exact")
    for cache, count in cache_kinds(model):
        if isinstance(cache, RECURRENT_STATES):
            amount = num_sequences * count * ceil_div(state_bytes(cache, "bfloat16"), ranks)
            others += Quantity(amount, amount, 2 * amount, "assumed", OTHER_WHY)
        elif not row_bytes(cache, settings, ranks):
            amount = model.structure.hidden_size * context_tokens * num_sequences * count
            others += Quantity(0, amount, 4 * amount, "assumed", OTHER_WHY)
    if model.model_type not in OWN_CODE:
        return Quantity(full, full, 2 * full, "assumed", OTHER_WHY) + others
    windows = [cache.sliding_window for cache, _ in cache_kinds(model) if isinstance(cache, SlidingWindow)]
    if not windows or max(windows) >= context_tokens:
        return exact(full) + others
    short = min(full, (num_sequences * settings.request_blocks(max(windows) + 1) + 1) * block * row)
    return Quantity(short, full, full, "assumed", WINDOW_WHY) + others
