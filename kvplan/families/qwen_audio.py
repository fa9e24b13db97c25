"""Qwen2-Audio: Whisper's encoder and one projection before a Qwen2 (or Qwen) text model.

Source: transformers 5.23 models/qwen2_audio.
"""

from dataclasses import replace

from kvplan.config import Config
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat
from kvplan.vision import as_vision


def qwen2_audio(config: Config) -> Structure:
    """Read Qwen2-Audio from its nested configs."""
    text, audio = config.sub("text_config"), config.sub("audio_config")
    if text is None:
        raise config.invalid("text_config", "is missing")
    structure = text_structure(text, text.text("model_type", "qwen2"))
    audio = config.with_only({}) if audio is None else audio
    hidden, width = audio.positive("d_model", 1280), audio.positive("encoder_ffn_dim", 5120)
    layer = (
        *linear("self_attn.k_proj", hidden, hidden, "audio"),
        *(
            tensor
            for name in ("q_proj", "v_proj", "out_proj")
            for tensor in linear(f"self_attn.{name}", hidden, hidden, "audio", bias=True)
        ),
        *norm("self_attn_layer_norm", hidden, bias=True),
        *linear("fc1", width, hidden, "audio", bias=True),
        *linear("fc2", hidden, width, "audio", bias=True),
        *norm("final_layer_norm", hidden, bias=True),
    )
    tower = (
        Tensor("conv1.weight", (hidden, audio.positive("num_mel_bins", 128), 3), "audio"),
        Tensor("conv1.bias", (hidden,), "audio"),
        Tensor("conv2.weight", (hidden, hidden, 3), "audio"),
        Tensor("conv2.bias", (hidden,), "audio"),
        Tensor("embed_positions.weight", (audio.positive("max_source_positions", 1500), hidden), "audio"),
        *repeat(layer, audio.layers("encoder_layers", 32)),
        *norm("layer_norm", hidden, bias=True),
    )
    projector = linear("multi_modal_projector.linear", structure.hidden_size, hidden, "projector", bias=True)
    return replace(structure, tensors=(*structure.tensors, *as_vision(tower, "audio"), *projector))
