"""Nothing but state-space mixers: Mamba, Falcon-Mamba, Mamba-2.

Each layer caches a convolution and a state, whatever the context. Source: transformers 5.23
models/mamba, falcon_mamba, mamba2.
"""

from kvplan.blocks.decoder import Shape, finish
from kvplan.blocks.state_space import mamba1_mixer, mamba2_mixer
from kvplan.config import Config
from kvplan.layers import Layer, LayerGroup, Mamba1State, Mamba2State
from kvplan.model import Structure
from kvplan.tensors import norm


def mamba(config: Config) -> Structure:
    """Read Mamba and Falcon-Mamba: nothing but mixers, tied, no context limit."""
    hidden = config.positive("hidden_size")
    inner = config.positive("intermediate_size", hidden * config.positive("expand", 2))
    state, kernel = config.positive("state_size", 16), config.positive("conv_kernel", 4)
    rank = (
        config.positive("time_step_rank", -(-hidden // 16))
        if _is_count(config, "time_step_rank")
        else -(-hidden // 16)
    )
    layer = Layer(
        (Mamba1State(inner, state, kernel),),
        (
            *mamba1_mixer(
                hidden,
                inner,
                state,
                rank,
                kernel,
                name="mixer",
                bias=config.flag("use_bias", False),
                conv_bias=config.flag("use_conv_bias", True),
            ),
            *norm("norm", hidden),
        ),
    )
    shape = Shape(hidden, config.layers(), 1, 1, 1, config.positive("vocab_size"))
    return finish(config, shape, (LayerGroup(layer, shape.num_layers),), tied=True, context_limit_tokens=0)


def _is_count(config: Config, key: str) -> bool:
    return isinstance(config.raw(key), int)


def mamba2(config: Config) -> Structure:
    """Read Mamba-2: heads of ``head_dim`` over ``expand`` times the width, untied by default."""
    hidden = config.positive("hidden_size")
    cache = Mamba2State(
        config.positive("num_heads", 128),
        config.positive("head_dim", 64),
        config.positive("state_size", 128),
        config.positive("n_groups", 8),
        config.positive("conv_kernel", 4),
    )
    layer = Layer(
        (cache,),
        (
            *mamba2_mixer(
                hidden,
                cache,
                name="mixer",
                bias=config.flag("use_bias", False),
                conv_bias=config.flag("use_conv_bias", True),
            ),
            *norm("norm", hidden),
        ),
    )
    shape = Shape(hidden, config.layers(), 1, 1, 1, config.positive("vocab_size"))
    return finish(config, shape, (LayerGroup(layer, shape.num_layers),), tied=False, context_limit_tokens=0)
