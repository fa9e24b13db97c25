"""Gemma 3n: layers that read another's cache, alternating updates, a vision tower from timm.

transformers 5.23 models/gemma3n. Of the last ``num_kv_shared_layers`` none has keys or values of its
own.
"""

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types
from kvplan.blocks.audio import conformer
from kvplan.blocks.decoder import by_index, finish, shape_of
from kvplan.blocks.transformer import gated_mlp
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.gemma4 import SPECTRUM_BINS, attention_tensors, cache_of, per_layer_inputs, two_sizes
from kvplan.families.multimodal import with_tensors
from kvplan.families.reading import text_structure
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, norms_of, repeat, with_role

# Parameters of the towers that timm builds by name (timm 1.0.31, without the pooling head).
TIMM_PARAMETERS = {"mobilenetv5_300m_enc": 294_126_912}


def gemma3n_text(config: Config) -> Structure:
    """Read Gemma 3n's text model: AltUp, LAuReL and per-layer embeddings around shared caches."""
    shape = shape_of(config, head_dim=256, vocab_size=262_400)
    hidden = shape.hidden_size
    kinds = layer_types(config, shape.num_layers)
    if kinds is None:
        kinds = tuple(FULL if (index + 1) % 5 == 0 else SLIDING for index in range(shape.num_layers))
    bias = config.flag("attention_bias", False)
    num_shared = config.integer("num_kv_shared_layers", 15)
    window = config.positive("sliding_window", 512)
    num_inputs = config.positive("altup_num_inputs", 4)
    rank = config.positive("laurel_rank", 64)
    each, outside = per_layer_inputs(config, shape, config.positive("hidden_size_per_layer_input", 256))
    widths = (
        config.integers("intermediate_size") if isinstance(config.raw("intermediate_size"), list) else None
    )
    if widths is not None and len(widths) < shape.num_layers:
        raise config.invalid("intermediate_size", f"names {len(widths)} of {shape.num_layers} layers")
    around = (
        Tensor("altup.correct_output_scale", (hidden,), "other"),
        *linear("altup.correction_coefs", num_inputs, num_inputs, "other"),
        *linear("altup.prediction_coefs", num_inputs * num_inputs, num_inputs, "other"),
        *linear("altup.modality_router", num_inputs, hidden, "other"),
        *norm("altup.router_norm", hidden),
        *linear("laurel.linear_left", rank, hidden, "other"),
        *linear("laurel.linear_right", hidden, rank, "other"),
        *norm("laurel.post_laurel_norm", hidden),
    )

    def make(index: int) -> Layer:
        shared = index >= shape.num_layers - num_shared
        kv_heads, head_dim = shape.num_key_value_heads, shape.head_dim
        width = widths[index] if widths is not None else config.positive("intermediate_size", 16_384)
        return Layer(
            (cache_of(kinds[index], shape, head_dim, kv_heads, window, shared=shared),),
            (
                *attention_tensors(shape, head_dim, kv_heads, has_kv=not shared, has_v=True, bias=bias),
                *gated_mlp(hidden, width),
                *norms_of(
                    hidden,
                    "input_layernorm",
                    "post_attention_layernorm",
                    "pre_feedforward_layernorm",
                    "post_feedforward_layernorm",
                ),
                *around,
                *each,
            ),
        )

    projections = tuple(
        tensor
        for name in ("model.altup_projections", "model.altup_unembed_projections")
        for tensor in repeat(linear(name, hidden, hidden, "other"), num_inputs - 1)
    )
    return finish(config, shape, by_index(shape.num_layers, make), tied=True, extra=(*outside, *projections))


def gemma3n(config: Config) -> Structure:
    """Read Gemma 3n with its eyes (timm's MobileNetV5) and ears."""
    text = config.sub("text_config")
    if text is None:
        raise config.missing("text_config")
    tied = config.flag("tie_word_embeddings", True)
    structure = text_structure(text.override({"tie_word_embeddings": tied}), "gemma3n_text")
    vision, audio = config.sub("vision_config"), config.sub("audio_config")
    vision = vision if vision is not None else config.with_only({})
    audio = audio if audio is not None else config.with_only({})
    name = vision.text("architecture", "mobilenetv5_300m_enc")
    if name not in TIMM_PARAMETERS:
        raise UnsupportedArchitecture(
            f"{config.origin}: vision tower '{name}' is not known",
            why="its weights could be any size",
            hint="plan the text model alone, or report the model",
        )
    size, heard = structure.hidden_size, audio.positive("hidden_size", 1536)
    ear = conformer(
        heard,
        audio.layers("conf_num_hidden_layers", 12),
        audio.positive("conf_num_attention_heads", 8),
        audio.positive("conf_conv_kernel_size", 5),
        two_sizes(audio, "sscp_conv_channel_size"),
        audio.positive("input_feat_size", SPECTRUM_BINS),
    )
    return with_tensors(
        structure,
        (
            Tensor(f"vision_tower.{name}", (TIMM_PARAMETERS[name],), "vision"),
            *_embedder("embed_vision", vision, 2048, size),
            *ear,
            *_embedder("embed_audio", audio, 1536, size),
        ),
    )


def _embedder(name: str, config: Config, default: int, text_size: int) -> tuple[Tensor, ...]:
    """Return what brings a sense into the text's space: its own words, two norms, one projection."""
    width = config.positive("hidden_size", default)
    tensors = (
        Tensor(f"{name}.embedding.weight", (config.positive("vocab_size", 128), width), "projector"),
        *norm(f"{name}.hard_embedding_norm", width),
        *norm(f"{name}.soft_embedding_norm", width),
        *linear(f"{name}.embedding_projection", text_size, width, "projector"),
    )
    return with_role(tensors, "projector")
