"""DeepSeek-VL: SigLIP, alone or beside SAM's encoder, before a Llama text model.

Source: transformers 5.23 models/deepseek_vl, deepseek_vl_hybrid.
"""

from kvplan.blocks.sam import sam_encoder, sam_neck, sam_reduction
from kvplan.blocks.vision import as_vision, siglip
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear


def deepseek_vl(config: Config) -> Structure:
    """Read DeepSeek-VL 1.3B: two layers between the tower and the text."""

    def aligner(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        del config
        return (
            *linear("aligner.linear1", size, vision.positive("hidden_size", 768), "projector", bias=True),
            *linear("aligner.linear2", size, size, "projector", bias=True),
        )

    return joined(config, "llama", siglip, aligner, tied=True)


def deepseek_vl_hybrid(config: Config) -> Structure:
    """Read DeepSeek-VL 7B: SAM sees the image in high resolution, twice through a neck."""
    high = config.sub("high_res_vision_config") or config.with_only({})
    channels = high.positive("output_channels", 256)

    def both(vision: Config) -> tuple[Tensor, ...]:
        # The second neck maps the encoder's states of an earlier layer.
        return as_vision(
            (
                *siglip(vision),
                *sam_encoder(high),
                *sam_neck(high.positive("hidden_size", 768), channels),
                *sam_reduction(channels, 2 * channels, 4 * channels),
                Tensor("high_res_vision_alpha", (1,), "vision"),
            )
        )

    def aligner(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        half = size // 2
        if size % 2:
            raise config.invalid("hidden_size", f"of the text is {size}, which the two towers cannot halve")
        seen = vision.positive("hidden_size", 768)
        return (
            *linear("aligner.vision_proj", half, seen, "projector", bias=True),
            *linear("aligner.high_res_vision_proj", half, 4 * channels, "projector", bias=True),
            *linear("aligner.proj", size, size, "projector", bias=True),
        )

    return joined(config, "llama", both, aligner, tied=True)
