"""Mixtures whose layers are Llama's but for the MLP, and which differ in which MLPs are routed.

ERNIE 4.5, K-EXAONE, dots.llm1, Hunyuan-A13B, Hy3, Solar Open, Granite 3 MoE, Phi-3.5-MoE, Cohere's
MoE, FlexOlmo, Aria's text. Source: transformers 5.23 models/ernie4_5_moe, exaone_moe, dots1,
hunyuan_v1_moe, hy_v3, solar_open, granitemoe, granitemoeshared, granitemoe_swa, phimoe, cohere2_moe,
flex_olmo, aria.
"""

from collections.abc import Sequence

from kvplan.blocks.attention_pattern import (
    FULL,
    SLIDING,
    layer_types,
    marked,
    window_of,
    windowed,
)
from kvplan.blocks.decoder import TWO_NORMS, Shape, attention_cache, attention_of, by_index, finish, shape_of
from kvplan.blocks.routing import routed_mlp, stated_sparse
from kvplan.blocks.transformer import experts, gated_mlp, router
from kvplan.config import Config
from kvplan.layers import Layer, LayerGroup
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norms_of


def ernie4_5_moe(config: Config) -> Structure:
    """Read ERNIE 4.5 with experts: ``use_bias`` everywhere, a learned score correction, tied by default."""
    shape, bias = shape_of(config), config.flag("use_bias", False)
    width, num_shared = config.positive("moe_intermediate_size"), config.integer("moe_num_shared_experts", 2)
    num_experts = config.positive("num_experts")
    routed = (
        *routed_mlp(config, shape.hidden_size, width),
        Tensor("mlp.gate.moe_statics.e_score_correction_bias", (1, num_experts), "router"),
        *_shared(shape, width * num_shared, bias=bias),
    )
    dense = gated_mlp(shape.hidden_size, config.positive("intermediate_size"), bias=bias)
    first, last = config.integer("moe_layer_start_index", 1), _last_routed(config, shape)
    step = config.positive("moe_layer_interval", 1)
    sparse = tuple((index + 1) % step == 0 and first <= index <= last for index in range(shape.num_layers))
    layers = _layers(config, shape, attention_of(shape, qkv_bias=bias, o_bias=bias), routed, dense, sparse)
    return finish(config, shape, layers, tied=True, head_bias=bias)


def _last_routed(config: Config, shape: Shape) -> int:
    last = config.raw("moe_layer_end_index")
    return shape.num_layers - 1 if last in (None, -1) else config.integer("moe_layer_end_index")


def exaone_moe(config: Config) -> Structure:
    """Read K-EXAONE: windows by ``sliding_window_pattern`` (a step, or ``LLLG``), q and k norms."""
    shape = shape_of(config)
    width = config.positive("moe_intermediate_size")
    routed = (
        *routed_mlp(config, shape.hidden_size, width),
        *_shared(shape, width * config.integer("num_shared_experts", 1)),
    )
    dense = gated_mlp(shape.hidden_size, config.positive("intermediate_size"))
    layers = _layers(
        config,
        shape,
        attention_of(shape, qk_norm="head"),
        routed,
        dense,
        _sparse_layers(config, shape.num_layers, 1),
        kinds=layer_types(config, shape.num_layers) or _exaone_pattern(config, shape.num_layers),
    )
    return finish(config, shape, layers, tied=False)


