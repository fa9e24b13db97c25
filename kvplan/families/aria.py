"""Aria: SigLIP, learned queries that look at its patches, a mixture of experts.

Source: transformers 5.23 models/aria.
"""

from kvplan.blocks.vision import siglip_encoder
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm

IDEFICS3_DEFAULTS: dict[str, object] = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "image_size": 224,
    "patch_size": 32,
}


def aria(config: Config) -> Structure:
    """Read Aria: as many queries as ``projector_patch_to_query_dict`` names at most."""

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        seen = vision.positive("hidden_size")
        width = _inner_width(config)
        return (
            Tensor("multi_modal_projector.query", (_num_queries(config), seen), "projector"),
            *(
                tensor
                for name in ("q_proj", "k_proj", "v_proj")
                for tensor in linear(f"multi_modal_projector.cross_attn.{name}", seen, seen, "projector")
            ),
            *linear("multi_modal_projector.cross_attn.in_proj", 3 * seen, seen, "projector", bias=True),
            *linear("multi_modal_projector.cross_attn.out_proj", seen, seen, "projector", bias=True),
            *linear("multi_modal_projector.cross_attn.linear", seen, seen, "projector", bias=True),
            *norm("multi_modal_projector.cross_attn.layer_norm", seen, bias=True),
            *norm("multi_modal_projector.cross_attn.layer_norm_kv", seen, bias=True),
            *norm("multi_modal_projector.layer_norm", seen, bias=True),
            *linear("multi_modal_projector.feed_forward.linear_in", width, seen, "projector"),
            *linear("multi_modal_projector.feed_forward.linear_out", size, width, "projector"),
        )

    return joined(
        config, "aria_text", siglip_encoder, projector, tied=False, vision_defaults=IDEFICS3_DEFAULTS
    )


def _inner_width(config: Config) -> int:
    # modeling_aria.py: the projector's hidden layer is as wide as the text model.
    text = config.sub("text_config")
    return text.positive("hidden_size", 4096) if text is not None else 4096


def _num_queries(config: Config) -> int:
    if config.has("max_value_projector_patch_to_query_dict"):
        return config.positive("max_value_projector_patch_to_query_dict")
    counts = config.sub("projector_patch_to_query_dict")
    if counts is None:
        return 256
    return max((counts.positive(name) for name in counts.names()), default=256)
