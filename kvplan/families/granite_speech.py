"""Granite Speech: a conformer with a CTC middle, a query transformer over windows, a Granite text model.

The adapters that such checkpoints carry beside it are loaded with the audio and are not counted.
Source: transformers 5.23 models/granite_speech, granite_speech_plus, blip_2 (its Q-Former).
"""

from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm, repeat, with_role


def granite_speech(config: Config) -> Structure:
    """Read Granite Speech: one query for every ``downsample_rate`` frames of a window."""
    projecting = config.sub("projector_config") or config.with_only({})
    window, rate = config.positive("window_size", 15), config.positive("downsample_rate", 5)

    def projector(config: Config, encoder: Config, size: int) -> tuple[Tensor, ...]:
        del config, encoder
        hidden = projecting.positive("hidden_size", 768)
        return (
            Tensor("projector.query", (1, window // rate, hidden), "projector"),
            *q_former(projecting),
            *linear("projector.linear", size, hidden, "projector", bias=True),
        )

    return joined(config, "granite", _encoder, projector, tied=True, seen_key="encoder_config")


def _feed_forward(name: str, hidden: int, width: int) -> tuple[Tensor, ...]:
    return (
        *norm(f"{name}.pre_norm", hidden, bias=True),
        *linear(f"{name}.up_proj", width, hidden, "audio", bias=True),
        *linear(f"{name}.down_proj", hidden, width, "audio", bias=True),
    )


def _encoder(config: Config) -> tuple[Tensor, ...]:
    hidden, head_dim = config.positive("hidden_dim", 1024), config.positive("dim_head", 128)
    inner, width = config.positive("num_heads", 8) * head_dim, hidden * config.positive("feedforward_mult", 4)
    wide, kernel = (
        hidden * config.positive("conv_expansion_factor", 2),
        config.positive("conv_kernel_size", 15),
    )
    labels = config.positive("output_dim", 42)
    layer = (
        *_feed_forward("ff1", hidden, width),
        *norm("attn.pre_norm", hidden, bias=True),
        *linear("attn.to_q", inner, hidden, "audio"),
        *linear("attn.to_kv", 2 * inner, hidden, "audio"),
        *linear("attn.to_out", hidden, inner, "audio", bias=True),
        Tensor("attn.rel_pos_emb.weight", (2 * config.positive("max_pos_emb", 512) + 1, head_dim), "audio"),
        *norm("conv.norm", hidden, bias=True),
        *linear("conv.up_conv", 2 * wide, hidden, "audio", bias=True),
        Tensor("conv.depth_conv.conv.weight", (wide, 1, kernel), "audio"),
        *norm("conv.batch_norm", wide, bias=True),
        *linear("conv.down_conv", hidden, wide, "audio", bias=True),
        *_feed_forward("ff2", hidden, width),
        *norm("post_norm", hidden, bias=True),
    )
    return with_role(
        (
            *linear("input_linear", hidden, config.positive("input_dim", 160), "audio", bias=True),
            *repeat(layer, config.layers(default=10)),
            *linear("out", labels, hidden, "audio", bias=True),
            *linear("out_mid", hidden, labels, "audio", bias=True),
        ),
        "audio",
    )


def q_former(config: Config) -> tuple[Tensor, ...]:
    """Return BLIP-2's query transformer: every ``cross_attention_frequency``-th layer looks across."""
    hidden, width = config.positive("hidden_size", 768), config.positive("intermediate_size", 3072)
    across = config.positive("encoder_hidden_size", 1408)
    layers, step = config.layers(default=12), config.positive("cross_attention_frequency", 2)
    layer = (
        *_attention("attention", hidden, hidden),
        *linear("intermediate_query.dense", width, hidden, "projector", bias=True),
        *linear("output_query.dense", hidden, width, "projector", bias=True),
        *norm("output_query.LayerNorm", hidden, bias=True),
    )
    crossing = repeat(_attention("crossattention", hidden, across), -(-layers // step))
    return (*norm("qformer.layernorm", hidden, bias=True), *repeat(layer, layers), *crossing)


def _attention(name: str, hidden: int, seen: int) -> tuple[Tensor, ...]:
    return (
        *linear(f"{name}.attention.query", hidden, hidden, "projector", bias=True),
        *linear(f"{name}.attention.key", hidden, seen, "projector", bias=True),
        *linear(f"{name}.attention.value", hidden, seen, "projector", bias=True),
        *linear(f"{name}.output.dense", hidden, hidden, "projector", bias=True),
        *norm(f"{name}.output.LayerNorm", hidden, bias=True),
    )
