"""Kimi delta attention with latent attention between: Kimi-Linear, Kimi-K3, Bailing's hybrids.

Kimi-K3 adds to Kimi-Linear, each by a key of its own in the config: experts in a latent space
(``routed_expert_hidden_size``), output gates of full rank (``use_full_rank_gate``) and on the latent
attention (``mla_use_output_gate``), attention over earlier blocks (``attn_res_block_size``). Source:
transformers 5.23 models/kimi_linear, models/bailing_hybrid; moonshotai/Kimi-K3 modeling_kimi_linear.py.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import by_index, finish
from kvplan.blocks.latent import latent_attention, latent_cache, latent_shape
from kvplan.blocks.routing import num_experts_of, stated_sparse
from kvplan.blocks.transformer import experts, gated_mlp, router
from kvplan.config import Config
from kvplan.layers import Cache, KimiDeltaState, Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of

FULL, LINEAR = "full_attention", "linear_attention"


def _kinds(config: Config, num_layers: int) -> tuple[str, ...] | None:
    kinds = config.per_layer("layer_types", num_layers)
    for kind in kinds or ():
        if kind not in (FULL, LINEAR):
            raise unknown_layer_type(config, kind)
    return kinds


def _kimi_kinds(config: Config, num_layers: int) -> tuple[str, ...]:
    kinds = _kinds(config, num_layers)
    if kinds is not None:
        return kinds
    section = config.sub("linear_attn_config")
    full = section.integers("full_attn_layers") if section is not None else None
    if full is None:
        raise config.invalid("linear_attn_config", "does not list full_attn_layers")
    # The lists count layers from one.
    return tuple(FULL if index + 1 in full else LINEAR for index in range(num_layers))


def _linear_shape(config: Config) -> KimiDeltaState:
    section = config.sub("linear_attn_config")
    if section is not None:
        return KimiDeltaState(
            section.positive("num_heads"),
            section.positive("head_dim"),
            section.positive("short_conv_kernel_size", 4),
        )
    return KimiDeltaState(
        config.positive("linear_num_heads"),
        config.positive("linear_head_dim"),
        config.positive("linear_conv_kernel_dim", 4),
    )


def _feed_forward(config: Config, hidden: int, *, is_sparse: bool) -> tuple[Tensor, ...]:
    if not is_sparse:
        return gated_mlp(hidden, config.positive("intermediate_size"))
    num_experts, active = num_experts_of(config)
    width, latent = config.positive("moe_intermediate_size"), config.integer("routed_expert_hidden_size", 0)
    tensors = (*experts(latent or hidden, width, num_experts, active), *router(hidden, num_experts))
    if latent:
        tensors += linear("mlp.routed_expert_down_proj", latent, hidden, "mlp")
        tensors += linear("mlp.routed_expert_up_proj", hidden, latent, "mlp")
        if config.flag("latent_moe_use_norm", False):
            tensors += norm("mlp.routed_expert_norm", latent)
    num_shared = config.integer("num_shared_experts", config.integer("n_shared_experts", 0))
    if num_shared:
        tensors += gated_mlp(hidden, width * num_shared, name="mlp.shared_experts", role="shared_expert")
    return tensors


def _is_sparse(config: Config, num_layers: int) -> tuple[bool, ...]:
    stated = stated_sparse(config, num_layers)
    if stated is not None:
        return stated
    first = config.integer("first_k_dense_replace", 1)
    step = config.positive("moe_layer_freq", 1)
    return tuple(index >= first and index % step == 0 for index in range(num_layers))


def kimi_linear(config: Config) -> Structure:
    """Read Kimi-Linear: KDA with latent attention on every fourth layer."""
    return _kda_model(config, low_rank_gates=True)


def bailing_hybrid(config: Config) -> Structure:
    """Read Bailing's hybrid (Ring, Ling 2.5): KDA in groups that end with latent attention."""
    return _kda_model(config, low_rank_gates=False)


