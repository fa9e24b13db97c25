"""Dense decoders near Llama's shape but for norms, MLPs or fusions: Cohere, StarCoder2, GLM, OLMo …

transformers 5.23 models/*; families without a class there follow the modeling file of their
repository: ChatGLM, Qwen v1, Baichuan.
"""

from kvplan.blocks.attention_pattern import FULL, every_nth_full, layer_types, marked, window_of
from kvplan.blocks.decoder import (
    TWO_NORMS,
    Shape,
    as_stated,
    attention_of,
    finish,
    fixed_head_dim,
    patterned,
    shape_of,
)
from kvplan.blocks.transformer import gated_mlp, plain_mlp
from kvplan.config import Config
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norms_of


def _ungated(config: Config, shape: Shape, *, bias: bool) -> tuple[Tensor, ...]:
    """Return an MLP without gate, with biases where the config says, else as ``bias`` has it."""
    return plain_mlp(
        shape.hidden_size,
        config.positive("intermediate_size"),
        bias=config.flag("mlp_bias", bias),
        up="mlp.up_proj",
        down="mlp.down_proj",
    )


def _squared_relu(config: Config, *, bias: bool) -> Structure:
    """Read LayerNorms with biases around attention and an ungated MLP, which have them by ``bias``."""
    shape = shape_of(config)
    has_bias = config.flag("attention_bias", bias)
    tensors = (
        *attention_of(shape, qkv_bias=has_bias, o_bias=has_bias),
        *_ungated(config, shape, bias=bias),
        *norms_of(shape.hidden_size, *TWO_NORMS, bias=True),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False, norm_bias=True)


def cohere(config: Config) -> Structure:
    """Read Command-R and Aya: a parallel block with one norm, tied; norms on heads where the config says."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    qk: tuple[Tensor, ...] = ()
    if config.flag("use_qk_norm", False):
        qk = (
            Tensor("self_attn.q_norm.weight", (shape.num_attention_heads, shape.head_dim), "norm"),
            Tensor("self_attn.k_norm.weight", (shape.num_key_value_heads, shape.head_dim), "norm"),
        )
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias),
        *qk,
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
        *norms_of(shape.hidden_size, "input_layernorm"),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=True)


def cohere2(config: Config) -> Structure:
    """Read Command-R7B and Command-A: Cohere with three sliding layers to each full one."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = every_nth_full(shape.num_layers, config.positive("sliding_window_pattern", 4))
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias),
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
        *norms_of(shape.hidden_size, "input_layernorm"),
    )
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=True)


def starcoder2(config: Config) -> Structure:
    """Read StarCoder2: biases and LayerNorms, an ungated MLP, a window on every layer if named, tied."""
    shape = shape_of(config)
    bias = config.flag("use_bias", True)
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias),
        *plain_mlp(
            shape.hidden_size,
            config.positive("intermediate_size"),
            bias=bias,
            up="mlp.c_fc",
            down="mlp.c_proj",
        ),
        *norms_of(shape.hidden_size, *TWO_NORMS, bias=True),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=True, norm_bias=True)


def stablelm(config: Config) -> Structure:
    """Read StableLM: LayerNorms with biases; per-head norms and a parallel block where the config says."""
    shape = fixed_head_dim(config, shape_of(config))
    qkv_bias = config.flag("use_qkv_bias", False)
    qk: tuple[Tensor, ...] = ()
    if config.flag("qk_layernorm", False):
        heads = shape.num_attention_heads + shape.num_key_value_heads
        qk = (Tensor("self_attn.qk_layernorm.weight", (heads, shape.head_dim), "norm"),)
    names = ["input_layernorm"]
    if not config.flag("use_parallel_residual", False):
        names.append("post_attention_layernorm")
    tensors = (
        *attention_of(shape, qkv_bias=qkv_bias),
        *qk,
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
        *norms_of(shape.hidden_size, *names, bias=True),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False, norm_bias=True)


def glm(config: Config) -> Structure:
    """Read GLM-4 (0414 and the first Hub conversion): biased q, k, v, fused gate and up."""
    return _glm(config, sandwich=False)


def glm4(config: Config) -> Structure:
    """Read GLM-4-0414: GLM with norms after each sublayer as well."""
    return _glm(config, sandwich=True)


def _glm(config: Config, *, sandwich: bool) -> Structure:
    shape = shape_of(config)
    width = config.positive("intermediate_size")
    names = ["input_layernorm", "post_attention_layernorm"]
    if sandwich:
        names += ["post_self_attn_layernorm", "post_mlp_layernorm"]
    tensors = (
        *attention_of(shape, qkv_bias=config.flag("attention_bias", True)),
        *linear("mlp.gate_up_proj", 2 * width, shape.hidden_size, "mlp", split="out"),
        *linear("mlp.down_proj", shape.hidden_size, width, "mlp", split="in"),
        *norms_of(shape.hidden_size, *names),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def nemotron(config: Config) -> Structure:
    """Read Nemotron-4 and Minitron: LayerNorms with biases, a squared-ReLU MLP without gate."""
    return _squared_relu(config, bias=False)


def apertus(config: Config) -> Structure:
    """Read Apertus: norms on heads, an ungated MLP whose activation has two learned scalars."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias),
        *norms_of(shape.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
        *_ungated(config, shape, bias=False),
        Tensor("mlp.act_fn.alpha_p", (1,), "mlp"),
        Tensor("mlp.act_fn.alpha_n", (1,), "mlp"),
        *norms_of(shape.hidden_size, "attention_layernorm", "feedforward_layernorm"),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def olmo(config: Config) -> Structure:
    """Read OLMo 1: Llama without learned norms."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias),
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False, final_norm=False)


