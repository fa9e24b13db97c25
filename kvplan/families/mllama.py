"""Llama 3.2 Vision: a Llama whose every few layers look at the image's tokens instead of the text's.

A cross-attention layer caches the keys and values of the image once (``max_num_tiles`` tiles of
patches and one class token each) and nothing of the text. Source: transformers 5.23 models/mllama.
"""

from kvplan.blocks.decoder import Shape, by_index, shape_of
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.layers import CrossAttention, FullAttention, Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, lm_head, norm, repeat

# The embedding has rows for the image's special tokens that the head does not predict.
NUM_IMAGE_TOKENS = 8


def mllama(config: Config) -> Structure:
    """Read Llama 3.2 Vision. The head is never tied: it is smaller than the embedding."""
    text, vision = config.sub("text_config"), config.sub("vision_config")
    if text is None or vision is None:
        raise config.invalid("text_config" if text is None else "vision_config", "is missing")
    shape = shape_of(text, num_key_value_heads=8, num_attention_heads=32)
    crossing = set(text.integers("cross_attention_layers") or (3, 8, 13, 18, 23, 28, 33, 38))
    own, cross = _layers(text, shape, _num_image_tokens(vision))
    hidden = shape.hidden_size
    return Structure(
        layers=by_index(shape.num_layers, lambda index: cross if index in crossing else own),
        tensors=(
            embedding("embed_tokens", shape.vocab_size + NUM_IMAGE_TOKENS, hidden),
            *norm("norm", hidden),
            *lm_head(shape.vocab_size, hidden),
            *(() if config.architecture.endswith("ForCausalLM") else _eyes(vision, hidden)),
        ),
        hidden_size=hidden,
        vocab_size=shape.vocab_size,
        num_attention_heads=shape.num_attention_heads,
        context_limit_tokens=text.integer("max_position_embeddings", 131_072),
        tie_word_embeddings=False,
    )


def _eyes(vision: Config, hidden: int) -> tuple[Tensor, ...]:
    seen = vision.positive("vision_output_dim", 7680)
    return (*_tower(vision), *linear("multi_modal_projector", hidden, seen, "projector", bias=True))


def _layers(text: Config, shape: Shape, num_image_tokens: int) -> tuple[Layer, Layer]:
    heads, kv_heads, head_dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
    rest = (
        *gated_mlp(shape.hidden_size, text.positive("intermediate_size", 14_336)),
        *norm("input_layernorm", shape.hidden_size),
        *norm("post_attention_layernorm", shape.hidden_size),
    )
    own = Layer(
        (FullAttention(heads, kv_heads, head_dim, head_dim),),
        (*attention(shape.hidden_size, heads, kv_heads, head_dim), *rest),
    )
    cross = Layer(
        (CrossAttention(heads, kv_heads, head_dim, head_dim, "image", num_image_tokens),),
        (
            *attention(shape.hidden_size, heads, kv_heads, head_dim, name="cross_attn"),
            *norm("cross_attn.q_norm", head_dim),
            *norm("cross_attn.k_norm", head_dim),
            Tensor("cross_attn_attn_gate", (1,), "other"),
            Tensor("cross_attn_mlp_gate", (1,), "other"),
            *rest,
        ),
    )
    return own, cross


def _num_patches(vision: Config) -> int:
    """Return the patches of one tile and its class token."""
    return (vision.positive("image_size", 448) // vision.positive("patch_size", 14)) ** 2 + 1


def _num_image_tokens(vision: Config) -> int:
    return vision.positive("max_num_tiles", 4) * _num_patches(vision)


def _num_aspect_ratios(vision: Config) -> int:
    """Return the ways to lay out tiles, and one for none."""
    stated = vision.sequence("supported_aspect_ratios")
    if stated is not None:
        return len(stated) + 1
    tiles = vision.positive("max_num_tiles", 4)
    return sum(1 for wide in range(1, tiles + 1) for high in range(1, tiles + 1) if wide * high <= tiles) + 1


def _tower(vision: Config) -> tuple[Tensor, ...]:
    hidden, width = vision.positive("hidden_size", 1280), vision.positive("intermediate_size", 5120)
    patch, tiles = vision.positive("patch_size", 14), vision.positive("max_num_tiles", 4)
    patches, ratios = _num_patches(vision), _num_aspect_ratios(vision)
    layer = (
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "o_proj")
            for tensor in linear(f"self_attn.{name}", hidden, hidden, "vision")
        ),
        *linear("mlp.fc1", width, hidden, "vision", bias=True),
        *linear("mlp.fc2", hidden, width, "vision", bias=True),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    gated = (*layer, Tensor("gate_attn", (1,), "vision"), Tensor("gate_ffn", (1,), "vision"))
    tile = (ratios, tiles * hidden)
    return as_vision(
        (
            Tensor("class_embedding", (hidden,), "vision"),
            Tensor(
                "patch_embedding.weight", (hidden, vision.positive("num_channels", 3), patch, patch), "vision"
            ),
            Tensor("gated_positional_embedding.gate", (1,), "vision"),
            Tensor("gated_positional_embedding.embedding", (patches, hidden), "vision"),
            Tensor(
                "gated_positional_embedding.tile_embedding.weight",
                (ratios, tiles * patches * hidden),
                "vision",
            ),
            Tensor("pre_tile_positional_embedding.gate", (1,), "vision"),
            Tensor("pre_tile_positional_embedding.embedding.weight", tile, "vision"),
            Tensor("post_tile_positional_embedding.gate", (1,), "vision"),
            Tensor("post_tile_positional_embedding.embedding.weight", tile, "vision"),
            *norm("layernorm_pre", hidden, bias=True),
            *norm("layernorm_post", hidden, bias=True),
            *repeat(layer, vision.layers(default=32)),
            *repeat(gated, vision.layers("num_global_layers", 8)),
        )
    )
