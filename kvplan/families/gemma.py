"""Gemma, Gemma 2 and the text part of Gemma 3: sandwich norms, wide heads, windows.

Class defaults that real files omit are transformers 5.23's: configuration_gemma.py,
configuration_gemma2.py, configuration_gemma3.py (Gemma3TextConfig).
"""

from kvplan.attention_pattern import alternating, every_nth_full, layer_types, window_of
from kvplan.blocks import attention, gated_mlp
from kvplan.config import Config
from kvplan.decoder import Shape, finish, patterned, shape_of, uniform
from kvplan.model import Structure
from kvplan.tensors import Tensor, norm

GEMMA3_VOCAB_SIZE = 262_208


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
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size", 9216)),
        *(tensor for name in names for tensor in norm(name, shape.hidden_size)),
    )


def gemma(config: Config) -> Structure:
    """Read Gemma 1 (GemmaForCausalLM): head_dim 256 by default, tied."""
    shape = shape_of(config, head_dim=256)
    tensors = _block(config, shape, sandwich=False, qk_norm=False)
    return finish(config, shape, uniform(shape, tensors), tied=True)


def gemma2(config: Config) -> Structure:
    """Read Gemma 2: four norms a layer; sliding and full layers take turns, window 4,096."""
    shape = shape_of(config, num_key_value_heads=4, head_dim=256)
    kinds = layer_types(config, shape.num_layers) or alternating(shape.num_layers)
    tensors = _block(config, shape, sandwich=True, qk_norm=False)
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds, 4096), tensors), tied=True)


def gemma3_text(config: Config) -> Structure:
    """Read Gemma 3's text model: q/k norms, five sliding layers to each full one, window 4,096.

    The multimodal files omit head counts, head size and vocabulary; those are the class's.
    """
    shape = shape_of(
        config, num_attention_heads=8, num_key_value_heads=4, head_dim=256, vocab_size=GEMMA3_VOCAB_SIZE
    )
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        pattern = config.positive("sliding_window_pattern", 6)
        kinds = every_nth_full(shape.num_layers, pattern)
    tensors = _block(config, shape, sandwich=True, qk_norm=True)
    return finish(
        config,
        shape,
        patterned(shape, kinds, window_of(config, kinds, 4096), tensors),
        tied=True,
        context_limit_tokens=config.integer("max_position_embeddings", 131_072),
    )
