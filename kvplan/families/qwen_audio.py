"""Text models that hear: Qwen2-Audio and Voxtral, each Whisper's encoder before a text model.

Source: transformers 5.23 models/qwen2_audio, models/voxtral.
"""

from dataclasses import replace

from kvplan.blocks.audio import whisper_encoder
from kvplan.config import Config
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import linear

# configuration_voxtral.py: what VoxtralConfig puts behind a text config.
VOXTRAL_TEXT = {
    "vocab_size": 131_072,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 30,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "head_dim": 128,
}


def qwen2_audio(config: Config) -> Structure:
    """Read Qwen2-Audio: one biased projection before a Qwen2 text model."""
    text, audio = _parts(config)
    structure = text_structure(text, text.text("model_type", "qwen2"))
    hidden = audio.positive("d_model", 1280)
    tower = whisper_encoder(
        hidden,
        audio.positive("encoder_ffn_dim", 5120),
        audio.layers("encoder_layers", 32),
        audio.positive("num_mel_bins", 128),
        audio.positive("max_source_positions", 1500),
    )
    projector = linear("multi_modal_projector.linear", structure.hidden_size, hidden, "projector", bias=True)
    return replace(structure, tensors=(*structure.tensors, *tower, *projector))


def voxtral(config: Config) -> Structure:
    """Read Voxtral: four frames joined, two projections without bias before a Llama text model."""
    text, audio = _parts(config)
    structure = text_structure(text.behind(VOXTRAL_TEXT), text.text("model_type", "llama"))
    hidden, width = audio.positive("hidden_size", 1280), audio.positive("intermediate_size", 5120)
    tower = whisper_encoder(
        hidden,
        width,
        audio.layers(default=32),
        audio.positive("num_mel_bins", 128),
        audio.positive("max_source_positions", 1500),
    )
    size = structure.hidden_size
    projector = (
        *linear("multi_modal_projector.linear_1", size, width, "projector"),
        *linear("multi_modal_projector.linear_2", size, size, "projector"),
    )
    return replace(structure, tensors=(*structure.tensors, *tower, *projector))


def _parts(config: Config) -> tuple[Config, Config]:
    text, audio = config.sub("text_config"), config.sub("audio_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    # Neither class ties its head by what the text config says.
    tied = config.flag("tie_word_embeddings", False)
    return text.override({"tie_word_embeddings": tied}), config.with_only({}) if audio is None else audio
