"""Gemma 4: layers that read another's cache, wider global heads, per-layer embeddings.

transformers 5.23 models/gemma4. Of the last ``num_kv_shared_layers`` none has keys or values of its
own; the global layers have larger heads and may use their keys as values, which are cached twice all
the same.
"""

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types
from kvplan.blocks.audio import conformer
from kvplan.blocks.decoder import Shape, by_index, finish, shape_of
from kvplan.blocks.routing import num_experts_of
from kvplan.blocks.transformer import experts, gated_mlp
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.multimodal import with_tensors
from kvplan.families.reading import text_structure
from kvplan.layers import FullAttention, Layer, SharedCache, SlidingWindow
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of, repeat, with_role

# Bins of the spectrum that the ears hear.
SPECTRUM_BINS = 128


def attention_tensors(
    shape: Shape, head_dim: int, kv_heads: int, *, has_kv: bool, has_v: bool, bias: bool
) -> tuple[Tensor, ...]:
    """Return q, k, v and o with a norm on the heads of queries and keys; what a layer has none of, not."""
    heads, hidden = shape.num_attention_heads, shape.hidden_size
    tensors = (
        *linear("self_attn.q_proj", heads * head_dim, hidden, "attention", bias=bias, split="out"),
        *norm("self_attn.q_norm", head_dim),
        *linear("self_attn.o_proj", hidden, heads * head_dim, "attention", bias=bias, split="in"),
    )
    if not has_kv:
        return tensors
    rows = kv_heads * head_dim
    for name in ("k_proj", "v_proj") if has_v else ("k_proj",):
        tensors += linear(
            f"self_attn.{name}", rows, hidden, "attention", bias=bias, split="kv", num_heads=kv_heads
        )
    return (*tensors, *norm("self_attn.k_norm", head_dim))


def cache_of(
    kind: str, shape: Shape, head_dim: int, kv_heads: int, window: int, *, shared: bool
) -> FullAttention | SlidingWindow | SharedCache:
    """Return what a layer of this kind caches, or whose cache it reads."""
    heads = shape.num_attention_heads
    owner: FullAttention | SlidingWindow = FullAttention(heads, kv_heads, head_dim, head_dim)
    if kind == SLIDING:
        owner = SlidingWindow(heads, kv_heads, head_dim, head_dim, window)
    return SharedCache(owner) if shared else owner


