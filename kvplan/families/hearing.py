"""Text models that hear through Whisper's encoder or its kin, two projections between.

Audio Flamingo 3, Music Flamingo, GLM-ASR, Qwen3-ASR. Source: transformers 5.23
models/audioflamingo3, musicflamingo, glmasr, qwen3_asr.
"""

from kvplan.blocks.audio import spectrum_encoder, whisper_encoder
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear

# configuration_glmasr.py: what GlmAsrConfig puts behind a text config.
GLM_ASR_TEXT: dict[str, object] = {
    "vocab_size": 59_264,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
}


def _two_layers(size: int, middle: int, heard: int, *, bias: bool = True) -> tuple[Tensor, ...]:
    return (
        *linear("multi_modal_projector.linear_1", middle, heard, "projector", bias=bias),
        *linear("multi_modal_projector.linear_2", size, middle, "projector", bias=bias),
    )


def audio_flamingo3(config: Config) -> Structure:
    """Read Audio Flamingo 3 and Music Flamingo: Whisper's encoder before a Qwen2 text model."""

    def tower(audio: Config) -> tuple[Tensor, ...]:
        return whisper_encoder(
            audio.positive("hidden_size", 1280),
            audio.positive("intermediate_size", 5120),
            audio.layers(default=32),
            audio.positive("num_mel_bins", 128),
            audio.positive("max_source_positions", 1500),
        )

    def projector(config: Config, audio: Config, size: int) -> tuple[Tensor, ...]:
        bias = config.flag("projector_bias", True)
        return _two_layers(size, size, audio.positive("hidden_size", 1280), bias=bias)

    return joined(config, "qwen2", tower, projector, tied=False, seen_key="audio_config")


def glm_asr(config: Config) -> Structure:
    """Read GLM-ASR: the encoder turns its positions, four frames go into one token, a Llama text."""

    def tower(audio: Config) -> tuple[Tensor, ...]:
        hidden, heads = audio.positive("hidden_size", 1280), audio.positive("num_attention_heads", 20)
        if audio.positive("num_key_value_heads", heads) != heads:
            raise audio.invalid("num_key_value_heads", "differs from the heads, which is not known")
        return whisper_encoder(
            hidden,
            audio.positive("intermediate_size", 5120),
            audio.layers(default=32),
            audio.positive("num_mel_bins", 128),
            0,
        )

    def projector(config: Config, audio: Config, size: int) -> tuple[Tensor, ...]:
        del config
        # modeling_glmasr.py: frames are joined until they are as wide as the encoder's MLP.
        return _two_layers(size, 2 * size, audio.positive("intermediate_size", 5120))

    return joined(
        config,
        "llama",
        tower,
        projector,
        tied=True,
        text_defaults=GLM_ASR_TEXT,
        seen_key="audio_config",
    )


def qwen3_asr(config: Config) -> Structure:
    """Read Qwen3-ASR: Qwen3-Omni's encoder, three convolutions that shrink the spectrum."""

    def projector(config: Config, audio: Config, size: int) -> tuple[Tensor, ...]:
        del config, size
        width = audio.positive("d_model", 1024)
        return _two_layers(audio.positive("output_dim", 3584), width, width)

    return joined(config, "qwen3", _ears, projector, tied=True, seen_key="audio_config")


def _ears(audio: Config) -> tuple[Tensor, ...]:
    return spectrum_encoder(
        audio.positive("d_model", 1024),
        audio.positive("encoder_ffn_dim", 4096),
        audio.layers("encoder_layers", 24),
        audio.positive("downsample_hidden_size", 480),
        audio.positive("num_mel_bins", 128),
    )
