"""The Llama shape: RMSNorm, grouped-query attention, a gated MLP.

Llama, Mistral, Qwen2, Qwen3 and the many that differ from them only in biases, q/k norms and
windows. Class defaults are transformers 5.23's (models/*/configuration_*.py); families without a
class there follow the modeling file of their repository.
"""

from kvplan.attention_pattern import FULL, SLIDING, layer_types, switched_window, window_of
from kvplan.blocks import attention, gated_mlp
from kvplan.config import Config
from kvplan.decoder import Shape, finish, patterned, shape_of, uniform
from kvplan.model import Structure
from kvplan.tensors import Tensor, norm


def block(
    config: Config,
    shape: Shape,
    *,
    qkv_bias: bool = False,
    o_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: str = "",
) -> tuple[Tensor, ...]:
    """Return one layer's tensors. ``qk_norm`` is ``head`` (one norm a head size) or ``all``."""
    norms: tuple[Tensor, ...] = ()
    if qk_norm == "head":
        norms = (*norm("self_attn.q_norm", shape.head_dim), *norm("self_attn.k_norm", shape.head_dim))
    elif qk_norm == "all":
        norms = (
            *norm("self_attn.q_norm", shape.num_attention_heads * shape.head_dim),
            *norm("self_attn.k_norm", shape.num_key_value_heads * shape.head_dim),
        )
    return (
        *attention(
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=qkv_bias,
            o_bias=o_bias,
        ),
        *norms,
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size"), bias=mlp_bias),
        *norm("input_layernorm", shape.hidden_size),
        *norm("post_attention_layernorm", shape.hidden_size),
    )


def llama(config: Config) -> Structure:
    """Read Llama (LlamaForCausalLM): biases only where the config says."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, mlp_bias=config.flag("mlp_bias", False))
    return finish(config, shape, uniform(shape, tensors), tied=False)


def mistral(config: Config) -> Structure:
    """Read Mistral and Ministral: a window on every layer when the config names one, no switch."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = ((SLIDING if config.has("sliding_window") else FULL),) * shape.num_layers
    layers = patterned(shape, kinds, window_of(config, kinds), block(config, shape))
    return finish(config, shape, layers, tied=False)


def qwen2(config: Config) -> Structure:
    """Read Qwen2 and Qwen2.5: biased q, k, v; windows behind ``use_sliding_window``."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers) or switched_window(config, shape.num_layers, 28)
    layers = patterned(shape, kinds, window_of(config, kinds), block(config, shape, qkv_bias=True))
    return finish(config, shape, layers, tied=False)


def qwen3(config: Config) -> Structure:
    """Read Qwen3: a norm on each query and key head, no biases (head_dim 128 by default)."""
    shape = shape_of(config, head_dim=128)
    kinds = layer_types(config, shape.num_layers) or switched_window(config, shape.num_layers, 28)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="head")
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=False)


def olmo2(config: Config) -> Structure:
    """Read OLMo-2: norms over all query and key heads, norms after each sublayer."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="all")
    return finish(config, shape, uniform(shape, tensors), tied=False)


def olmo3(config: Config) -> Structure:
    """Read OLMo-3: OLMo-2 with three sliding layers to each full one."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = tuple(FULL if (index + 1) % 4 == 0 else SLIDING for index in range(shape.num_layers))
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="all")
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds, 4096), tensors), tied=False)


def smollm3(config: Config) -> Structure:
    """Read SmolLM3: Llama with optional windows and rotary-free layers, tied by default."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 4)
    kinds = layer_types(config, shape.num_layers) or (FULL,) * shape.num_layers
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, mlp_bias=config.flag("mlp_bias", False))
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=True)


def granite(config: Config) -> Structure:
    """Read Granite (dense): Llama with multipliers, untied by default."""
    return llama(config)


def seed_oss(config: Config) -> Structure:
    """Read Seed-OSS: biased q, k, v by default, a bias on o where the config says."""
    shape = shape_of(config, head_dim=None if config.has("head_dim") else 128)
    tensors = block(
        config,
        shape,
        qkv_bias=config.flag("attention_bias", True),
        o_bias=config.flag("attention_out_bias", False),
        mlp_bias=config.flag("mlp_bias", False),
    )
    return finish(config, shape, uniform(shape, tensors), tied=False)


def ernie4_5(config: Config) -> Structure:
    """Read ERNIE 4.5 (dense): one ``use_bias`` for all projections, tied by default."""
    shape = shape_of(config, head_dim=None if config.has("head_dim") else 128)
    bias = config.flag("use_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, mlp_bias=bias)
    return finish(config, shape, uniform(shape, tensors), tied=True)


def hunyuan_dense(config: Config) -> Structure:
    """Read Hunyuan dense: a norm on each query and key head, biases where the config says."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias, qk_norm="head")
    return finish(config, shape, uniform(shape, tensors), tied=False)


def mimo(config: Config) -> Structure:
    """Read MiMo-7B (XiaomiMiMo modeling_mimo.py): Qwen2 with MTP layers beside it."""
    return qwen2(config)


def internlm(config: Config) -> Structure:
    """Read InternLM v1 (internlm modeling_internlm.py): Llama whose ``bias`` covers q, k, v and o."""
    shape = shape_of(config)
    bias = config.flag("bias", True)
    return finish(config, shape, uniform(shape, block(config, shape, qkv_bias=bias, o_bias=bias)), tied=False)


def internlm2(config: Config) -> Structure:
    """Read InternLM2 and 2.5 (modeling_internlm2.py): a fused wqkv of Llama's size, ``bias`` on both."""
    shape = shape_of(config)
    bias = config.flag("bias", False)
    return finish(config, shape, uniform(shape, block(config, shape, qkv_bias=bias, o_bias=bias)), tied=False)


def orion(config: Config) -> Structure:
    """Read Orion (OrionStarAI modeling_orion.py): Llama with LayerNorms that have biases."""
    shape = shape_of(config)
    biases = (
        Tensor("input_layernorm.bias", (shape.hidden_size,), "norm"),
        Tensor("post_attention_layernorm.bias", (shape.hidden_size,), "norm"),
    )
    tensors = (*block(config, shape), *biases)
    return finish(config, shape, uniform(shape, tensors), tied=False, norm_bias=True)


def minicpm(config: Config) -> Structure:
    """Read MiniCPM and MiniCPM4 (openbmb modeling_minicpm.py): Llama's shape, tied by default.

    With ``num_experts`` every MLP is routed (MiniCPM-MoE): see the moe family.
    """
    if config.has("num_experts"):
        from kvplan.families.mixtral import minicpm_moe

        return minicpm_moe(config)
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = block(config, shape, qkv_bias=bias, o_bias=bias)
    return finish(config, shape, uniform(shape, tensors), tied=True)