def _exaone_pattern(config: Config, num_layers: int) -> tuple[str, ...]:
    if not config.has("sliding_window"):
        return (FULL,) * num_layers
    pattern = config.raw("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:
        return marked(num_layers, pattern)
    step = config.positive("sliding_window_pattern", 4)
    return tuple(FULL if (index + 1) % step == 0 else SLIDING for index in range(num_layers))


def dots1(config: Config) -> Structure:
    """Read dots.llm1: q and k norms, dense first layers, windows from ``max_window_layers`` on."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        first = config.integer("max_window_layers", 62) if config.has("sliding_window") else shape.num_layers
        kinds = tuple(SLIDING if index >= first else FULL for index in range(shape.num_layers))
    width = config.positive("moe_intermediate_size", 1408)
    routed = (
        *routed_mlp(config, shape.hidden_size, width),
        *_shared(shape, width * config.integer("n_shared_experts", 0)),
    )
    dense = gated_mlp(shape.hidden_size, config.positive("intermediate_size"))
    sparse = tuple(index >= config.integer("first_k_dense_replace", 0) for index in range(shape.num_layers))
    attending = attention_of(shape, qkv_bias=bias, o_bias=bias, qk_norm="head")
    layers = _layers(config, shape, attending, routed, dense, sparse, kinds=kinds)
    return finish(config, shape, layers, tied=False)


def hunyuan_moe(config: Config) -> Structure:
    """Read Hunyuan-A13B: every layer routes, beside a shared MLP of the same width; q and k norms."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    width = config.positive("intermediate_size")
    routed = (
        *experts(shape.hidden_size, width, _per_layer(config, "num_experts"), _per_layer(config, "moe_topk")),
        *router(shape.hidden_size, _per_layer(config, "num_experts"), name="mlp.gate.wg"),
        *gated_mlp(shape.hidden_size, width, name="mlp.shared_mlp", role="shared_expert"),
    )
    sparse = (True,) * shape.num_layers
    layers = _layers(
        config, shape, attention_of(shape, qkv_bias=bias, o_bias=bias, qk_norm="head"), routed, (), sparse
    )
    return finish(config, shape, layers, tied=False)


def _per_layer(config: Config, key: str) -> int:
    """Read a count that files may give once a layer; layers that differ are refused."""
    if not isinstance(config.raw(key), list):
        return config.positive(key, 1)
    values = set(config.integers(key) or ())
    if len(values) != 1 or min(values) < 1:
        raise config.invalid(key, "differs between layers, which is not known")
    return values.pop()


def hy3(config: Config) -> Structure:
    """Read Hy3: q and k norms, a dense first layer, a shared expert beside the routed ones."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    mlp_bias = config.flag("mlp_bias", False)
    width = config.positive("moe_intermediate_size")
    routed = (
        *routed_mlp(config, shape.hidden_size, width),
        *_shared(shape, width * config.integer("num_shared_experts", 1), bias=mlp_bias),
    )
    dense = gated_mlp(shape.hidden_size, config.positive("intermediate_size"), bias=mlp_bias)
    sparse = _sparse_layers(config, shape.num_layers, 1)
    layers = _layers(
        config, shape, attention_of(shape, qkv_bias=bias, o_bias=bias, qk_norm="head"), routed, dense, sparse
    )
    return finish(config, shape, layers, tied=False)


def solar_open(config: Config) -> Structure:
    """Read Solar Open: every layer routes beside a shared expert; the output projection has no bias."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    width = config.positive("moe_intermediate_size")
    routed = (
        *routed_mlp(config, shape.hidden_size, width),
        *_shared(shape, width * config.integer("n_shared_experts", 1)),
    )
    layers = _layers(
        config, shape, attention_of(shape, qkv_bias=bias), routed, (), (True,) * shape.num_layers
    )
    return finish(config, shape, layers, tied=False)


def granite_moe(config: Config) -> Structure:
    """Read Granite 3 MoE, with a shared MLP where ``shared_intermediate_size`` says so."""
    return _granite(config, sinks=False)


def granite_moe_swa(config: Config) -> Structure:
    """Read Granite's windowed MoE: a sink a head, three layers of four with a window."""
    return _granite(config, sinks=True)


def _granite(config: Config, *, sinks: bool) -> Structure:
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    shared = config.integer("shared_intermediate_size", 0)
    routed: tuple[Tensor, ...] = routed_mlp(
        config,
        shape.hidden_size,
        config.positive("intermediate_size"),
        name="block_sparse_moe",
        gate="router",
    )
    if shared:
        routed += (
            *linear("shared_mlp.input_linear", 2 * shared, shape.hidden_size, "shared_expert", split="out"),
            *linear("shared_mlp.output_linear", shape.hidden_size, shared, "shared_expert", split="in"),
        )
    attending = attention_of(shape, qkv_bias=bias, o_bias=bias)
    kinds = layer_types(config, shape.num_layers)
    if sinks:
        attending += (Tensor("self_attn.sinks", (shape.num_attention_heads,), "attention", split="out"),)
        if kinds is None:
            kinds = tuple(FULL if index % 4 == 0 else SLIDING for index in range(shape.num_layers))
    layers = _layers(config, shape, attending, routed, (), (True,) * shape.num_layers, kinds=kinds)
    return finish(config, shape, layers, tied=False)


def phimoe(config: Config) -> Structure:
    """Read Phi-3.5-MoE: LayerNorms with biases, every MLP routed."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    routed = (
        *routed_mlp(config, shape.hidden_size, config.positive("intermediate_size"), gate="router"),
        *(Tensor(f"{name}.bias", (shape.hidden_size,), "norm") for name in TWO_NORMS),
    )
    layers = _layers(
        config, shape, attention_of(shape, qkv_bias=bias, o_bias=bias), routed, (), (True,) * shape.num_layers
    )
    head_bias = config.flag("lm_head_bias", False)
    return finish(config, shape, layers, tied=False, norm_bias=True, head_bias=head_bias)


def cohere2_moe(config: Config) -> Structure:
    """Read Cohere's MoE: Command R7B's windows and single norm a layer, dense layers first."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    num_dense = config.integer("first_k_dense_replace", 0)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        first, step = (
            config.positive("prefix_dense_sliding_window_pattern", 1),
            config.positive("sliding_window_pattern", 4),
        )
        kinds = tuple(
            FULL
            if ((index + 1) % first == 0 and index < num_dense)
            or (index >= num_dense and (index - num_dense + 1) % step == 0)
            else SLIDING
            for index in range(shape.num_layers)
        )
    width = config.positive("intermediate_size")
    routed = (
        *routed_mlp(config, shape.hidden_size, width),
        *_shared(shape, width * config.integer("num_shared_experts", 0)),
    )
    sparse = _sparse_layers(config, shape.num_layers, 0)
    dense: tuple[Tensor, ...] = ()
    if not all(sparse):
        dense = gated_mlp(shape.hidden_size, config.positive("prefix_dense_intermediate_size", width))
    layers = _layers(
        config,
        shape,
        attention_of(shape, qkv_bias=bias, o_bias=bias),
        routed,
        dense,
        sparse,
        kinds=kinds,
        norms=("input_layernorm",),
    )
    return finish(config, shape, layers, tied=True)


