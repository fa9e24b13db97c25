"""The GPTs of 2019 to 2023: GPT-2, GPT-J, GPT-Neo, GPT-NeoX, CodeGen, StarCoder.

LayerNorms with biases, ungated MLPs of four times the width, learned or rotary positions, and the
first multi-query cache. transformers 5.23 models/*; class defaults as there.
"""

from kvplan.blocks.decoder import Shape, finish, uniform
from kvplan.blocks.transformer import attention, plain_mlp
from kvplan.config import Config
from kvplan.families.classic import fused_attention, multi_head_shape, position_table
from kvplan.frozen import replace
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norms_of


def gpt2(config: Config) -> Structure:
    """Read GPT-2: learned positions, fused qkv, biases everywhere, tied."""
    return _gpt2(config, multi_head_shape(config))


def gpt_bigcode(config: Config) -> Structure:
    """Read StarCoder 1 (GPT-BigCode): GPT-2 with one KV head unless ``multi_query`` is off."""
    shape = multi_head_shape(config)
    kv_heads = 1 if config.flag("multi_query", True) else shape.num_attention_heads
    return _gpt2(config, replace(shape, num_key_value_heads=kv_heads))


def _gpt2(config: Config, shape: Shape) -> Structure:
    hidden = shape.hidden_size
    tensors = (
        *fused_attention(shape, "attn.c_attn", "attn.c_proj", bias=True),
        *plain_mlp(
            hidden, config.positive("intermediate_size", 4 * hidden), up="mlp.c_fc", down="mlp.c_proj"
        ),
        *norms_of(hidden, "ln_1", "ln_2", bias=True),
    )
    return _with_positions(config, shape, tensors, 1024)


def _with_positions(
    config: Config, shape: Shape, tensors: tuple[Tensor, ...], num_positions: int
) -> Structure:
    """Finish a tied model with a learned row for each position, ``num_positions`` unless it says."""
    positions = config.positive("max_position_embeddings", num_positions)
    return finish(
        config,
        shape,
        uniform(shape, tensors),
        tied=True,
        norm_bias=True,
        extra=(position_table(positions, shape.hidden_size),),
        context_limit_tokens=positions,
    )


def gptj(config: Config) -> Structure:
    """Read GPT-J: a parallel block with one norm, no attention biases, a biased head."""
    shape = multi_head_shape(config)
    heads = shape.num_attention_heads
    return _gptj(config, shape, attention(shape.hidden_size, heads, heads, shape.head_dim, name="attn"))


def codegen(config: Config) -> Structure:
    """Read CodeGen: GPT-J with fused qkv."""
    shape = multi_head_shape(config)
    return _gptj(config, shape, fused_attention(shape, "attn.qkv_proj", "attn.out_proj", bias=False))


def _gptj(config: Config, shape: Shape, attends: tuple[Tensor, ...]) -> Structure:
    hidden = shape.hidden_size
    tensors = (
        *attends,
        *plain_mlp(
            hidden, config.positive("intermediate_size", 4 * hidden), up="mlp.fc_in", down="mlp.fc_out"
        ),
        *norms_of(hidden, "ln_1", bias=True),
    )
    return finish(config, shape, uniform(shape, tensors), tied=False, norm_bias=True, head_bias=True)


def gpt_neo(config: Config) -> Structure:
    """Read GPT-Neo: its local layers mask a window, but transformers caches their full length."""
    shape = multi_head_shape(config)
    hidden = shape.hidden_size
    heads = shape.num_attention_heads
    projections = tuple(
        tensor
        for name in ("q_proj", "k_proj", "v_proj")
        for tensor in linear(
            f"attn.attention.{name}", heads * shape.head_dim, hidden, "attention", split="out"
        )
    )
    tensors = (
        *projections,
        *linear("attn.attention.out_proj", hidden, hidden, "attention", bias=True, split="in"),
        *plain_mlp(
            hidden, config.positive("intermediate_size", 4 * hidden), up="mlp.c_fc", down="mlp.c_proj"
        ),
        *norms_of(hidden, "ln_1", "ln_2", bias=True),
    )
    return _with_positions(config, shape, tensors, 2048)


def gpt_neox(config: Config) -> Structure:
    """Read GPT-NeoX and Pythia: fused qkv, biases everywhere, untied."""
    shape = multi_head_shape(config)
    hidden = shape.hidden_size
    bias = config.flag("attention_bias", True)
    tensors = (
        *fused_attention(shape, "attention.query_key_value", "attention.dense", bias=bias),
        *plain_mlp(
            hidden,
            config.positive("intermediate_size", 24_576),
            up="mlp.dense_h_to_4h",
            down="mlp.dense_4h_to_h",
        ),
        *norms_of(hidden, "input_layernorm", "post_attention_layernorm", bias=True),
    )
    return finish(config, shape, uniform(shape, tensors), tied=False, norm_bias=True)
