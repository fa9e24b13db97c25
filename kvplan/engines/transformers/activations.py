"""What one forward pass of transformers holds beside weights and cache: an interval, not a count.

The prompt goes through in one pass unless ``prefill_chunk_size`` cuts it. At its widest a layer
holds a few hidden-sized tensors and its MLP's (or its chosen experts') inner ones; growing a dynamic
cache copies one tensor of one layer; attention kernels that cannot group heads repeat keys and
values, and a padded batch needs a mask over all pairs of tokens (transformers 5.23
integrations/sdpa_attention.py, masking_utils.py). Not fitted to measurements, so ``assumed``.
"""

from functools import lru_cache

from kvplan.frozen import dataclass
from kvplan.layers import ChunkedAttention, FullAttention, LatentAttention, SlidingWindow
from kvplan.model import ModelSpec, layer_kinds
from kvplan.quantity import Quantity

FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Widths:
    """Elements a token at the widest layer: MLP or experts, cached keys and values, repeated ones."""

    feed_forward: int
    key_value: int
    repeated: int


def forward_pass(
    model: ModelSpec,
    context_tokens: int,
    num_sequences: int,
    element: int,
    *,
    chunk_size: int = 0,
    dequantizes: bool = False,
) -> Quantity:
    """Return the bytes of one forward pass over ``num_sequences`` prompts; ``element`` is the dtype's size.

    ``dequantizes`` adds a layer's keys and values, which a quantized cache unpacks at each step.
    """
    widths = _widths(model)
    structure = model.structure
    tokens = num_sequences * min(context_tokens, chunk_size or context_tokens)
    cached = num_sequences * context_tokens * widths.key_value * element
    # Only the last token's logits are asked for, then copied to fp32 to sample from.
    logits = num_sequences * structure.vocab_size * (element + FLOAT32_BYTES)
    forward = tokens * (4 * structure.hidden_size + widths.feed_forward) * element
    expected = forward + logits + (cached if dequantizes else cached // 2)
    repeated = num_sequences * context_tokens * widths.repeated * element
    mask = num_sequences * min(context_tokens, chunk_size or context_tokens) * context_tokens
    high = 2 * expected + repeated + (mask if num_sequences > 1 else 0)
    return Quantity(logits, expected, high, "assumed", "one forward pass over the prompt")


@lru_cache(maxsize=512)
def _widths(model: ModelSpec) -> Widths:
    hidden = model.structure.hidden_size
    feed_forward = key_value = repeated = 0
    for layer, _ in layer_kinds(model):
        routed = 0
        for tensor in layer.tensors:
            if tensor.split != "out" or len(tensor.shape) != 2:
                continue
            if tensor.role in ("mlp", "shared_expert"):
                feed_forward = max(feed_forward, 2 * tensor.shape[0])
            elif tensor.role == "expert":
                routed = max(routed, (tensor.num_active or 1) * (2 * tensor.shape[0] + hidden))
        feed_forward = max(feed_forward, routed)
        for cache in layer.caches:
            match cache:
                case FullAttention() | SlidingWindow() | ChunkedAttention():
                    heads = cache.head_dim + cache.v_head_dim
                    key_value = max(key_value, cache.num_key_value_heads * heads)
                    if cache.num_key_value_heads != cache.num_attention_heads:
                        repeated = max(repeated, cache.num_attention_heads * heads)
                case LatentAttention():
                    key_value = max(key_value, cache.kv_lora_rank + cache.qk_rope_head_dim)
                    expanded = cache.qk_nope_head_dim + cache.qk_rope_head_dim + cache.v_head_dim
                    repeated = max(repeated, cache.num_attention_heads * expanded)
    return Widths(feed_forward, key_value, repeated)
