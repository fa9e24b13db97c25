"""Nemotron-H and Nemotron 3: one mixer a layer, by a pattern of marks.

M is Mamba-2, * attention, - an MLP, E experts. Source: transformers 5.23 models/nemotron_h.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import Shape, by_index, finish
from kvplan.blocks.routing import num_experts_of
from kvplan.blocks.state_space import mamba2_mixer
from kvplan.blocks.transformer import attention, experts, plain_mlp, router
from kvplan.config import Config
from kvplan.layers import FullAttention, Layer, LayerGroup, Mamba2State
from kvplan.model import Structure
from kvplan.tensors import linear, norm

NEMOTRON_MARKS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}


def nemotron_h(config: Config) -> Structure:
    """Read Nemotron-H and Nemotron 3: one mixer a layer, by ``hybrid_override_pattern``."""
    hidden = config.positive("hidden_size")
    kinds = _nemotron_kinds(config)
    heads = config.positive("num_attention_heads")
    kv_heads = config.positive("num_key_value_heads", heads)
    if heads % kv_heads:
        raise config.invalid("num_key_value_heads", f"is {kv_heads}, which does not divide {heads} heads")
    head_dim = config.positive("head_dim", 128)
    shape = Shape(hidden, len(kinds), heads, kv_heads, head_dim, config.positive("vocab_size"))
    cache = Mamba2State(
        config.positive("mamba_num_heads", 128),
        config.positive("mamba_head_dim", 64),
        config.positive("ssm_state_size", 128),
        config.positive("mamba_n_groups", config.positive("n_groups", 8)),
        config.positive("mamba_d_conv", config.positive("conv_kernel", 4)),
    )
    made: dict[str, Layer] = {}

    def make(index: int) -> Layer:
        kind = kinds[index]
        if kind not in made:
            made[kind] = _nemotron_layer(config, shape, cache, kind)
        return made[kind]

    mtp = _nemotron_mtp(config, shape, cache)
    ssm_dtype = config.text("mamba_ssm_cache_dtype", "") or config.text("mamba_ssm_dtype", "") or "float32"
    # The class never ties its head (_tied_weights_keys is empty).
    untied = config.override({"tie_word_embeddings": False})
    return finish(untied, shape, by_index(len(kinds), make), tied=False, mtp_layers=mtp, ssm_dtype=ssm_dtype)


def _nemotron_mtp(config: Config, shape: Shape, cache: Mamba2State) -> tuple[LayerGroup, ...]:
    """Return the prediction layers: a mixer each, by ``mtp_hybrid_override_pattern``."""
    count = config.integer("num_nextn_predict_layers", 0)
    if not count:
        return ()
    marks = config.text("mtp_hybrid_override_pattern", "*E")
    kinds = config.texts("mtp_layers_block_type") or tuple(NEMOTRON_MARKS.get(mark, mark) for mark in marks)
    joining = (
        *linear("eh_proj", shape.hidden_size, 2 * shape.hidden_size, "mtp"),
        *(
            tensor
            for name in ("enorm", "hnorm", "final_layernorm")
            for tensor in norm(name, shape.hidden_size)
        ),
    )
    layers = [_nemotron_layer(config, shape, cache, kind) for kind in _named(config, kinds)]
    if not layers:
        return ()
    first = Layer(layers[0].caches, (*layers[0].tensors, *joining))
    return tuple(LayerGroup(layer, count) for layer in (first, *layers[1:]))


def _nemotron_kinds(config: Config) -> tuple[str, ...]:
    listed = config.texts("layers_block_type") or config.texts("layer_types")
    if listed is None:
        marks = config.text("hybrid_override_pattern")
        listed = tuple(NEMOTRON_MARKS.get(mark, mark) for mark in marks)
    kinds = _named(config, listed)
    if not kinds:
        raise config.invalid("hybrid_override_pattern", "names no layer")
    return kinds


def _named(config: Config, listed: tuple[str, ...]) -> tuple[str, ...]:
    """Return layer kinds by one name each. Raises UnsupportedArchitecture for others."""
    renamed = {"full_attention": "attention", "linear_attention": "mamba", "linear_mlp": "mlp"}
    kinds = tuple(renamed.get(kind, kind) for kind in listed)
    for kind in kinds:
        if kind not in NEMOTRON_MARKS.values():
            raise unknown_layer_type(config, kind)
    return kinds


def _nemotron_layer(config: Config, shape: Shape, cache: Mamba2State, kind: str) -> Layer:
    hidden = shape.hidden_size
    one_norm = norm("norm", hidden)
    bias = config.flag("mlp_bias", False)
    if kind == "mamba":
        mixer = mamba2_mixer(
            hidden,
            cache,
            name="mixer",
            bias=config.flag("use_bias", False),
            conv_bias=config.flag("mamba_conv_bias", config.flag("use_conv_bias", True)),
        )
        return Layer((cache,), (*mixer, *one_norm))
    if kind == "attention":
        # The class has no biases there, whatever attention_bias says.
        heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        own = FullAttention(heads, kv_heads, shape.head_dim, shape.head_dim)
        return Layer((own,), (*attention(hidden, heads, kv_heads, shape.head_dim), *one_norm))
    if kind == "mlp":
        width = config.positive("intermediate_size")
        mlp = plain_mlp(hidden, width, bias=bias, up="mixer.up_proj", down="mixer.down_proj")
        return Layer((), (*mlp, *one_norm))
    num_experts, active = num_experts_of(config)
    width = config.positive("moe_intermediate_size")
    shared = config.positive("moe_shared_expert_intermediate_size", 7688)
    latent = config.integer("moe_latent_size", 0)
    routed = (
        *experts(latent or hidden, width, num_experts, active, gated=False, name="mixer.experts"),
        *router(hidden, num_experts, name="mixer.gate"),
        *plain_mlp(
            hidden,
            shared,
            bias=bias,
            up="mixer.shared_experts.up_proj",
            down="mixer.shared_experts.down_proj",
            role="shared_expert",
        ),
    )
    if latent:
        routed += (
            *linear("mixer.fc1_latent_proj", latent, hidden, "mlp", bias=bias),
            *linear("mixer.fc2_latent_proj", hidden, latent, "mlp", bias=bias),
        )
    return Layer((), (*routed, *one_norm))
