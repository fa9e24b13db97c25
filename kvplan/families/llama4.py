"""Llama 4: chunked and full layers in turn, experts on every n-th layer, a shared expert beside them.

transformers 5.23 models/llama4. A layer without rotary positions (``no_rope_layers``) attends to
everything, the others to a chunk.
"""

from kvplan.blocks.attention_pattern import CHUNKED, FULL, layer_types
from kvplan.blocks.decoder import attention_cache, by_index, finish, shape_of
from kvplan.blocks.transformer import attention, experts, gated_mlp, router
from kvplan.config import Config
from kvplan.families.multimodal import with_tensors
from kvplan.families.reading import text_structure
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat, with_role


def llama4_text(config: Config) -> Structure:
    """Read Llama 4's text model (Scout: every layer routed; Maverick: every second)."""
    shape = shape_of(config, num_key_value_heads=8, head_dim=None if config.has("head_dim") else 128)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers, (FULL, CHUNKED))
    if kinds is None:
        rotary = config.integers("no_rope_layers")
        if rotary:
            if len(rotary) < shape.num_layers:
                raise config.invalid("no_rope_layers", f"names {len(rotary)} of {shape.num_layers} layers")
            kinds = tuple(CHUNKED if flag else FULL for flag in rotary[: shape.num_layers])
        else:
            step = config.positive("no_rope_layer_interval", 4)
            kinds = tuple(FULL if (index + 1) % step == 0 else CHUNKED for index in range(shape.num_layers))
    chunk = config.positive("attention_chunk_size", 8192)
    num_experts = config.positive("num_experts", 16)
    active = config.positive("num_experts_per_tok", 1)
    if active > num_experts:
        raise config.invalid("num_experts_per_tok", f"is {active}, more than {num_experts} experts")
    width = config.positive("intermediate_size", 8192)
    listed = config.integers("moe_layers")
    step = config.positive("interleave_moe_layer_step", 1)
    routed = set(listed) if listed is not None else set(range(step - 1, shape.num_layers, step))
    bias = config.flag("attention_bias", False)
    attention_tensors = attention(
        hidden,
        shape.num_attention_heads,
        shape.num_key_value_heads,
        shape.head_dim,
        qkv_bias=bias,
        o_bias=bias,
    )
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    sparse = (
        *attention_tensors,
        *experts(hidden, width, num_experts, active, name="feed_forward.experts"),
        *router(hidden, num_experts, name="feed_forward.router"),
        *gated_mlp(hidden, width, name="feed_forward.shared_expert", role="shared_expert"),
        *norms,
    )
    dense = (
        *attention_tensors,
        *gated_mlp(hidden, config.positive("intermediate_size_mlp", 16_384), name="feed_forward"),
        *norms,
    )

    def make(index: int) -> Layer:
        cache = attention_cache(shape, kinds[index], chunk)
        return Layer((cache,), sparse if index in routed else dense)

    return finish(config, shape, by_index(shape.num_layers, make), tied=False)


def llama4(config: Config) -> Structure:
    """Read Llama 4 with its vision tower and projector."""
    text = config.sub("text_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    structure = text_structure(text, "llama4_text")
    # Llama4ForConditionalGeneration builds its default tower where the file names none.
    vision = config.sub("vision_config") or config.with_only({})
    hidden = vision.positive("hidden_size", 768)
    width = vision.positive("intermediate_size", 5632)
    patch = vision.positive("patch_size", 14)
    num_patches = (vision.positive("image_size", 448) // patch) ** 2 + 1
    layer = (
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "o_proj")
            for tensor in linear(f"self_attn.{name}", hidden, hidden, "vision", bias=True)
        ),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    inner = vision.positive("projector_input_dim", 4096)
    outer = vision.positive("projector_output_dim", 4096)
    tower = (
        *linear("patch_embedding.linear", hidden, 3 * patch * patch, "vision"),
        Tensor("class_embedding", (hidden,), "vision"),
        Tensor("positional_embedding_vlm", (num_patches, hidden), "vision"),
        *norm("layernorm_pre", hidden, bias=True),
        *norm("layernorm_post", hidden, bias=True),
        *repeat(layer, vision.layers(default=34)),
        *linear("vision_adapter.mlp.fc1", inner, width, "vision"),
        *linear("vision_adapter.mlp.fc2", outer, inner, "vision"),
    )
    projector = linear(
        "multi_modal_projector.linear_1",
        structure.hidden_size,
        vision.positive("vision_output_dim", 7680),
        "projector",
    )
    return with_tensors(structure, (*with_role(tower, "vision"), *projector))
