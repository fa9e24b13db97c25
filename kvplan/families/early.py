"""The first decoders, and GPT-NeoX for Japanese: GPT-1, CTRL.

Every head has keys and values of its own. Source: transformers 5.23 models/openai, ctrl, gpt_neox_japanese.
"""

from kvplan.blocks.decoder import Shape, as_stated, by_index, finish, shape_of, uniform
from kvplan.blocks.transformer import plain_mlp
from kvplan.config import Config
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm


def _shape(config: Config) -> Shape:
    hidden = config.positive("hidden_size")
    heads = config.heads(hidden)
    return Shape(hidden, config.layers(), heads, heads, hidden // heads, config.positive("vocab_size"))


def _two_norms(size: int, *names: str) -> tuple[Tensor, ...]:
    return tuple(tensor for name in names for tensor in norm(name, size, bias=True))


def openai_gpt(config: Config) -> Structure:
    """Read GPT-1: norms after each sublayer and none at the end, learned positions, tied.

    Its class caches nothing: every token goes through with all before it (modeling_openai.py).
    """
    shape = _shape(config)
    hidden, positions = shape.hidden_size, config.positive("n_positions")
    tensors = (
        *linear("attn.c_attn", 3 * hidden, hidden, "attention", bias=True, split="out"),
        *linear("attn.c_proj", hidden, hidden, "attention", bias=True, split="in"),
        *plain_mlp(hidden, 4 * hidden, up="mlp.c_fc", down="mlp.c_proj"),
        *_two_norms(hidden, "ln_1", "ln_2"),
    )
    table = Tensor("transformer.positions_embed.weight", (positions, hidden), "position_embedding")
    return finish(
        config,
        shape,
        (LayerGroup(Layer((), tensors), shape.num_layers),),
        tied=True,
        final_norm=False,
        extra=(table,),
        context_limit_tokens=positions,
    )


def ctrl(config: Config) -> Structure:
    """Read CTRL: sinusoids that are computed, biases everywhere, a tied head with a bias."""
    shape = _shape(config)
    hidden = shape.hidden_size
    tensors = (
        *(
            tensor
            for name in ("Wq", "Wk", "Wv", "dense")
            for tensor in linear(f"multi_head_attention.{name}", hidden, hidden, "attention", bias=True)
        ),
        *plain_mlp(hidden, config.positive("dff"), up="ffn.0", down="ffn.2"),
        *_two_norms(hidden, "layernorm1", "layernorm2"),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=True, norm_bias=True, head_bias=True)


def gpt_neox_japanese(config: Config) -> Structure:
    """Read GPT-NeoX Japanese: no biases but one, on the last layer's attention."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    width = config.positive("intermediate_multiple_size") * hidden
    tensors = (
        *linear("attention.query_key_value", 3 * hidden, hidden, "attention", split="out"),
        *linear("attention.dense", hidden, hidden, "attention", split="in"),
        *plain_mlp(hidden, width, bias=False, up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
        *_two_norms(hidden, "input_layernorm", "post_attention_layernorm"),
    )
    caches = uniform(shape, ())[0].layer.caches
    usual = Layer(caches, tensors)
    last = Layer(caches, (*tensors, Tensor("attention.dense_bias", (hidden,), "attention")))
    layers = by_index(shape.num_layers, lambda index: last if index == shape.num_layers - 1 else usual)
    return finish(config, shape, layers, tied=True, norm_bias=True)
