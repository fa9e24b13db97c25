"""MiniCPM-V: a SigLIP tower and a resampler (2.5 to 4.5), or one that merges half way (4.6).

Source: transformers 5.23 models/minicpmv4_6; openbmb modeling_minicpmv.py and resampler.py for the
older ones, whose text model follows from ``version``.
"""

from dataclasses import replace

from kvplan.blocks.vision import as_vision, siglip_encoder
from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.families.reading import text_structure
from kvplan.model import Structure
from kvplan.tensors import Tensor, linear, norm


def minicpmv4_6(config: Config) -> Structure:
    """Read MiniCPM-V 4.6 from its nested configs."""
    text, vision = config.sub("text_config"), config.sub("vision_config")
    if text is None or vision is None:
        raise config.invalid("text_config" if text is None else "vision_config", "is missing")
    tied = config.flag("tie_word_embeddings", False)
    structure = text_structure(
        text.override({"tie_word_embeddings": tied}), text.text("model_type", "qwen3_5_text")
    )
    hidden, width = vision.positive("hidden_size", 768), vision.positive("intermediate_size", 3072)
    kernel = vision.integers("window_kernel_size") or (2, 2)
    merge = config.integers("merge_kernel_size") or (2, 2)
    if len(kernel) != 2 or len(merge) != 2 or min(*kernel, *merge) < 1:
        raise config.invalid("merge_kernel_size", "is not two sizes")
    window = hidden * kernel[0] * kernel[1]
    inside = (
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
            for tensor in linear(f"vit_merger.self_attn.{name}", hidden, hidden, "vision", bias=True)
        ),
        *norm("vit_merger.layer_norm1", hidden, bias=True),
        *norm("vit_merger.pre_norm", window, bias=True),
        *linear("vit_merger.linear_1", width * kernel[0] * kernel[1], window, "vision", bias=True),
        *linear("vit_merger.linear_2", hidden, width * kernel[0] * kernel[1], "vision", bias=True),
    )
    merged = hidden * merge[0] * merge[1]
    outside: tuple[Tensor, ...] = ()
    times = config.positive("merger_times", 1)
    if times > 16:
        raise config.invalid("merger_times", f"is {times}, more merges than any image allows")
    for index in range(times):
        out = structure.hidden_size if index == times - 1 else hidden
        outside += (
            *norm(f"merger.mlp.{index}.pre_norm", merged, bias=True),
            *linear(f"merger.mlp.{index}.linear_1", merged, merged, "projector", bias=True),
            *linear(f"merger.mlp.{index}.linear_2", out, merged, "projector", bias=True),
        )
    tower = (*siglip_encoder(vision), *as_vision(inside), *as_vision(outside, "projector"))
    return replace(structure, tensors=(*structure.tensors, *tower))


# modeling_minicpmv.py: each version names the text model it was built on.
TEXT_OF_VERSION = {2.0: "minicpm", 2.5: "llama", 2.6: "qwen2", 4.0: "llama", 4.5: "qwen3"}


def minicpmv(config: Config) -> Structure:
    """Read MiniCPM-V 2 to 4.5: flat text keys, a tower, ``query_num`` queries that read the image."""
    vision, version = config.sub("vision_config"), config.number("version", 2.0)
    if version not in TEXT_OF_VERSION or vision is None:
        raise UnsupportedArchitecture(
            f"{config.origin}: MiniCPM-V {version:g} is not known",
            why="each version has a text model and a tower of its own",
            hint="plan the text model alone, or report the model",
        )
    if config.flag("drop_vision_last_layer", False):
        vision = vision.override({"num_hidden_layers": vision.layers() - 1})
    structure = text_structure(config.without("vision_config"), TEXT_OF_VERSION[version])
    size, seen = structure.hidden_size, vision.positive("hidden_size", 1152)
    resampler = (
        Tensor("resampler.query", (config.positive("query_num", 64), size), "projector"),
        *linear("resampler.kv_proj", size, seen, "projector"),
        *linear("resampler.attn.in_proj", 3 * size, size, "projector", bias=True),
        *linear("resampler.attn.out_proj", size, size, "projector", bias=True),
        *(tensor for name in ("q", "kv", "post") for tensor in norm(f"resampler.ln_{name}", size, bias=True)),
        Tensor("resampler.proj", (size, size), "projector"),
    )
    tensors = (*structure.tensors, *siglip_encoder(vision), *as_vision(resampler, "projector"))
    return replace(structure, tensors=tensors)
