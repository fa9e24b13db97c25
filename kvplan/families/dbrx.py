"""DBRX: a fused query, key and value, norms without biases, sixteen experts of which a token uses four.

Source: transformers 5.23 models/dbrx.
"""

from kvplan.blocks.decoder import finish, shape_of, uniform
from kvplan.blocks.transformer import attention, experts, router
from kvplan.config import Config
from kvplan.model import Structure
from kvplan.tensors import norm


def dbrx(config: Config) -> Structure:
    """Read DBRX; heads and experts are nested in ``attn_config`` and ``ffn_config``."""
    heads, feed_forward = config.sub("attn_config"), config.sub("ffn_config")
    if heads is None or feed_forward is None:
        raise config.missing("attn_config" if heads is None else "ffn_config")
    shape = shape_of(config, num_key_value_heads=heads.positive("kv_n_heads", 1))
    hidden = shape.hidden_size
    count, active = feed_forward.positive("moe_num_experts", 4), feed_forward.positive("moe_top_k", 1)
    if active > count:
        raise feed_forward.invalid("moe_top_k", f"is {active}, more than {count} experts")
    tensors = (
        *attention(hidden, shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim),
        *experts(hidden, feed_forward.positive("ffn_hidden_size", 3584), count, active, name="ffn.experts"),
        *router(hidden, count, name="ffn.router.layer"),
        *norm("norm_1", hidden),
        *norm("norm_2", hidden),
    )
    return finish(config, shape, uniform(shape, tensors), tied=False)
