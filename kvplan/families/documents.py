"""Models that read documents, stock parts joined: GOT-OCR 2, PaddleOCR-VL, VideoLLaMA 3, LightOnOCR.

Source: transformers 5.23 models/got_ocr2, pp_chart2table, paddleocr_vl, video_llama_3, lighton_ocr.
"""

from kvplan.blocks.sam import sam_encoder
from kvplan.blocks.vision import pixtral, siglip_encoder
from kvplan.config import Config
from kvplan.families.reading import joined
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm

PADDLE_TOWER: dict[str, object] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "image_size": 384,
    "patch_size": 14,
}


def got_ocr2(config: Config) -> Structure:
    """Read GOT-OCR 2 and PP-Chart2Table: SAM's encoder, two strided convolutions, one projection."""

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        del config
        seen = vision.positive("output_channels", 256)
        return (
            Tensor("conv_upsampler1.weight", (2 * seen, seen, 3, 3), "projector"),
            Tensor("conv_upsampler2.weight", (size, 2 * seen, 3, 3), "projector"),
            *linear("multimodal_projector", size, size, "projector", bias=True),
        )

    return joined(config, "qwen2", sam_encoder, projector, tied=True)


def paddleocr_vl(config: Config) -> Structure:
    """Read PaddleOCR-VL: SigLIP, patches merged two by two, ERNIE 4.5's layers."""

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        del config
        seen = vision.positive("hidden_size")
        merged = seen * vision.positive("spatial_merge_size", 2) ** 2
        return (
            *norm("projector.pre_norm", seen, bias=True),
            *linear("projector.linear_1", merged, merged, "projector", bias=True),
            *linear("projector.linear_2", size, merged, "projector", bias=True),
        )

    return joined(
        config,
        "paddleocr_vl_text",
        siglip_encoder,
        projector,
        tied=True,
        vision_defaults=PADDLE_TOWER,
    )


def video_llama3(config: Config) -> Structure:
    """Read VideoLLaMA 3: SigLIP with rotary positions in place of learned ones."""

    def tower(vision: Config) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in siglip_encoder(vision) if "position_embedding" not in tensor.name)

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        del config
        seen = vision.positive("hidden_size", 768)
        return (
            *linear("projector.readout.0", size, seen, "projector", bias=True),
            *linear("projector.readout.2", size, size, "projector", bias=True),
        )

    return joined(config, "qwen2", tower, projector, tied=False)


def lighton_ocr(config: Config) -> Structure:
    """Read LightOnOCR: Pixtral, a norm and a merger of patches, Qwen3's layers."""

    def projector(config: Config, vision: Config, size: int) -> tuple[Tensor, ...]:
        seen = vision.positive("hidden_size", 1024)
        merged = seen * config.positive("spatial_merge_size", 2) ** 2
        return (
            *norm("vision_projection.norm", seen),
            *linear("vision_projection.patch_merger.merging_layer", seen, merged, "projector"),
            *linear("vision_projection.linear_1", size, seen, "projector"),
            *linear("vision_projection.linear_2", size, size, "projector"),
        )

    return joined(config, "qwen3", pixtral, projector, tied=True)
