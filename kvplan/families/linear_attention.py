"""Linear attention beside full: gated DeltaNet (Qwen3-Next, Qwen3.5), KDA (Kimi-Linear), lightning
(MiniMax-01), short convolutions (LFM2), OLMo-Hybrid, Bailing.

transformers 5.23 models/qwen3_next, qwen3_5, qwen3_5_moe, kimi_linear, bailing_hybrid, minimax, lfm2,
lfm2_moe, olmo_hybrid. Full layers of the Qwen line double the query projection for an output gate.
"""  # noqa: D205

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import TWO_NORMS, Shape, by_index, finish, shape_of
from kvplan.blocks.routing import num_experts_of
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.config import Config
from kvplan.layers import (
    Cache,
    FullAttention,
    GatedDeltaState,
    Layer,
    LayerGroup,
    LightningState,
)
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of

FULL, LINEAR = "full_attention", "linear_attention"


def _kinds(config: Config, num_layers: int, known: tuple[str, ...]) -> tuple[str, ...] | None:
    kinds = config.per_layer("layer_types", num_layers)
    for kind in kinds or ():
        if kind not in known:
            raise unknown_layer_type(config, kind)
    return kinds


def _full(shape: Shape) -> FullAttention:
    return FullAttention(shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim, shape.head_dim)


def _delta(config: Config) -> GatedDeltaState:
    return GatedDeltaState(
        config.positive("linear_num_key_heads", 16),
        config.positive("linear_num_value_heads", 32),
        config.positive("linear_key_head_dim", 128),
        config.positive("linear_value_head_dim", 128),
        config.positive("linear_conv_kernel_dim", 4),
    )


def _delta_mixer(hidden: int, cache: GatedDeltaState, *, fused: bool) -> tuple[Tensor, ...]:
    """Return gated DeltaNet's mixer; Qwen3-Next fuses q, k, v and z, Qwen3.5 keeps them apart."""
    keys, values = cache.num_k_heads * cache.head_k_dim, cache.num_v_heads * cache.head_v_dim
    name = "linear_attn"
    if fused:
        inputs = (
            *linear(f"{name}.in_proj_qkvz", 2 * keys + 2 * values, hidden, "recurrent", split="out"),
            *linear(f"{name}.in_proj_ba", 2 * cache.num_v_heads, hidden, "recurrent", split="out"),
        )
    else:
        inputs = (
            *linear(f"{name}.in_proj_qkv", 2 * keys + values, hidden, "recurrent", split="out"),
            *linear(f"{name}.in_proj_z", values, hidden, "recurrent", split="out"),
            *linear(f"{name}.in_proj_b", cache.num_v_heads, hidden, "recurrent", split="out"),
            *linear(f"{name}.in_proj_a", cache.num_v_heads, hidden, "recurrent", split="out"),
        )
    return (
        *inputs,
        Tensor(f"{name}.conv1d.weight", (2 * keys + values, 1, cache.conv_kernel), "recurrent", split="out"),
        Tensor(f"{name}.dt_bias", (cache.num_v_heads,), "recurrent", split="out"),
        Tensor(f"{name}.A_log", (cache.num_v_heads,), "recurrent", split="out"),
        *norm(f"{name}.norm", cache.head_v_dim),
        *linear(f"{name}.out_proj", hidden, values, "recurrent", split="in"),
    )


def _routed(config: Config, hidden: int) -> tuple[Tensor, ...]:
    num_experts, active = num_experts_of(config)
    shared = config.positive("shared_expert_intermediate_size", 512)
    return (
        *experts(hidden, config.positive("moe_intermediate_size"), num_experts, active),
        *router(hidden, num_experts),
        *gated_mlp(hidden, shared, name="mlp.shared_expert", role="shared_expert"),
        *linear("mlp.shared_expert_gate", 1, hidden, "router"),
    )


def qwen3_next(config: Config) -> Structure:
    """Read Qwen3-Next: three gated DeltaNet layers to each full one, experts in all."""
    return _qwen_hybrid(config, fused=True, mtp_key="num_nextn_predict_layers")


def qwen3_5_text(config: Config) -> Structure:
    """Read Qwen3.5's and 3.6's text models, dense or with experts."""
    return _qwen_hybrid(config, fused=False, mtp_key="mtp_num_hidden_layers")


