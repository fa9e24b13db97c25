"""Mamba and what is built around it: Mamba 1 and 2, Falcon-Mamba, Jamba, Bamba, Granite-4-H, Falcon-H1,
Nemotron-H, Zamba2.

transformers 5.23 models/*. A state-space mixer caches a convolution and a state, an attention layer
keys and values; Falcon-H1 and Zamba2's hybrid layers hold both.
"""  # noqa: D205

from kvplan.attention_pattern import unknown_layer_type
from kvplan.blocks import attention, experts, gated_mlp, plain_mlp, router
from kvplan.config import Config
from kvplan.decoder import Shape, by_index, finish, shape_of
from kvplan.layers import Cache, FullAttention, Layer, LayerGroup, Mamba1State, Mamba2State
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm


def _norms(size: int, *names: str) -> tuple[Tensor, ...]:
    return tuple(tensor for name in names for tensor in norm(name, size))


def _state(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, "recurrent", split="out")


def mamba1_mixer(
    hidden: int, inner: int, state: int, rank: int, kernel: int, *, name: str, bias: bool, conv_bias: bool
) -> tuple[Tensor, ...]:
    """Return Mamba-1's mixer (arXiv 2312.00752): in, convolution, x and dt projections, A, D, out."""
    return (
        *linear(f"{name}.in_proj", 2 * inner, hidden, "recurrent", bias=bias, split="out"),
        _state(f"{name}.conv1d.weight", inner, 1, kernel),
        *((_state(f"{name}.conv1d.bias", inner),) if conv_bias else ()),
        *linear(f"{name}.x_proj", rank + 2 * state, inner, "recurrent", split="in"),
        *linear(f"{name}.dt_proj", inner, rank, "recurrent", bias=True, split="out"),
        _state(f"{name}.A_log", inner, state),
        _state(f"{name}.D", inner),
        *linear(f"{name}.out_proj", hidden, inner, "recurrent", bias=bias, split="in"),
    )


def mamba2_mixer(
    hidden: int,
    cache: Mamba2State,
    *,
    name: str,
    bias: bool,
    conv_bias: bool,
    gated_norm: bool = True,
    out_bias: bool | None = None,
) -> tuple[Tensor, ...]:
    """Return Mamba-2's mixer (arXiv 2405.21060): one input projection for z, x, B, C and dt.

    ``out_bias`` is the output projection's where it has a switch of its own (Falcon-H1).
    """
    inner = cache.num_heads * cache.head_dim
    channels = inner + 2 * cache.n_groups * cache.state_size
    return (
        *linear(
            f"{name}.in_proj", inner + channels + cache.num_heads, hidden, "recurrent", bias=bias, split="out"
        ),
        _state(f"{name}.conv1d.weight", channels, 1, cache.conv_kernel),
        *((_state(f"{name}.conv1d.bias", channels),) if conv_bias else ()),
        _state(f"{name}.dt_bias", cache.num_heads),
        _state(f"{name}.A_log", cache.num_heads),
        _state(f"{name}.D", cache.num_heads),
        *(norm(f"{name}.norm", inner) if gated_norm else ()),
        *linear(
            f"{name}.out_proj",
            hidden,
            inner,
            "recurrent",
            bias=bias if out_bias is None else out_bias,
            split="in",
        ),
    )


def _attention_of(shape: Shape, bias: bool) -> tuple[Tensor, ...]:
    return attention(
        shape.hidden_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
        shape.head_dim,
        qkv_bias=bias,
        o_bias=bias,
    )


def _full(shape: Shape) -> FullAttention:
    return FullAttention(shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim, shape.head_dim)


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


