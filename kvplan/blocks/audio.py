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


def spectrum_encoder(
    hidden_size: int, intermediate_size: int, num_layers: int, channels: int, num_mel_bins: int
) -> tuple[Tensor, ...]:
    """Return Qwen3's ear: three strided convolutions over the spectrum, biased layers, a last norm.

    Source: transformers 5.23 models/qwen3_omni_moe and models/qwen3_asr (audio parts).
    """
    # Each convolution halves the bins, rounding up.
    left = (((num_mel_bins + 1) // 2 + 1) // 2 + 1) // 2
    convolutions = tuple(
        tensor
        for name, inside in (("conv2d1", 1), ("conv2d2", channels), ("conv2d3", channels))
        for tensor in (
            Tensor(f"{name}.weight", (channels, inside, 3, 3), "audio"),
            Tensor(f"{name}.bias", (channels,), "audio"),
        )
    )
    return with_role(
        (
            *convolutions,
            *linear("conv_out", hidden_size, channels * left, "audio"),
            *repeat(whisper_layer(hidden_size, intermediate_size, key_bias=True), num_layers),
            *norm("ln_post", hidden_size, bias=True),
        ),
        "audio",
    )


def conformer(
    hidden_size: int,
    num_layers: int,
    num_attention_heads: int,
    conv_kernel_size: int,
    channels: tuple[int, int],
    num_features: int,
) -> tuple[Tensor, ...]:
    """Return Gemma 3n's and Gemma 4's ear: two strided convolutions, then conformer layers.

    ``num_features`` are the spectrum's bins, which each convolution halves. Source: transformers
    5.23 models/gemma3n and models/gemma4 (audio parts).
    """
    head_dim = hidden_size // num_attention_heads
    left = -(-num_features // 4)
    feed_forward = (
        *norm("ffw.pre_layer_norm", hidden_size),
        *linear("ffw.ffw_layer_1", 4 * hidden_size, hidden_size, "audio"),
        *linear("ffw.ffw_layer_2", hidden_size, 4 * hidden_size, "audio"),
        *norm("ffw.post_layer_norm", hidden_size),
    )
    attention = (
        Tensor("attn.per_dim_scale", (head_dim,), "audio"),
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "relative_k_proj", "post")
            for tensor in linear(f"attn.{name}", hidden_size, hidden_size, "audio")
        ),
        *norm("norm_pre_attn", hidden_size),
        *norm("norm_post_attn", hidden_size),
    )
    convolution = (
        *norm("lconv1d.pre_layer_norm", hidden_size),
        *linear("lconv1d.linear_start", 2 * hidden_size, hidden_size, "audio"),
        Tensor("lconv1d.depthwise_conv1d.weight", (hidden_size, 1, conv_kernel_size), "audio"),
        *norm("lconv1d.conv_norm", hidden_size),
        *linear("lconv1d.linear_end", hidden_size, hidden_size, "audio"),
    )
    layer = (*feed_forward, *attention, *convolution, *feed_forward, *norm("norm_out", hidden_size))
    return with_role(
        (
            Tensor("subsample.conv_0.weight", (channels[0], 1, 3, 3), "audio"),
            *norm("subsample.norm_0", channels[0]),
            Tensor("subsample.conv_1.weight", (channels[1], channels[0], 3, 3), "audio"),
            *norm("subsample.norm_1", channels[1]),
            *linear("subsample.input_proj_linear", hidden_size, channels[1] * left, "audio"),
            *repeat(layer, num_layers),
        ),
        "audio",
    )
