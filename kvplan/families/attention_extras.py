"""Llama's layer with one thing more in its attention: DiffLlama, Doge, JetMoe, Muse's text models.

DiffLlama subtracts two maps, Doge learns which keys to keep, JetMoe chooses among sets of query
heads, Muse gates what attention returns. What they cache is Llama's. Source: transformers 5.23
models/diffllama, doge, jetmoe, muse_glimmer, muse_spark.
"""

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types, window_of
from kvplan.blocks.decoder import Shape, as_stated, block, finish, patterned, shape_of
from kvplan.blocks.routing import num_experts_of
from kvplan.blocks.transformer import attention, experts, router
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of

FOUR_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def diffllama(config: Config) -> Structure:
    """Read DiffLlama: four lambda vectors a layer; keys and values are stored once for both maps."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    lambdas = tuple(
        Tensor(f"self_attn.lambda_{name}", (shape.head_dim,), "attention")
        for name in ("q1", "k1", "q2", "k2")
    )
    tensors = (*block(config, shape, qkv_bias=bias, o_bias=bias), *lambdas)
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def doge(config: Config) -> Structure:
    """Read Doge: a dynamic mask from the values, norms on heads, weighted residuals.

    Raises UnsupportedArchitecture for its routed form, whose experts are rows of two embeddings.
    """
    if config.flag("is_moe", False):
        raise UnsupportedArchitecture(
            f"{config.origin or 'doge'}: is_moe is not known",
            why="Doge's experts are looked up by product keys, and no such checkpoint is in use",
            hint="plan the dense form (is_moe false), or report the model",
        )
    shape = shape_of(config)
    hidden, bias = shape.hidden_size, config.flag("attention_bias", False)
    kv_heads = shape.num_key_value_heads
    tensors = (
        *block(
            config,
            shape,
            qkv_bias=bias,
            o_bias=bias,
            mlp_bias=config.flag("mlp_bias", False),
            qk_norm="head",
        ),
        Tensor("self_attn.A", (kv_heads,), "attention"),
        *linear("self_attn.dt_proj", kv_heads, kv_heads * shape.head_dim, "attention", bias=bias),
        Tensor("input_residual", (hidden,), "norm"),
        Tensor("post_attention_residual", (hidden,), "norm"),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def jetmoe(config: Config) -> Structure:
    """Read JetMoe: each token picks ``num_experts_per_tok`` sets of ``num_key_value_heads`` query heads.

    Keys and values are cached once and repeated for the sets when they are read (modeling_jetmoe.py).
    """
    hidden, kv_heads = config.positive("hidden_size"), config.positive("num_key_value_heads")
    head_dim, width = config.positive("head_dim"), config.positive("intermediate_size")
    num_experts, active = num_experts_of(config)
    inner = kv_heads * head_dim
    shape = Shape(
        hidden, config.layers(), kv_heads * active, kv_heads, head_dim, config.positive("vocab_size")
    )
    tensors = (
        Tensor("self_attention.experts.bias", (hidden,), "attention"),
        Tensor("self_attention.experts.input_linear", (inner, hidden), "expert", num_experts, active),
        Tensor("self_attention.experts.output_linear", (hidden, inner), "expert", num_experts, active),
        *router(hidden, num_experts, name="self_attention.experts.router.layer"),
        *linear("self_attention.kv_proj", 2 * inner, hidden, "attention", split="kv", num_heads=kv_heads),
        Tensor("mlp.bias", (hidden,), "mlp"),
        *experts(hidden, width, num_experts, active, name="mlp"),
        *router(hidden, num_experts, name="mlp.router.layer"),
        *norms_of(hidden, "input_layernorm", "post_attention_layernorm"),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=True)


def muse_glimmer_text(config: Config) -> Structure:
    """Read Muse Glimmer's text model: gated attention, four norms, windows on three layers of four."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = (
        *block(config, shape, qkv_bias=bias, o_bias=bias, norms=FOUR_NORMS),
        *_gate(shape),
    )
    return _windowed(config, shape, tensors)


def muse_spark_text(config: Config) -> Structure:
    """Read Muse Spark's text model: experts in a narrower space, residuals behind learned gates."""
    shape = shape_of(config)
    hidden, bias = shape.hidden_size, config.flag("attention_bias", False)
    narrow, width = config.positive("moe_hidden_size"), config.positive("moe_intermediate_size")
    num_experts, active = num_experts_of(config)
    kinds = config.per_layer("mlp_layer_types", shape.num_layers) or ()
    if any(kind != "sparse" for kind in kinds):
        raise config.invalid("mlp_layer_types", "has a layer that is not 'sparse', which the class lacks")
    tensors = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *_gate(shape),
        *router(hidden, num_experts),
        *linear("mlp.pre_expert_proj", narrow, hidden, "mlp", split="out"),
        *norm("mlp.pre_expert_norm", narrow),
        *experts(narrow, width, num_experts, active),
        *norm("mlp.experts.post_expert_norm", narrow),
        *linear("mlp.post_expert_proj", hidden, narrow, "mlp", split="in"),
        *norms_of(hidden, "input_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
        Tensor("post_attention_residual_gate.gate", (hidden,), "norm"),
        Tensor("post_feedforward_residual_gate.gate", (hidden,), "norm"),
    )
    return _windowed(config, shape, tensors)


def _gate(shape: Shape) -> tuple[Tensor, ...]:
    rows = shape.num_attention_heads * shape.head_dim
    return linear("self_attn.gate_proj", rows, shape.hidden_size, "attention", split="out")


def _windowed(config: Config, shape: Shape, tensors: tuple[Tensor, ...]) -> Structure:
    # configuration_muse_glimmer.py: full layers are every fourth, counted back from the last.
    last = shape.num_layers - 1
    usual = tuple(FULL if (last - index) % 4 == 0 else SLIDING for index in range(last + 1))
    kinds = layer_types(config, shape.num_layers) or usual
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=False)