def flex_olmo(config: Config) -> Structure:
    """Read FlexOlmo: OLMo 2's norms after each block, every MLP routed."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    routed = routed_mlp(config, shape.hidden_size, config.positive("intermediate_size"))
    layers = _layers(
        config,
        shape,
        attention_of(shape, qkv_bias=bias, o_bias=bias, qk_norm="all"),
        routed,
        (),
        (True,) * shape.num_layers,
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    )
    return finish(config, shape, layers, tied=False)


def aria_text(config: Config) -> Structure:
    """Read Aria's text model: every MLP routed beside ``moe_num_shared_experts`` shared ones."""
    shape, bias = shape_of(config), config.flag("attention_bias", False)
    width = config.positive("intermediate_size")
    routed = (
        *routed_mlp(config, shape.hidden_size, width, gate="router"),
        *_shared(
            shape,
            width * config.integer("moe_num_shared_experts", 2),
            bias=config.flag("mlp_bias", False),
        ),
    )
    layers = _layers(
        config, shape, attention_of(shape, qkv_bias=bias, o_bias=bias), routed, (), (True,) * shape.num_layers
    )
    return finish(config, shape, layers, tied=False)


def _shared(shape: Shape, width: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    if not width:
        return ()
    return gated_mlp(shape.hidden_size, width, bias=bias, name="mlp.shared_experts", role="shared_expert")


def _sparse_layers(config: Config, num_layers: int, default_dense: int) -> tuple[bool, ...]:
    """Return which layers route: ``mlp_layer_types``, or all after ``first_k_dense_replace``."""
    stated = stated_sparse(config, num_layers)
    num_dense = config.integer("first_k_dense_replace", default_dense)
    return stated or tuple(index >= num_dense for index in range(num_layers))


def _layers(
    config: Config,
    shape: Shape,
    attending: tuple[Tensor, ...],
    routed: tuple[Tensor, ...],
    dense: tuple[Tensor, ...],
    sparse: Sequence[bool],
    *,
    kinds: tuple[str, ...] | None = None,
    norms: tuple[str, ...] = TWO_NORMS,
) -> tuple[LayerGroup, ...]:
    kinds = kinds or windowed(config, shape.num_layers)
    window = window_of(config, kinds)
    around = norms_of(shape.hidden_size, *norms)
    with_experts, without = (*attending, *routed, *around), (*attending, *dense, *around)

    def make(index: int) -> Layer:
        cache = attention_cache(shape, kinds[index], window)
        return Layer((cache,), with_experts if sparse[index] else without)

    return by_index(shape.num_layers, make)
