"""What turns Qwen2.5-Omni's codes into sound: a diffusion transformer, a speaker encoder, BigVGAN.

It caches nothing that a serving engine plans; its weights count. Source: transformers 5.23
models/qwen2_5_omni/modeling_qwen2_5_omni.py (Qwen2_5OmniToken2WavModel).
"""

from kvplan.config import Config
from kvplan.tensors import Tensor, linear, norm, repeat

# Qwen2_5OmniDiTConfig and Qwen2_5OmniBigVGANConfig.
ENCODER_CHANNELS, ENCODER_KERNELS = (256, 256, 256, 256, 768), (5, 3, 3, 3, 1)
RESBLOCK_KERNELS, UPSAMPLE_KERNELS = (3, 7, 11), (11, 7, 4, 4, 4, 4)
# A residual block has three pairs of convolutions, each after a learned activation.
NUM_PAIRS = 3
TIME_FREQUENCIES = 256


def vocoder(config: Config) -> tuple[Tensor, ...]:
    """Return the weights of token2wav."""
    return (*_transformer(_part(config, "dit_config")), *_bigvgan(_part(config, "bigvgan_config")))


def _part(config: Config, key: str) -> Config:
    section = config.sub(key)
    return section if section is not None else config.nested({}, f"{key}.")


def _convolution(
    name: str, num_out: int, num_in: int, kernel: int, *, bias: bool = True
) -> tuple[Tensor, ...]:
    weight = Tensor(f"{name}.weight", (num_out, num_in, kernel), "audio")
    return (weight, Tensor(f"{name}.bias", (num_out,), "audio")) if bias else (weight,)


def _sizes(config: Config, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    sizes = config.integers(key) or default
    if min(sizes) < 1:
        raise config.invalid(key, "has a size below 1")
    return sizes


def _transformer(config: Config) -> tuple[Tensor, ...]:
    hidden = config.positive("hidden_size", 1024)
    inner = config.positive("num_attention_heads", 16) * config.positive("head_dim", 64)
    width = hidden * config.positive("ff_mult", 2)
    mels, words = config.positive("mel_dim", 80), config.positive("emb_dim", 512)
    speaker, spoken = config.positive("enc_dim", 128), config.positive("enc_emb_dim", 192)
    layer = (
        *linear("attn_norm.linear", 6 * hidden, hidden, "audio", bias=True),
        *(
            tensor
            for name in ("to_q", "to_k", "to_v")
            for tensor in linear(f"attn.{name}", inner, hidden, "audio", bias=True)
        ),
        *linear("attn.to_out.0", hidden, inner, "audio", bias=True),
        *linear("ff.ff.0", width, hidden, "audio", bias=True),
        *linear("ff.ff.3", hidden, width, "audio", bias=True),
    )
    return (
        *linear("time_embed.time_mlp.0", hidden, TIME_FREQUENCIES, "audio", bias=True),
        *linear("time_embed.time_mlp.2", hidden, hidden, "audio", bias=True),
        Tensor("text_embed.codec_embed.weight", (config.positive("num_embeds", 8193) + 1, words), "audio"),
        *linear("input_embed.proj", hidden, mels + speaker + spoken + words, "audio", bias=True),
        *_speaker(config, mels, speaker),
        *repeat(layer, config.layers(default=22)),
        *linear("norm_out.linear", 2 * hidden, hidden, "audio", bias=True),
        *linear("proj_out", mels, hidden, "audio", bias=True),
    )


def _speaker(config: Config, mels: int, out: int) -> tuple[Tensor, ...]:
    """Return ECAPA-TDNN (arXiv 2005.07143): the voice to speak in."""
    channels = _sizes(config, "enc_channels", ENCODER_CHANNELS)
    kernels = _sizes(config, "enc_kernel_sizes", ENCODER_KERNELS)
    if len(channels) != len(kernels):
        raise config.invalid("enc_kernel_sizes", f"has {len(kernels)} sizes for {len(channels)} channels")
    scale, squeezed = config.positive("enc_res2net_scale", 2), config.positive("enc_se_channels", 64)
    pooled = config.positive("enc_attention_channels", 64)
    tensors = _convolution("blocks.0.conv", channels[0], mels, kernels[0])
    for index in range(1, len(channels) - 1):
        before, after, name = channels[index - 1], channels[index], f"blocks.{index}"
        part = after // scale
        tensors += (
            *_convolution(f"{name}.tdnn1.conv", after, before, 1),
            *repeat(_convolution(f"{name}.res2net_block", part, part, kernels[index]), max(0, scale - 1)),
            *_convolution(f"{name}.tdnn2.conv", after, after, 1),
            *_convolution(f"{name}.se_block.conv1", squeezed, after, 1),
            *_convolution(f"{name}.se_block.conv2", after, squeezed, 1),
        )
    last = channels[-1]
    return (
        *tensors,
        *_convolution("mfa.conv", last, last, kernels[-1]),
        *_convolution("asp.tdnn.conv", pooled, 3 * last, 1),
        *_convolution("asp.conv", last, pooled, 1),
        *_convolution("fc", out, 2 * last, 1),
    )


def _bigvgan(config: Config) -> tuple[Tensor, ...]:
    """Return BigVGAN (arXiv 2206.04658): upsampling with residual blocks after each step."""
    start, mels = config.positive("upsample_initial_channel", 1536), config.positive("mel_dim", 80)
    steps = _sizes(config, "upsample_kernel_sizes", UPSAMPLE_KERNELS)
    blocks = _sizes(config, "resblock_kernel_sizes", RESBLOCK_KERNELS)
    if len(steps) > 32 or start >> len(steps) < 1:
        raise config.invalid("upsample_kernel_sizes", f"halves {start} channels {len(steps)} times")
    tensors = _convolution("conv_pre", start, mels, 7)
    for index, kernel in enumerate(steps):
        before, after = start >> index, start >> (index + 1)
        tensors += (
            Tensor(f"ups.{index}.0.weight", (before, after, kernel), "audio"),
            Tensor(f"ups.{index}.0.bias", (after,), "audio"),
        )
        for size in blocks:
            pair = (*_convolution("convs", after, after, size), *norm("alpha", after), *norm("beta", after))
            tensors += repeat(pair, 2 * NUM_PAIRS)
    left = start >> len(steps)
    return (
        *tensors,
        *norm("activation_post.alpha", left),
        *norm("activation_post.beta", left),
        *_convolution("conv_post", 1, left, 7, bias=False),
    )
