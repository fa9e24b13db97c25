"""DeciLM and Nemotron-NAS: a Llama from which an architecture search took pieces, layer by layer.

``block_configs`` says for each layer how many query heads share a key-value head, whether the
attention or the MLP is gone or a single matrix, and how wide the MLP is. Source: the
configuration_decilm.py and modeling_decilm.py of nvidia/Llama-3_3-Nemotron-Super-49B-v1.
"""

from kvplan.blocks.decoder import Shape, by_index, finish
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.layers import Cache, FullAttention, Layer, SlidingWindow
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm
from kvplan.units import round_up

PER_LAYER = "num_key_value_heads_per_layer"


def nemotron_nas(config: Config) -> Structure:
    """Read a DeciLM with ``block_configs``.

    Raises UnsupportedArchitecture for attention sinks and sparsified blocks, whose caches and
    weights are not what the shapes say.
    """
    hidden, num_layers = config.positive("hidden_size"), config.layers()
    heads = config.positive("num_attention_heads")
    blocks = config.sequence("block_configs")
    if blocks is None:
        return _uniform_heads(config)
    if len(blocks) < num_layers:
        raise config.invalid("block_configs", f"describes {len(blocks)} layers, but there are {num_layers}")
    head_dim = config.positive("head_dim", max(1, hidden // heads))
    shape = Shape(hidden, num_layers, heads, heads, head_dim, config.positive("vocab_size"))

    def make(index: int) -> Layer:
        item = blocks[index]
        if not isinstance(item, dict):
            raise config.invalid(f"block_configs[{index}]", "is not a nested config")
        part = config.nested(item, f"block_configs[{index}].")
        caches, attention_tensors = _attention(config, part, shape)
        return Layer(caches, (*attention_tensors, *_mlp(config, part, hidden)))

    return finish(config, shape, by_index(num_layers, make), tied=False)


def _uniform_heads(config: Config) -> Structure:
    """Read DeciLM-7B: ``num_key_value_heads_per_layer`` instead of blocks (Deci modeling_decilm.py)."""
    hidden, num_layers = config.positive("hidden_size"), config.layers()
    heads = config.positive("num_attention_heads")
    per_layer = config.integers(PER_LAYER)
    if per_layer is None:
        raise config.invalid("block_configs", "is missing")
    if len(per_layer) < num_layers:
        raise config.invalid(
            "num_key_value_heads_per_layer", f"names {len(per_layer)} of {num_layers} layers"
        )
    head_dim = config.positive("head_dim", max(1, hidden // heads))
    shape = Shape(hidden, num_layers, heads, heads, head_dim, config.positive("vocab_size"))
    width = config.positive("intermediate_size")

    def make(index: int) -> Layer:
        kv_heads = per_layer[index]
        if kv_heads < 1 or heads % kv_heads:
            raise config.invalid(
                "num_key_value_heads_per_layer", f"has {kv_heads}, which does not divide {heads}"
            )
        tensors = (
            *attention(hidden, heads, kv_heads, head_dim),
            *gated_mlp(hidden, width),
            *norm("input_layernorm", hidden),
            *norm("post_attention_layernorm", hidden),
        )
        return Layer((FullAttention(heads, kv_heads, head_dim, head_dim),), tensors)

    return finish(config, shape, by_index(num_layers, make), tied=False)


def _attention(config: Config, part: Config, shape: Shape) -> tuple[tuple[Cache, ...], tuple[Tensor, ...]]:
    """Return a block's caches and tensors: none, one matrix, or attention with groups of its own."""
    said = part.sub("attention")
    if said is None:
        raise part.invalid("attention", "is missing")
    if said.flag("no_op", False):
        return (), ()
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    before = norm("input_layernorm", hidden)
    if said.flag("replace_with_linear", False):
        return (), (*before, *linear("self_attn.linear_attn", hidden, hidden, "attention"))
    for key in ("num_sink_tokens", "sparsify", "unshifted_sink"):
        if said.raw(key):
            raise UnsupportedArchitecture(
                f"{config.origin}: {said.path}{key} is not known",
                why="its cache could be any size",
                hint="report the model",
            )
    group = said.positive("n_heads_in_group")
    if heads % group:
        raise said.invalid("n_heads_in_group", f"is {group}, which does not divide {heads} heads")
    kv_heads, head_dim = heads // group, shape.head_dim
    bias = config.flag("attention_bias", False)
    tensors = (*before, *attention(hidden, heads, kv_heads, head_dim, qkv_bias=bias, o_bias=bias))
    if said.has("window_length"):
        window = said.positive("window_length")
        return (SlidingWindow(heads, kv_heads, head_dim, head_dim, window),), tensors
    return (FullAttention(heads, kv_heads, head_dim, head_dim),), tensors


def _mlp(config: Config, part: Config, hidden: int) -> tuple[Tensor, ...]:
    """Return a block's MLP: none, one matrix, or ``ffn_mult`` times two thirds of four hidden sizes.

    The width is 2 x ffn_mult x hidden / 3, rounded down, then up to a multiple of 256.
    """
    said = part.sub("ffn")
    if said is None:
        raise part.invalid("ffn", "is missing")
    if said.flag("no_op", False):
        return ()
    before = norm("post_attention_layernorm", hidden)
    if said.flag("replace_with_linear", False):
        return (*before, *linear("mlp.linear_mlp", hidden, hidden, "mlp"))
    if said.raw("sparsify"):
        raise UnsupportedArchitecture(
            f"{config.origin}: {said.path}sparsify is not known",
            why="its weights could be any size",
            hint="report the model",
        )
    multiple = said.number("ffn_mult")
    if not 1e-3 < multiple < 10_000:
        raise said.invalid("ffn_mult", f"is {multiple}, which no model has")
    width = round_up(int(2 * multiple * hidden / 3), 256)
    return (*before, *gated_mlp(hidden, width, bias=config.flag("mlp_bias", False)))
