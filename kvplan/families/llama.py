"""The Llama shape: RMSNorm, grouped-query attention, a gated MLP.

Covers every family that differs from Llama only in biases, q/k norms and windows: Mistral, Qwen2,
Qwen3 … Class defaults are transformers 5.23's (models/*/configuration_*.py).
"""

from kvplan.blocks import attention, gated_mlp
from kvplan.config import Config
from kvplan.layers import FullAttention, Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import embedding, lm_head, norm


def llama(config: Config) -> Structure:
    """Read a Llama config (LlamaForCausalLM)."""
    hidden_size = config.positive("hidden_size")
    num_attention_heads = config.positive("num_attention_heads")
    num_key_value_heads = config.positive("num_key_value_heads", num_attention_heads)
    head_dim = config.positive("head_dim", hidden_size // num_attention_heads)
    vocab_size = config.positive("vocab_size")
    attention_bias = config.flag("attention_bias", False)
    layer = Layer(
        caches=(FullAttention(num_attention_heads, num_key_value_heads, head_dim, head_dim),),
        tensors=(
            *attention(
                hidden_size,
                num_attention_heads,
                num_key_value_heads,
                head_dim,
                qkv_bias=attention_bias,
                o_bias=attention_bias,
            ),
            *gated_mlp(hidden_size, config.positive("intermediate_size"), bias=config.flag("mlp_bias", False)),
            *norm("input_layernorm", hidden_size),
            *norm("post_attention_layernorm", hidden_size),
        ),
    )
    tied = config.flag("tie_word_embeddings", False)
    return Structure(
        layers=(LayerGroup(layer, config.layers()),),
        tensors=(
            embedding("model.embed_tokens", vocab_size, hidden_size),
            *norm("model.norm", hidden_size),
            *(() if tied else lm_head(vocab_size, hidden_size)),
        ),
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        num_attention_heads=num_attention_heads,
        context_limit_tokens=config.integer("max_position_embeddings", 0),
        tie_word_embeddings=tied,
    )