def jamba(config: Config) -> Structure:
    """Read Jamba: an attention layer every ``attn_layer_period``, experts every second MLP."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    hidden = shape.hidden_size
    inner = hidden * config.positive("mamba_expand", 2)
    state, kernel = config.positive("mamba_d_state", 16), config.positive("mamba_d_conv", 4)
    rank = config.positive("mamba_dt_rank") if _is_count(config, "mamba_dt_rank") else -(-hidden // 16)
    period, offset = config.positive("attn_layer_period", 8), config.integer("attn_layer_offset", 4)
    expert_period = config.positive("expert_layer_period", 2)
    expert_offset = config.integer("expert_layer_offset", 1)
    num_experts = config.positive("num_experts", 16)
    width = config.positive("intermediate_size")
    mixer = (
        *mamba1_mixer(
            hidden,
            inner,
            state,
            rank,
            kernel,
            name="mamba",
            bias=config.flag("mamba_proj_bias", False),
            conv_bias=config.flag("mamba_conv_bias", True),
        ),
        *norm("mamba.dt_layernorm", rank),
        *norm("mamba.b_layernorm", state),
        *norm("mamba.c_layernorm", state),
    )

    def make(index: int) -> Layer:
        is_attention = index % period == offset
        routed = num_experts > 1 and index % expert_period == expert_offset
        feed_forward = gated_mlp(hidden, width, name="feed_forward")
        if routed:
            feed_forward = (
                *experts(
                    hidden,
                    width,
                    num_experts,
                    config.positive("num_experts_per_tok", 2),
                    name="feed_forward.experts",
                ),
                *router(hidden, num_experts, name="feed_forward.router"),
            )
        cache: Cache = _full(shape) if is_attention else Mamba1State(inner, state, kernel)
        tensors = _attention_of(shape, False) if is_attention else mixer
        return Layer(
            (cache,), (*tensors, *feed_forward, *_norms(hidden, "input_layernorm", "pre_ff_layernorm"))
        )

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def _mamba2_of(config: Config, hidden: int) -> Mamba2State:
    inner = config.positive("mamba_d_ssm", hidden * config.positive("mamba_expand", 2))
    heads = config.positive("mamba_n_heads", 128)
    head_dim = (
        config.positive("mamba_d_head", max(1, inner // heads))
        if _is_count(config, "mamba_d_head")
        else max(1, inner // heads)
    )
    return Mamba2State(
        heads,
        head_dim,
        config.positive("mamba_d_state", 256),
        config.positive("mamba_n_groups", 1),
        config.positive("mamba_d_conv", 4),
    )


def bamba(config: Config) -> Structure:
    """Read Bamba: Mamba-2 layers, attention at ``attn_layer_indices``, a gated MLP in each."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    hidden = shape.hidden_size
    cache = _mamba2_of(config, hidden)
    listed = set(config.integers("attn_layer_indices") or ())
    kinds = config.per_layer("layers_block_type", shape.num_layers) or config.per_layer(
        "layer_types", shape.num_layers
    )
    common = (
        *gated_mlp(
            hidden,
            config.positive("intermediate_size"),
            bias=config.flag("mlp_bias", False),
            name="feed_forward",
        ),
        *_norms(hidden, "input_layernorm", "pre_ff_layernorm"),
    )
    mixer = mamba2_mixer(
        hidden,
        cache,
        name="mamba",
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True),
    )
    bias = config.flag("attention_bias", False)

    def make(index: int) -> Layer:
        is_attention = index in listed
        if kinds is not None:
            is_attention = _is_attention(config, kinds[index])
        if is_attention:
            return Layer((_full(shape),), (*_attention_of(shape, bias), *common))
        return Layer((cache,), (*mixer, *common))

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def _is_attention(config: Config, kind: str) -> bool:
    if kind in ("attention", "full_attention"):
        return True
    if kind in ("mamba", "mamba2", "linear_attention"):
        return False
    raise unknown_layer_type(config, kind)


def granite_hybrid(config: Config) -> Structure:
    """Read Granite 4 H: Mamba-2 or attention, then experts and a shared MLP."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    cache = _mamba2_of(config, hidden)
    kinds = config.per_layer("layer_types", shape.num_layers) or config.per_layer(
        "layers_block_type", shape.num_layers
    )
    if kinds is None:
        kinds = ("mamba",) * shape.num_layers
    num_experts = config.integer("num_experts", 8)
    width = config.positive("intermediate_size")
    shared = config.positive("shared_intermediate_size", 1024)
    common: tuple[Tensor, ...] = (
        *linear("shared_mlp.input_linear", 2 * shared, hidden, "shared_expert", split="out"),
        *linear("shared_mlp.output_linear", hidden, shared, "shared_expert", split="in"),
        *_norms(hidden, "input_layernorm", "post_attention_layernorm"),
    )
    if num_experts:
        common += (
            *experts(
                hidden, width, num_experts, config.positive("num_experts_per_tok", 2), name="block_sparse_moe"
            ),
            *router(hidden, num_experts, name="block_sparse_moe.router.layer"),
        )
    mixer = mamba2_mixer(
        hidden,
        cache,
        name="mamba",
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True),
    )
    bias = config.flag("attention_bias", False)

    def make(index: int) -> Layer:
        if _is_attention(config, kinds[index]):
            return Layer((_full(shape),), (*_attention_of(shape, bias), *common))
        return Layer((cache,), (*mixer, *common))

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def falcon_h1(config: Config) -> Structure:
    """Read Falcon-H1: attention and Mamba-2 side by side in every layer."""
    shape = shape_of(config, num_key_value_heads=None if config.has("num_key_value_heads") else 8)
    hidden = shape.hidden_size
    cache = _mamba2_of(config, hidden)
    bias = config.flag("attention_bias", False)
    tensors = (
        *_attention_of(shape, bias),
        *mamba2_mixer(
            hidden,
            cache,
            name="mamba",
            bias=config.flag("mamba_proj_bias", False),
            conv_bias=config.flag("mamba_conv_bias", True),
            gated_norm=config.flag("mamba_rms_norm", False),
            out_bias=config.flag("projectors_bias", False),
        ),
        *gated_mlp(
            hidden,
            config.positive("intermediate_size"),
            bias=config.flag("mlp_bias", False),
            name="feed_forward",
        ),
        *_norms(hidden, "input_layernorm", "pre_ff_layernorm"),
    )
    layer = Layer((_full(shape), cache), tensors)
    return finish(config, shape, (LayerGroup(layer, shape.num_layers),), tied=False)


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
        *_norms(shape.hidden_size, "enorm", "hnorm", "final_layernorm"),
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
        return Layer((_full(shape),), (*_attention_of(shape, bias=False), *one_norm))
    if kind == "mlp":
        width = config.positive("intermediate_size")
        mlp = plain_mlp(hidden, width, bias=bias, up="mixer.up_proj", down="mixer.down_proj")
        return Layer((), (*mlp, *one_norm))
    num_experts, active = config.positive("num_experts"), config.positive("num_experts_per_tok")
    if active > num_experts:
        raise config.invalid("num_experts_per_tok", f"is {active}, more than {num_experts} experts")
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
