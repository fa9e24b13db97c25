"""Llama-shaped families that come with their own modeling file: MiMo, InternLM, Orion, MiniCPM.

transformers 5.23 has no class for them; each function names the file whose layout it follows.
"""

from kvplan.blocks.attention_pattern import layer_types, switched_window, window_of
from kvplan.blocks.decoder import as_stated, attention_cache, block, finish, patterned, shape_of
from kvplan.blocks.transformer import experts, router
from kvplan.config import Config
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm


def mimo(config: Config) -> Structure:
    """Read MiMo-7B (XiaomiMiMo modeling_mimo.py): Qwen2 with prediction layers beside it.

    A prediction layer is a Qwen2 layer, three more norms and a projection of two hidden vectors.
    """
    shape = shape_of(config)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers) or switched_window(config, shape.num_layers, 28)
    bias = config.flag("attention_bias", True)
    tensors = block(config, shape, qkv_bias=bias)
    layers = patterned(shape, kinds, window_of(config, kinds), tensors)
    num_mtp = config.integer("num_nextn_predict_layers", 0)
    mtp = Layer(
        (attention_cache(shape, kinds[-1], window_of(config, kinds)),),
        (
            *tensors,
            *norm("token_layernorm", hidden),
            *norm("hidden_layernorm", hidden),
            *norm("final_layernorm", hidden),
            *linear("input_proj", hidden, 2 * hidden, "mtp"),
        ),
    )
    return finish(
        config, shape, layers, tied=False, mtp_layers=(LayerGroup(mtp, num_mtp),) if num_mtp else ()
    )


def internlm(config: Config) -> Structure:
    """Read InternLM v1 (internlm modeling_internlm.py): Llama whose ``bias`` covers q, k, v and o."""
    shape = shape_of(config)
    bias = config.flag("bias", True)
    return finish(
        config, shape, as_stated(config, shape, block(config, shape, qkv_bias=bias, o_bias=bias)), tied=False
    )


def internlm2(config: Config) -> Structure:
    """Read InternLM2 and 2.5 (modeling_internlm2.py): a fused wqkv of Llama's size, ``bias`` on both."""
    shape = shape_of(config)
    bias = config.flag("bias", False)
    return finish(
        config, shape, as_stated(config, shape, block(config, shape, qkv_bias=bias, o_bias=bias)), tied=False
    )


def orion(config: Config) -> Structure:
    """Read Orion (OrionStarAI modeling_orion.py): Llama with LayerNorms that have biases."""
    shape = shape_of(config)
    biases = (
        Tensor("input_layernorm.bias", (shape.hidden_size,), "norm"),
        Tensor("post_attention_layernorm.bias", (shape.hidden_size,), "norm"),
    )
    tensors = (*block(config, shape), *biases)
    return finish(config, shape, as_stated(config, shape, tensors), tied=False, norm_bias=True)


def minicpm(config: Config) -> Structure:
    """Read MiniCPM and MiniCPM4 (openbmb modeling_minicpm.py): Llama's shape, tied by default.

    With ``num_experts`` every MLP is routed (MiniCPM-MoE). MiniCPM4's sparse attention reads less of
    the cache but stores all of it.
    """
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias)
    if config.has("num_experts") and config.integer("num_experts") > 0:
        hidden, width = shape.hidden_size, config.positive("intermediate_size")
        count, active = config.positive("num_experts"), config.positive("num_experts_per_tok")
        if active > count:
            raise config.invalid("num_experts_per_tok", f"is {active}, more than {count} experts")
        tensors = (
            *(tensor for tensor in tensors if not tensor.name.startswith("mlp.")),
            *experts(hidden, width, count, active),
            *router(hidden, count),
        )
    return finish(config, shape, as_stated(config, shape, tensors), tied=True)
