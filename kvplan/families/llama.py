"""The Llama shape: RMSNorm, grouped-query attention, a gated MLP.

Llama, Mistral, Qwen2, Qwen3 and the many that differ from them only in biases, norms and windows.
Source: transformers 5.23 models/* (class defaults come in through families/class_defaults.py);
families without a class there follow the modeling file of their repository.
"""

from kvplan.blocks.attention_pattern import (
    FULL,
    SLIDING,
    every_nth_full,
    first_of_every,
    layer_types,
    switched_window,
    window_of,
)
from kvplan.blocks.decoder import Shape, as_stated, block, finish, patterned, shape_of
from kvplan.config import Config
from kvplan.model import Structure
from kvplan.tensors import Tensor, norm

PRE_NORMS = ("input_layernorm", "post_attention_layernorm")
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


def _biased(config: Config, shape: Shape, norms: tuple[str, ...] = PRE_NORMS) -> tuple[Tensor, ...]:
    """Return a block whose ``attention_bias`` covers q, k, v and o, and ``mlp_bias`` the MLP."""
    bias = config.flag("attention_bias", False)
    mlp_bias = config.flag("mlp_bias", False)
    return block(config, shape, qkv_bias=bias, o_bias=bias, mlp_bias=mlp_bias, norms=norms)


def llama(config: Config) -> Structure:
    """Read Llama (LlamaForCausalLM): biases, and windows, only where the config says."""
    shape = shape_of(config)
    return finish(config, shape, as_stated(config, shape, _biased(config, shape)), tied=False)


def mistral(config: Config) -> Structure:
    """Read Mistral and Ministral: a window on every layer when the config names one, no switch."""
    shape = shape_of(config)
    return finish(config, shape, as_stated(config, shape, block(config, shape)), tied=False)


def qwen2(config: Config) -> Structure:
    """Read Qwen2 and Qwen2.5: biased q, k, v; windows behind ``use_sliding_window``."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or switched_window(config, shape.num_layers, 28)
    layers = patterned(shape, kinds, window_of(config, kinds), block(config, shape, qkv_bias=True))
    return finish(config, shape, layers, tied=False)


def qwen3(config: Config) -> Structure:
    """Read Qwen3: a norm on each query and key head, no biases by default."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or switched_window(config, shape.num_layers, 28)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="head")
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=False)


def olmo2(config: Config) -> Structure:
    """Read OLMo-2: norms over all query and key heads, norms after each sublayer."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="all", norms=POST_NORMS)
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def olmo3(config: Config) -> Structure:
    """Read OLMo-3: OLMo-2 with three sliding layers to each full one."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or every_nth_full(shape.num_layers, 4)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="all", norms=POST_NORMS)
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=False)


def smollm3(config: Config) -> Structure:
    """Read SmolLM3: windows, where switched on, fall on the layers without rotary positions."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = (FULL,) * shape.num_layers
        if config.flag("use_sliding_window", False) and config.has("sliding_window"):
            interval = config.positive("no_rope_layer_interval", 4)
            has_rope = config.integers("no_rope_layers") or tuple(
                int((index + 1) % interval != 0) for index in range(shape.num_layers)
            )
            if len(has_rope) < shape.num_layers:
                raise config.invalid("no_rope_layers", f"names {len(has_rope)} of {shape.num_layers} layers")
            kinds = tuple(FULL if rope else SLIDING for rope in has_rope[: shape.num_layers])
    layers = patterned(shape, kinds, window_of(config, kinds), _biased(config, shape))
    return finish(config, shape, layers, tied=True)


def seed_oss(config: Config) -> Structure:
    """Read Seed-OSS: biased q, k, v by default, a bias on o where the config says."""
    shape = shape_of(config)
    tensors = block(
        config,
        shape,
        qkv_bias=config.flag("attention_bias", True),
        o_bias=config.flag("attention_out_bias", False),
        mlp_bias=config.flag("mlp_bias", False),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def ernie4_5(config: Config) -> Structure:
    """Read ERNIE 4.5 (dense): one ``use_bias`` for all projections, tied by default."""
    shape = shape_of(config)
    bias = config.flag("use_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, mlp_bias=bias)
    return finish(config, shape, as_stated(config, shape, tensors), tied=True)


def hunyuan_dense(config: Config) -> Structure:
    """Read Hunyuan dense: a norm on each query and key head, biases where the config says."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="head")
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def helium(config: Config) -> Structure:
    """Read Helium: Llama whose output projection is hidden by hidden whatever the heads are."""
    shape = shape_of(config)
    if shape.num_attention_heads * shape.head_dim != shape.hidden_size:
        raise config.invalid("head_dim", "times the heads must be hidden_size for Helium's o_proj")
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, mlp_bias=config.flag("mlp_bias", False))
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def granite_swa(config: Config) -> Structure:
    """Read Granite with windows: attention sinks, three sliding layers after each full one."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or first_of_every(shape.num_layers, 4)
    sinks = Tensor("self_attn.sinks", (shape.num_attention_heads,), "attention")
    tensors = (*_biased(config, shape), sinks)
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=True)


def cwm(config: Config) -> Structure:
    """Read CWM: Llama with three sliding layers after each full one."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or first_of_every(shape.num_layers, 4)
    tensors = block(config, shape, mlp_bias=config.flag("mlp_bias", False))
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=False)


def bitnet(config: Config) -> Structure:
    """Read BitNet b1.58: a norm before the output and the down projection."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = (
        *block(config, shape, qkv_bias=bias, o_bias=bias),
        *norm("self_attn.attn_sub_norm", shape.hidden_size),
        *norm("mlp.ffn_sub_norm", config.positive("intermediate_size")),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def hyperclovax(config: Config) -> Structure:
    """Read HyperCLOVA X: Granite's multipliers and, by default, a norm after each sublayer."""
    shape = shape_of(config)
    norms: tuple[str, ...] = PRE_NORMS
    if config.flag("use_post_norm", True):
        norms += ("post_norm1", "post_norm2")
    tensors = _biased(config, shape, norms)
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def internlm3(config: Config) -> Structure:
    """Read InternLM3: Llama; its file says ``qkv_bias`` for attention and ``bias`` for the MLP.

    Source: transformers 5.23 InternLM3Config's attribute map.
    """
    shape = shape_of(config)
    attention_bias = config.flag("qkv_bias", config.flag("attention_bias", False))
    mlp_bias = config.flag("bias", config.flag("mlp_bias", False))
    tensors = block(config, shape, qkv_bias=attention_bias, o_bias=attention_bias, mlp_bias=mlp_bias)
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)