def _qwen_hybrid(config: Config, *, fused: bool, mtp_key: str) -> Structure:
    shape = shape_of(config, head_dim=None if config.has("head_dim") else 256)
    hidden = shape.hidden_size
    kinds = _kinds(config, shape.num_layers, (FULL, LINEAR))
    if kinds is None:
        step = config.positive("full_attention_interval", 4)
        kinds = tuple(FULL if (index + 1) % step == 0 else LINEAR for index in range(shape.num_layers))
    cache = _delta(config)
    mixer = _delta_mixer(hidden, cache, fused=fused)
    bias = config.flag("attention_bias", False)
    full = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
            gate=True,
        ),
        *norms_of(shape.head_dim, "self_attn.q_norm", "self_attn.k_norm"),
    )
    dense_layers = set(config.integers("mlp_only_layers") or ())
    step = config.positive("decoder_sparse_step", 1)
    has_experts = config.has("num_experts") and config.integer("num_experts") > 0
    routed = _routed(config, hidden) if has_experts else ()
    norms = norms_of(hidden, *TWO_NORMS)
    made: dict[tuple[str, bool], Layer] = {}

    def make(index: int) -> Layer:
        is_sparse = has_experts and index not in dense_layers and (index + 1) % step == 0
        key = (kinds[index], is_sparse)
        if key not in made:
            feed_forward = routed if is_sparse else gated_mlp(hidden, config.positive("intermediate_size"))
            own: Cache = _full(shape) if kinds[index] == FULL else cache
            tensors = full if kinds[index] == FULL else mixer
            made[key] = Layer((own,), (*tensors, *feed_forward, *norms))
        return made[key]

    layers = by_index(shape.num_layers, make)
    num_mtp = config.integer(mtp_key, 0)
    mtp: tuple[LayerGroup, ...] = ()
    if num_mtp:
        feed_forward = routed or gated_mlp(hidden, config.positive("intermediate_size"))
        extra = (
            *linear("fc", hidden, 2 * hidden, "mtp"),
            *norms_of(hidden, "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"),
        )
        mtp = (LayerGroup(Layer((_full(shape),), (*full, *feed_forward, *norms, *extra)), num_mtp),)
    ssm_dtype = config.text("mamba_ssm_dtype", "") or None
    return finish(config, shape, layers, tied=False, mtp_layers=mtp, ssm_dtype=ssm_dtype)


def olmo_hybrid(config: Config) -> Structure:
    """Read OLMo-Hybrid: gated DeltaNet with its own output gate, and OLMo's post-norms on full layers."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    kinds = _kinds(config, shape.num_layers, (FULL, LINEAR))
    if kinds is None:
        kinds = tuple(FULL if (index + 1) % 4 == 0 else LINEAR for index in range(shape.num_layers))
    cache = GatedDeltaState(
        config.positive("linear_num_key_heads", shape.num_attention_heads),
        config.positive("linear_num_value_heads", shape.num_attention_heads),
        config.positive("linear_key_head_dim"),
        config.positive("linear_value_head_dim"),
        config.positive("linear_conv_kernel_dim", 4),
    )
    keys, values = cache.num_k_heads * cache.head_k_dim, cache.num_v_heads * cache.head_v_dim
    mixer = (
        *(
            tensor
            for name, rows in (
                ("q_proj", keys),
                ("k_proj", keys),
                ("v_proj", values),
                ("a_proj", cache.num_v_heads),
                ("b_proj", cache.num_v_heads),
                ("g_proj", values),
            )
            for tensor in linear(f"linear_attn.{name}", rows, hidden, "recurrent", split="out")
        ),
        *linear("linear_attn.o_proj", hidden, values, "recurrent", split="in"),
        Tensor(
            "linear_attn.conv1d.weight", (2 * keys + values, 1, cache.conv_kernel), "recurrent", split="out"
        ),
        Tensor("linear_attn.A_log", (cache.num_v_heads,), "recurrent", split="out"),
        Tensor("linear_attn.dt_bias", (cache.num_v_heads,), "recurrent", split="out"),
        *norm("linear_attn.o_norm", cache.head_v_dim),
    )
    bias = config.flag("attention_bias", False)
    full = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_key_value_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
        ),
        *norm("self_attn.q_norm", shape.num_attention_heads * shape.head_dim),
        *norm("self_attn.k_norm", shape.num_key_value_heads * shape.head_dim),
    )
    mlp = gated_mlp(hidden, config.positive("intermediate_size"))

    def make(index: int) -> Layer:
        if kinds[index] == FULL:
            norms = norms_of(hidden, "post_attention_layernorm", "post_feedforward_layernorm")
            return Layer((_full(shape),), (*full, *mlp, *norms))
        return Layer((cache,), (*mixer, *mlp, *norms_of(hidden, *TWO_NORMS)))

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def minimax(config: Config) -> Structure:
    """Read MiniMax-Text-01 and M1: lightning attention, full attention on every eighth layer, experts."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    kinds = _kinds(config, shape.num_layers, (FULL, LINEAR))
    if kinds is None:
        marks = config.integers("attn_type_list")
        if marks is not None and len(marks) >= shape.num_layers:
            kinds = tuple(FULL if mark else LINEAR for mark in marks[: shape.num_layers])
        else:
            kinds = tuple(FULL if index % 2 else LINEAR for index in range(shape.num_layers))
    inner = shape.num_attention_heads * shape.head_dim
    lightning = (
        *linear("self_attn.qkv_proj", 3 * inner, hidden, "recurrent", split="out"),
        *linear("self_attn.output_gate", inner, hidden, "recurrent", split="out"),
        *linear("self_attn.out_proj", hidden, inner, "recurrent", split="in"),
        *norm("self_attn.norm", inner),
    )
    full = attention(hidden, shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim)
    num_experts = config.positive("num_experts", 8)
    common = (
        *experts(
            hidden,
            config.positive("intermediate_size"),
            num_experts,
            min(num_experts, config.positive("num_experts_per_tok", 2)),
        ),
        *router(hidden, num_experts),
        *norms_of(hidden, *TWO_NORMS),
    )
    state = LightningState(shape.num_attention_heads, shape.head_dim)

    def make(index: int) -> Layer:
        if kinds[index] == FULL:
            return Layer((_full(shape),), (*full, *common))
        return Layer((state,), (*lightning, *common))

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)