def arcee(config: Config) -> Structure:
    """Read Arcee (AFM): Llama with an ungated squared-ReLU MLP."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias),
        *_ungated(config, shape, bias=False),
        *norms_of(shape.hidden_size, *TWO_NORMS),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def jais2(config: Config) -> Structure:
    """Read Jais 2: Nemotron's layer, LayerNorms and a squared-ReLU MLP, with biases by default."""
    return _squared_relu(config, bias=True)


def nanochat(config: Config) -> Structure:
    """Read nanochat: no learned norms, an ungated MLP."""
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    tensors = (
        *attention_of(shape, qkv_bias=bias, o_bias=bias),
        *plain_mlp(shape.hidden_size, config.positive("intermediate_size"), bias=False),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False, final_norm=False)


def exaone4(config: Config) -> Structure:
    """Read EXAONE 4: norms on heads and after sublayers; ``LLLG`` says which layers are global."""
    shape = shape_of(config)
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = _exaone4_kinds(config, shape.num_layers)
    tensors = (
        *attention_of(shape),
        *norms_of(shape.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
        *gated_mlp(shape.hidden_size, config.positive("intermediate_size")),
        *norms_of(shape.hidden_size, "post_attention_layernorm", "post_feedforward_layernorm"),
    )
    return finish(config, shape, patterned(shape, kinds, window_of(config, kinds), tensors), tied=False)


def _exaone4_kinds(config: Config, num_layers: int) -> tuple[str, ...]:
    pattern = config.raw("sliding_window_pattern")
    if not config.has("sliding_window") or pattern is None:
        return (FULL,) * num_layers
    if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:
        return marked(num_layers, pattern)
    return every_nth_full(num_layers, config.positive("sliding_window_pattern"))


def chatglm(config: Config) -> Structure:
    """Read ChatGLM2, ChatGLM3 and GLM-4-9B (THUDM modeling_chatglm.py): grouped queries, fused matrices."""
    hidden = config.positive("hidden_size")
    heads = config.positive("num_attention_heads")
    kv_heads = heads
    if config.flag("multi_query_attention", False):
        kv_heads = config.positive("multi_query_group_num")
    shape = Shape(
        hidden,
        config.layers(),
        heads,
        kv_heads,
        config.positive("kv_channels", max(1, hidden // heads)),
        config.positive("vocab_size"),
    )
    width = config.positive("intermediate_size")
    rows = (heads + 2 * kv_heads) * shape.head_dim
    bias = config.flag("add_bias_linear", False)
    qkv_bias = bias or config.flag("add_qkv_bias", False)
    tensors = (
        *linear("self_attention.query_key_value", rows, hidden, "attention", bias=qkv_bias, split="out"),
        *linear("self_attention.dense", hidden, heads * shape.head_dim, "attention", bias=bias, split="in"),
        *linear("mlp.dense_h_to_4h", 2 * width, hidden, "mlp", bias=bias, split="out"),
        *linear("mlp.dense_4h_to_h", hidden, width, "mlp", bias=bias, split="in"),
        *norms_of(hidden, *TWO_NORMS),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def qwen1(config: Config) -> Structure:
    """Read Qwen v1 (Qwen modeling_qwen.py): fused c_attn with a bias, two halves of an MLP."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    inner = shape.num_attention_heads * shape.head_dim
    half = config.positive("intermediate_size") // 2
    bias = not config.flag("no_bias", True)
    tensors = (
        *linear("attn.c_attn", 3 * inner, hidden, "attention", bias=True, split="out"),
        *linear("attn.c_proj", hidden, inner, "attention", bias=bias, split="in"),
        *linear("mlp.w1", half, hidden, "mlp", bias=bias, split="out"),
        *linear("mlp.w2", half, hidden, "mlp", bias=bias, split="out"),
        *linear("mlp.c_proj", hidden, half, "mlp", bias=bias, split="in"),
        *norms_of(hidden, "ln_1", "ln_2"),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)


def baichuan(config: Config) -> Structure:
    """Read Baichuan 1 and 2 (baichuan-inc modeling_baichuan.py): fused W_pack, Llama's MLP."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    tensors = (
        *linear("self_attn.W_pack", 3 * hidden, hidden, "attention", split="out"),
        *linear("self_attn.o_proj", hidden, hidden, "attention", split="in"),
        *gated_mlp(hidden, config.positive("intermediate_size")),
        *norms_of(hidden, *TWO_NORMS),
    )
    return finish(config, shape, as_stated(config, shape, tensors), tied=False)
