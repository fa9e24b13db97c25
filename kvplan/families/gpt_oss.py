"""OpenAI's gpt-oss: sliding and full layers in turn, attention sinks, biased experts.

transformers 5.23 models/gpt_oss: the experts' gate and up projections are one matrix with a bias,
every projection of attention has a bias, and each query head has a learned sink.
"""

from kvplan.blocks.attention_pattern import alternating, layer_types, window_of
from kvplan.blocks.decoder import finish, patterned, shape_of
from kvplan.blocks.transformer import attention, experts, router
from kvplan.config import Config
from kvplan.model import Structure
from kvplan.tensors import Tensor, norm


def gpt_oss(config: Config) -> Structure:
    """Read gpt-oss (GptOssForCausalLM)."""
    shape = shape_of(config, head_dim=64)
    kinds = layer_types(config, shape.num_layers) or alternating(shape.num_layers)
    num_experts = config.positive("num_experts", 128)
    bias = config.flag("attention_bias", True)
    tensors = (
        *attention(
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        Tensor("self_attn.sinks", (shape.num_attention_heads,), "attention", split="out"),
        *experts(
            shape.hidden_size,
            config.positive("intermediate_size"),
            num_experts,
            config.positive("num_experts_per_tok", 4),
            bias=True,
        ),
        *router(shape.hidden_size, num_experts, name="mlp.router", bias=True),
        *norm("input_layernorm", shape.hidden_size),
        *norm("post_attention_layernorm", shape.hidden_size),
    )
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds, 128), tensors), tied=False)
