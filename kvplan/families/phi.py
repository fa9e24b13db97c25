"""Microsoft's Phi: Phi-1/2 with biases and a parallel block, Phi-3/4 in Llama's shape but fused.

transformers 5.23 models/phi, models/phi3.
"""

from kvplan.blocks.decoder import as_stated, finish, fixed_head_dim, shape_of
from kvplan.blocks.transformer import attention, plain_mlp
from kvplan.config import Config
from kvplan.model import Structure
from kvplan.tensors import linear, norm


def phi(config: Config) -> Structure:
    """Read Phi-1, Phi-1.5 and Phi-2: one norm a layer, biases everywhere, a biased head."""
    shape = shape_of(config)
    qk = config.flag("qk_layernorm", False)
    if qk:
        # The norms are hidden / heads wide whatever head_dim says.
        shape = fixed_head_dim(config, shape)
    tensors = (
        *attention(
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=True,
            o_bias=True,
        ),
        *(norm("self_attn.q_layernorm", shape.head_dim, bias=True) if qk else ()),
        *(norm("self_attn.k_layernorm", shape.head_dim, bias=True) if qk else ()),
        *plain_mlp(shape.hidden_size, config.positive("intermediate_size")),
        *norm("input_layernorm", shape.hidden_size, bias=True),
    )
    return finish(
        config, shape, as_stated(config, shape, tensors), tied=False, norm_bias=True, head_bias=True
    )


def phi_msft(config: Config) -> Structure:
    """Read Phi-1 and Phi-1.5 as first published (modeling_phi.py of microsoft/phi-1_5): GPT's keys.

    ``n_inner: null`` is four times the width, ``n_head_kv: null`` as many heads as queries.
    """
    if config.has("intermediate_size"):
        return phi(config)
    return phi(config.with_defaults({"intermediate_size": 4 * config.positive("hidden_size")}))


def phi3(config: Config) -> Structure:
    """Read Phi-3, Phi-3.5 and Phi-4: fused qkv and gate-up projections; a window is live on every layer."""
    shape = shape_of(config)
    intermediate_size = config.positive("intermediate_size")
    num_rows = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
    tensors = (
        *linear("self_attn.qkv_proj", num_rows, shape.hidden_size, "attention", split="out"),
        *linear(
            "self_attn.o_proj",
            shape.hidden_size,
            shape.num_attention_heads * shape.head_dim,
            "attention",
            split="in",
        ),
        *linear("mlp.gate_up_proj", 2 * intermediate_size, shape.hidden_size, "mlp", split="out"),
        *linear("mlp.down_proj", shape.hidden_size, intermediate_size, "mlp", split="in"),
        *norm("input_layernorm", shape.hidden_size),
        *norm("post_attention_layernorm", shape.hidden_size),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)
