"""An unknown architecture, planned as plain full attention because the user said so.

Only standard keys are read. Every number that follows is assumed: an upper bound for the cache of
any architecture that caches no more than keys and values of all its heads on every layer.
"""

from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.layers import FullAttention, Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import embedding, lm_head, norm


def assumed_full_attention(config: Config) -> Structure:
    """Read the standard keys, nested or not, as a decoder of full attention and gated MLPs."""
    for key in ("text_config", "llm_config", "language_config"):
        nested = config.sub(key)
        if nested is not None and nested.has("hidden_size"):
            config = nested
            break
    hidden_size = config.positive("hidden_size")
    num_attention_heads = config.positive("num_attention_heads")
    num_key_value_heads = config.positive("num_key_value_heads", num_attention_heads)
    head_dim = config.positive("head_dim", max(1, hidden_size // num_attention_heads))
    vocab_size = config.positive("vocab_size")
    num_experts = config.integer("num_experts", 0)
    mlp = gated_mlp(hidden_size, config.positive("intermediate_size", 4 * hidden_size))
    layer = Layer(
        caches=(FullAttention(num_attention_heads, num_key_value_heads, head_dim, head_dim),),
        tensors=(
            *attention(hidden_size, num_attention_heads, num_key_value_heads, head_dim),
            *(mlp * max(1, num_experts)),
            *norm("input_layernorm", hidden_size),
            *norm("post_attention_layernorm", hidden_size),
        ),
    )
    return Structure(
        layers=(LayerGroup(layer, config.layers()),),
        tensors=(
            embedding("model.embed_tokens", vocab_size, hidden_size),
            *norm("model.norm", hidden_size),
            *lm_head(vocab_size, hidden_size),
        ),
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        num_attention_heads=num_attention_heads,
        context_limit_tokens=config.integer("max_position_embeddings", 0),
        tie_word_embeddings=False,
        is_assumed=True,
    )
