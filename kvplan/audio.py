"""The ears that multimodal models carry beside their text: Whisper's encoder and its kin.

Its weights count; it caches nothing between tokens. transformers 5.23 models/whisper, qwen2_audio,
qwen2_5_omni, voxtral.
"""

from kvplan.tensors import Tensor, linear, norm, repeat, with_role


def whisper_layer(hidden_size: int, intermediate_size: int, *, key_bias: bool = False) -> tuple[Tensor, ...]:
    """Return one pre-norm layer; Whisper's keys have no bias."""
    biased = ("q_proj", "k_proj", "v_proj", "out_proj") if key_bias else ("q_proj", "v_proj", "out_proj")
    plain = () if key_bias else linear("self_attn.k_proj", hidden_size, hidden_size, "audio")
    return (
        *plain,
        *(
            tensor
            for name in biased
            for tensor in linear(f"self_attn.{name}", hidden_size, hidden_size, "audio", bias=True)
        ),
        *norm("self_attn_layer_norm", hidden_size, bias=True),
        *linear("fc1", intermediate_size, hidden_size, "audio", bias=True),
        *linear("fc2", hidden_size, intermediate_size, "audio", bias=True),
        *norm("final_layer_norm", hidden_size, bias=True),
    )


def whisper_encoder(
    hidden_size: int, intermediate_size: int, num_layers: int, num_mel_bins: int, num_positions: int
) -> tuple[Tensor, ...]:
    """Return two convolutions, ``num_positions`` stored sinusoids (0: computed), layers, a norm."""
    positions = Tensor("embed_positions.weight", (num_positions, hidden_size), "audio")
    return with_role(
        (
            Tensor("conv1.weight", (hidden_size, num_mel_bins, 3), "audio"),
            Tensor("conv1.bias", (hidden_size,), "audio"),
            Tensor("conv2.weight", (hidden_size, hidden_size, 3), "audio"),
            Tensor("conv2.bias", (hidden_size,), "audio"),
            *((positions,) if num_positions else ()),
            *repeat(whisper_layer(hidden_size, intermediate_size), num_layers),
            *norm("layer_norm", hidden_size, bias=True),
        ),
        "audio",
    )
