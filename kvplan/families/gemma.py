"""Gemma, Gemma 2 and the text part of Gemma 3: sandwich norms, wide heads, windows.

Class defaults that real files omit are transformers 5.23's: configuration_gemma.py,
configuration_gemma2.py, configuration_gemma3.py (Gemma3TextConfig).
"""

from dataclasses import replace

from kvplan.blocks.attention_pattern import alternating, every_nth_full, layer_types, window_of
from kvplan.blocks.decoder import Shape, as_stated, block, finish, patterned, shape_of
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, norm, norms_of


def _block(config: Config, shape: Shape, *, sandwich: bool, qk_norm: bool) -> tuple[Tensor, ...]:
    bias = config.flag("attention_bias", False)
    extra: tuple[Tensor, ...] = ()
    if qk_norm:
        extra = (*norm("self_attn.q_norm", shape.head_dim), *norm("self_attn.k_norm", shape.head_dim))
    names = ["input_layernorm", "post_attention_layernorm"]
    if sandwich:
        names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    return (
        *attention(
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *extra,
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
        *norms_of(shape.hidden_size, *names),
    )


def gemma(config: Config) -> Structure:
    """Read Gemma 1 (GemmaForCausalLM): head_dim 256 by default, tied."""
    shape = shape_of(config)
    tensors = _block(config, shape, sandwich=False, qk_norm=False)
    return finish(config, shape, as_stated(config, shape, tensors), tied=True)


def gemma2(config: Config) -> Structure:
    """Read Gemma 2: four norms a layer; sliding and full layers take turns, window 4,096."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or alternating(shape.num_layers)
    tensors = _block(config, shape, sandwich=True, qk_norm=False)
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=True)


def vaultgemma(config: Config) -> Structure:
    """Read VaultGemma: Gemma 2's pattern with a norm before each sublayer and none after."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or alternating(shape.num_layers)
    bias = config.flag("attention_bias", False)
    names = ("input_layernorm", "pre_feedforward_layernorm")
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, norms=names)
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=True)


def gemma3_text(config: Config) -> Structure:
    """Read Gemma 3's text model: q/k norms, five sliding layers to each full one.

    With ``use_bidirectional_attention`` a token sees half a window to each side, and transformers
    keeps window // 2 + 1; a bare model that does so embeds text and caches nothing (EmbeddingGemma).
    """
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = every_nth_full(shape.num_layers, config.positive("sliding_window_pattern", 6))
    window = window_of(config, kinds)
    both_ways = config.flag("use_bidirectional_attention", False)
    if both_ways and window:
        window = window // 2 + 1
    tensors = _block(config, shape, sandwich=True, qk_norm=True)
    layers = patterned(shape, kinds, window, tensors)
    if both_ways and not config.path and config.architecture.endswith("Model"):
        layers = (LayerGroup(Layer((), tensors), shape.num_layers),)
        return replace(finish(config, shape, layers, tied=True), kind="encoder")
    return finish(config, shape, layers, tied=True)