def per_layer_inputs(
    config: Config, shape: Shape, size: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return (tensors of each layer, tensors outside) of the per-layer embeddings."""
    if not size:
        return (), ()
    hidden, width = shape.hidden_size, shape.num_layers * size
    each = (
        *linear("per_layer_input_gate", size, hidden, "other"),
        *linear("per_layer_projection", hidden, size, "other"),
        *norm("post_per_layer_input_norm", hidden),
    )
    rows = config.positive("vocab_size_per_layer_input", 262_144)
    outside = (
        Tensor("model.embed_tokens_per_layer.weight", (rows, width), "embedding", split="vocab"),
        *linear("model.per_layer_model_projection", width, hidden, "other"),
        *norm("model.per_layer_projection_norm", size),
    )
    return each, outside


def gemma4_text(config: Config) -> Structure:
    """Read Gemma 4's text model: dense, with experts beside the MLP, or with per-layer embeddings."""
    shape = shape_of(config, head_dim=256, vocab_size=262_144)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = tuple(FULL if (index + 1) % 6 == 0 else SLIDING for index in range(shape.num_layers))
    # Gemma4TextConfig makes the last layer a global one, whatever the list says.
    kinds = (*kinds[:-1], FULL)
    bias = config.flag("attention_bias", False)
    num_shared = config.integer("num_kv_shared_layers", 0)
    tied_values = config.flag("attention_k_eq_v", False)
    window = config.positive("sliding_window", 512)
    width = config.positive("intermediate_size")
    double = config.flag("use_double_wide_mlp", False)
    each, outside = per_layer_inputs(config, shape, config.integer("hidden_size_per_layer_input", 256))
    routed = _routed(config, hidden) if config.flag("enable_moe_block", False) else ()
    names = [
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ]
    if routed:
        names += [
            "pre_feedforward_layernorm_2",
            "post_feedforward_layernorm_1",
            "post_feedforward_layernorm_2",
        ]
    overrides, listed = _overrides(config), config.has("per_layer_config")

    def make(index: int) -> Layer:
        kind = kinds[index]
        shared = index >= shape.num_layers - num_shared
        head_dim, kv_heads = shape.head_dim, shape.num_key_value_heads
        if kind == FULL and not listed:
            head_dim = config.positive("global_head_dim", 512)
            if tied_values:
                kv_heads = config.positive("num_global_key_value_heads", kv_heads)
        own = overrides.get(index)
        if own is not None:
            head_dim = own.positive("head_dim", head_dim)
            kv_heads = own.positive("num_key_value_heads", kv_heads)
        has_v = not (tied_values and kind == FULL)
        return Layer(
            (cache_of(kind, shape, head_dim, kv_heads, window, shared=shared),),
            (
                *attention_tensors(shape, head_dim, kv_heads, has_kv=not shared, has_v=has_v, bias=bias),
                *gated_mlp(hidden, width * (2 if double and shared else 1)),
                *routed,
                *norms_of(hidden, *names),
                *each,
            ),
        )

    return finish(config, shape, by_index(shape.num_layers, make), tied=True, extra=outside)


def gemma4_unified_text(config: Config) -> Structure:
    """Read Gemma 4 Unified's text model: Gemma 4's without per-layer embeddings or experts."""
    fixed = {"hidden_size_per_layer_input": 0, "enable_moe_block": False}
    return gemma4_text(config.behind({"sliding_window": 1024}).override(fixed))


def _overrides(config: Config) -> dict[int, Config]:
    """Return the configs that single layers have of their own; the file may pad their numbers."""
    section = config.sub("per_layer_config")
    if section is None:
        return {}
    found: dict[int, Config] = {}
    for name in section.names():
        own = section.sub(name)
        if not name.isascii() or not name.isdigit() or own is None:
            raise config.invalid("per_layer_config", f"has '{name[:20]}', which is no layer's config")
        found[int(name)] = own
    return found


def _routed(config: Config, hidden: int) -> tuple[Tensor, ...]:
    num_experts, active = num_experts_of(config)
    return (
        *experts(hidden, config.positive("moe_intermediate_size"), num_experts, active, name="experts"),
        *linear("router.proj", num_experts, hidden, "router"),
        Tensor("router.scale", (hidden,), "router"),
        Tensor("router.per_expert_scale", (num_experts,), "router"),
    )


def gemma4(config: Config) -> Structure:
    """Read Gemma 4 with its eyes and, in the small ones, ears."""
    text = config.sub("text_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    tied = config.flag("tie_word_embeddings", True)
    structure = text_structure(text.override({"tie_word_embeddings": tied}), "gemma4_text")
    vision = config.sub("vision_config")
    if vision is None:
        return structure
    structure = with_tensors(structure, _vision(vision, structure.hidden_size))
    audio = config.sub("audio_config")
    return structure if audio is None else with_tensors(structure, _audio(audio, structure.hidden_size))


def gemma4_unified(config: Config) -> Structure:
    """Read Gemma 4 Unified without towers. Raises UnsupportedArchitecture where the file has any."""
    text = config.sub("text_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    for key in ("vision_config", "audio_config"):
        if config.has(key):
            raise UnsupportedArchitecture(
                f"{config.origin or 'gemma4_unified'}: {key} is not known",
                why="its encoder's weights could be any size",
                hint="plan the text model alone, or report the model",
            )
    tied = config.flag("tie_word_embeddings", True)
    return text_structure(text.override({"tie_word_embeddings": tied}), "gemma4_unified_text")


def _audio(config: Config, text_size: int) -> tuple[Tensor, ...]:
    hidden, out = config.positive("hidden_size", 1024), config.positive("output_proj_dims", 1536)
    ear = conformer(
        hidden,
        config.layers(default=12),
        config.positive("num_attention_heads", 8),
        config.positive("conv_kernel_size", 5),
        two_sizes(config, "subsampling_conv_channels"),
        SPECTRUM_BINS,
    )
    return (
        *ear,
        *linear("audio_tower.output_proj", out, hidden, "audio", bias=True),
        *linear("embed_audio.embedding_projection", text_size, out, "projector"),
    )


def two_sizes(config: Config, key: str) -> tuple[int, int]:
    """Return the two channel counts of the ears' convolutions. Raises InvalidSpec for another number."""
    sizes = config.integers(key) or (128, 32)
    if len(sizes) != 2 or min(sizes) < 1:
        raise config.invalid(key, "is not two sizes")
    return sizes[0], sizes[1]


def _vision(config: Config, text_size: int) -> tuple[Tensor, ...]:
    hidden = config.positive("hidden_size", 768)
    heads = config.positive("num_attention_heads", 12)
    head_dim = config.positive("head_dim", 64)
    kv_heads = config.positive("num_key_value_heads", heads)
    patch = config.positive("patch_size", 16)
    rows = kv_heads * head_dim
    layer = (
        *linear("self_attn.q_proj", heads * head_dim, hidden, "vision"),
        *linear("self_attn.k_proj", rows, hidden, "vision"),
        *linear("self_attn.v_proj", rows, hidden, "vision"),
        *linear("self_attn.o_proj", hidden, heads * head_dim, "vision"),
        *norms_of(head_dim, "self_attn.q_norm", "self_attn.k_norm"),
        *gated_mlp(hidden, config.positive("intermediate_size", 3072), role="vision"),
        *norms_of(
            hidden, "input_layernorm", "post_attention_layernorm", "pre_feedforward", "post_feedforward"
        ),
    )
    tower = (
        *linear("patch_embedder.input_proj", hidden, 3 * patch * patch, "vision"),
        Tensor(
            "patch_embedder.position_embedding_table",
            (2, config.positive("position_embedding_size", 10_240), hidden),
            "vision",
        ),
        *repeat(layer, config.layers(default=16)),
    )
    projector = linear("embed_vision.embedding_projection", text_size, hidden, "projector")
    return (*with_role(tower, "vision"), *projector)
