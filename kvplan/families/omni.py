"""Qwen2.5-Omni and Qwen3-Omni: a thinker that reads, hears and sees, and a talker that speaks.

The thinker is the language model: its cache is what is planned. Qwen2.5-Omni's talker and the
vocoder behind it are counted with the weights where ``enable_audio_output`` loads them. Source:
transformers 5.23 models/qwen2_5_omni, models/qwen3_omni_moe.
"""

from dataclasses import replace

from kvplan.blocks.audio import spectrum_encoder, whisper_layer
from kvplan.blocks.decoder import block, shape_of
from kvplan.blocks.vision import as_vision
from kvplan.config import Config
from kvplan.families.omni_voice import vocoder
from kvplan.families.qwen_vl import qwen2_5_tower, qwen3_tower
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, norm, repeat, with_role


def qwen2_5_omni(config: Config) -> Structure:
    """Read Qwen2.5-Omni whole: thinker, and talker and vocoder where audio comes out."""
    thinker = config.sub("thinker_config")
    if thinker is None:
        raise config.missing("thinker_config")
    structure = qwen2_5_omni_thinker(thinker)
    if not config.flag("enable_audio_output", True):
        return structure
    talker, voice = config.sub("talker_config"), config.sub("token2wav_config")
    speech = (
        *_talker(talker if talker is not None else config.nested({}, "talker_config.")),
        *vocoder(voice if voice is not None else config.nested({}, "token2wav_config.")),
    )
    return replace(structure, tensors=(*structure.tensors, *with_role(speech, "audio")))


def qwen2_5_omni_thinker(config: Config) -> Structure:
    """Read the thinker: Qwen2.5-VL's eyes, Whisper-like ears, a Qwen2.5 text model."""
    text, audio, vision = (config.sub(key) for key in ("text_config", "audio_config", "vision_config"))
    if text is None:
        raise config.missing("text_config")
    tied = config.flag("tie_word_embeddings", False)
    structure = text_structure(text.override({"tie_word_embeddings": tied}), "qwen2_5_omni_text")
    audio = audio if audio is not None else config.with_only({})
    vision = vision if vision is not None else config.with_only({})
    hidden, out = audio.positive("d_model", 1280), audio.positive("output_dim", 3584)
    ears = (
        Tensor("conv1.weight", (hidden, audio.positive("num_mel_bins", 128), 3), "audio"),
        Tensor("conv1.bias", (hidden,), "audio"),
        Tensor("conv2.weight", (hidden, hidden, 3), "audio"),
        Tensor("conv2.bias", (hidden,), "audio"),
        Tensor("audio_bos_eos_token.weight", (2, out), "audio"),
        *repeat(
            whisper_layer(hidden, audio.positive("encoder_ffn_dim", 5120)),
            audio.layers("encoder_layers", 32),
        ),
        *norm("ln_post", hidden, bias=True),
        *linear("proj", out, hidden, "audio", bias=True),
    )
    eyes = as_vision(qwen2_5_tower(vision, structure.hidden_size))
    return replace(structure, tensors=(*structure.tensors, *eyes, *with_role(ears, "audio")))


# Qwen2_5OmniTalkerConfig.
TALKER_DEFAULTS = {
    "hidden_size": 896,
    "intermediate_size": 18_944,
    "num_hidden_layers": 24,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 8448,
}


def _talker(config: Config) -> tuple[Tensor, ...]:
    config = config.behind(TALKER_DEFAULTS)
    shape = shape_of(config)
    seen = config.positive("embedding_size", 3584)
    return (
        *linear("talker.thinker_to_talker_proj", shape.hidden_size, seen, "audio", bias=True),
        embedding("talker.model.embed_tokens", shape.vocab_size, seen),
        *repeat(block(config, shape, qkv_bias=True), shape.num_layers),
        *norm("talker.model.norm", shape.hidden_size),
        *linear("talker.codec_head", shape.vocab_size, shape.hidden_size, "audio"),
    )


def qwen3_omni(config: Config) -> Structure:
    """Read Qwen3-Omni as vLLM serves it: the thinker; what speaks is named, not counted."""
    thinker = config.sub("thinker_config")
    if thinker is None:
        raise config.missing("thinker_config")
    structure = qwen3_omni_thinker(thinker)
    if not config.flag("enable_audio_output", True):
        return structure
    note = "the thinker alone, as vLLM serves it: the talker and its vocoder are not counted"
    return replace(structure, assumptions=(*structure.assumptions, note))


def qwen3_omni_thinker(config: Config) -> Structure:
    """Read the thinker: Qwen3-VL's eyes, a convolutional ear, a Qwen3 text model with experts."""
    text, audio, vision = (config.sub(key) for key in ("text_config", "audio_config", "vision_config"))
    if text is None:
        raise config.missing("text_config")
    if not text.has("hidden_size") or not text.has("vocab_size"):
        # The class's own defaults are of no model: 28 heads of 73.
        raise text.missing("hidden_size" if not text.has("hidden_size") else "vocab_size")
    tied = config.flag("tie_word_embeddings", False)
    structure = text_structure(text.override({"tie_word_embeddings": tied}), "qwen3_omni_moe_text")
    ears = _ears3(audio if audio is not None else config.with_only({}))
    eyes = as_vision(
        qwen3_tower(vision if vision is not None else config.with_only({}), structure.hidden_size)
    )
    return replace(structure, tensors=(*structure.tensors, *eyes, *with_role(ears, "audio")))


def _ears3(config: Config) -> tuple[Tensor, ...]:
    """Return the encoder over the spectrum and two projections."""
    hidden, out = config.positive("d_model", 1280), config.positive("output_dim", 3584)
    return (
        *spectrum_encoder(
            hidden,
            config.positive("encoder_ffn_dim", 5120),
            config.layers("encoder_layers", 32),
            config.positive("downsample_hidden_size", 480),
            config.positive("num_mel_bins", 128),
        ),
        *linear("proj1", hidden, hidden, "audio", bias=True),
        *linear("proj2", out, hidden, "audio", bias=True),
    )