def _kda_model(config: Config, *, low_rank_gates: bool) -> Structure:
    shape = latent_shape(config)
    hidden, heads = shape.hidden_size, shape.num_attention_heads
    if low_rank_gates:
        kinds = _kimi_kinds(config, shape.num_layers)
    else:
        listed = _kinds(config, shape.num_layers)
        step = config.positive("layer_group_size", 1)
        kinds = listed or tuple(
            FULL if (index + 1) % step == 0 else LINEAR for index in range(shape.num_layers)
        )
    cache = _linear_shape(config)
    inner = cache.num_heads * cache.head_dim
    mla = latent_cache(config)
    # Kimi-Linear's class has no low-rank query even where the file names a rank; Kimi-K3's has.
    rank = config.integer("q_lora_rank", None) if config.has("mla_use_output_gate") else None
    latent = latent_attention(config, mla, q_lora_rank=rank)
    if not low_rank_gates:
        latent += linear("self_attn.g_proj", heads, hidden, "attention", split="out")
    if config.flag("mla_use_output_gate", False):
        rows = heads * mla.v_head_dim
        latent += linear("self_attn.g_proj", rows, hidden, "attention", split="out")
    mixer = _kda_mixer(
        hidden, cache, inner, low_rank_gates=low_rank_gates, full_output_gate=_has_full_gate(config)
    )
    sparse = _is_sparse(config, shape.num_layers)
    norms = norms_of(hidden, "input_layernorm", "post_attention_layernorm")
    residuals = config.has("attn_res_block_size")
    if residuals:
        norms += (*_residual("self_attention_res", hidden), *_residual("mlp_res", hidden))

    def make(index: int) -> Layer:
        own: Cache = mla if kinds[index] == FULL else cache
        tensors = latent if kinds[index] == FULL else mixer
        return Layer((own,), (*tensors, *_feed_forward(config, hidden, is_sparse=sparse[index]), *norms))

    extra = _residual("model.output_attn_res", hidden) if residuals else ()
    # Neither class ties its head (_tied_weights_keys is empty).
    untied = config.override({"tie_word_embeddings": False})
    return finish(untied, shape, by_index(shape.num_layers, make), tied=False, extra=extra)


def _has_full_gate(config: Config) -> bool:
    section = config.sub("linear_attn_config")
    return section is not None and section.flag("use_full_rank_gate", False)


def _residual(name: str, hidden: int) -> tuple[Tensor, ...]:
    """Return what weighs the sums of earlier blocks: a norm and one score."""
    return (*norm(f"{name}_norm", hidden), *linear(f"{name}_proj", 1, hidden, "other"))


def _kda_mixer(
    hidden: int, cache: KimiDeltaState, inner: int, *, low_rank_gates: bool, full_output_gate: bool
) -> tuple[Tensor, ...]:
    head_dim, heads = cache.head_dim, cache.num_heads
    name = "self_attn"
    gates: tuple[Tensor, ...]
    if low_rank_gates:
        gates = (
            *linear(f"{name}.forget_gate.f_a_proj", head_dim, hidden, "recurrent"),
            *linear(f"{name}.forget_gate.f_b_proj", inner, head_dim, "recurrent", split="out"),
        )
        if full_output_gate:
            gates += linear(f"{name}.g_proj", inner, hidden, "recurrent", split="out")
        else:
            gates += linear(f"{name}.g_a_proj", head_dim, hidden, "recurrent")
            gates += linear(f"{name}.g_b_proj", inner, head_dim, "recurrent", split="out")
    else:
        gates = (
            *linear(f"{name}.forget_gate.f_proj", inner, hidden, "recurrent", split="out"),
            *linear(f"{name}.g_proj", inner, hidden, "recurrent", split="out"),
        )
    projections = tuple(
        tensor
        for part in ("q_proj", "k_proj", "v_proj")
        for tensor in linear(f"{name}.{part}", inner, hidden, "recurrent", split="out")
    )
    return (
        *projections,
        Tensor(f"{name}.conv1d.weight", (3 * inner, 1, cache.conv_kernel), "recurrent", split="out"),
        Tensor(f"{name}.forget_gate.dt_bias", (inner,), "recurrent", split="out"),
        Tensor(f"{name}.forget_gate.A_log", (heads,), "recurrent", split="out"),
        *gates,
        *linear(f"{name}.b_proj", heads, hidden, "recurrent", split="out"),
        *norm(f"{name}.o_norm", head_dim),
        *linear(f"{name}.o_proj", hidden, inner, "recurrent", split="in"),
    )
