"""Formats that weights are published in: how many bytes a row takes, scales and zero points included.

A fractional width (4.5 bits) is always computed by blocks, never as a float per element.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Literal

from kvplan.errors import UnknownFormat, did_you_mean
from kvplan.frozen import dataclass
from kvplan.quantity import Basis

Coverage = Literal["all", "linears", "linears+embeddings", "experts"]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A format that weights are stored in.

    ``bits`` per element; every ``group_size`` elements of a row (0: the whole row, or a
    ``group_rows`` x ``group_size`` tile) carry ``scale_bits`` and ``zero_bits``; a row carries
    ``row_bytes``, an input column ``input_bytes`` (GPTQ's g_idx), a tensor ``tensor_bytes``.
    ``coverage`` says which tensors it packs; the rest stay in ``rest_dtype`` (empty: the model's
    own 16-bit type). ``family`` groups formats that the same engines load.
    """

    name: str
    family: Literal["plain", "fp8", "int8", "int4", "bnb", "fp4", "gguf", "mlx", "exl"]
    bits: int
    coverage: Coverage = "linears"
    group_size: int = 0
    group_rows: int = 1
    scale_bits: int = 0
    zero_bits: int = 0
    row_bytes: int = 0
    input_bytes: int = 0
    tensor_bytes: int = 0
    aliases: tuple[str, ...] = ()
    basis: Basis = "exact"
    about: str = ""
    source: str = ""


_CT = "compressed-tensors pack-quantized layout"
WEIGHT_FORMATS: dict[str, WeightFormat] = {
    weight.name: weight
    for weight in (
        WeightFormat("fp32", "plain", 32, "all", aliases=("float32", "f32"), about="32-bit floats"),
        WeightFormat("bf16", "plain", 16, "all", aliases=("bfloat16",), about="16-bit brain floats"),
        WeightFormat("fp16", "plain", 16, "all", aliases=("float16", "f16", "half"), about="16-bit floats"),
        WeightFormat(
            "fp8",
            "fp8",
            8,
            row_bytes=4,
            aliases=("fp8-per-channel", "fp8-e4m3", "fp8_e4m3", "w8a8-fp8"),
            about="8-bit floats, an fp32 scale per output row; embeddings and head 16-bit",
            source="llm-compressor FP8_DYNAMIC recipe (compressed-tensors, channel strategy)",
        ),
        WeightFormat(
            "fp8-per-tensor",
            "fp8",
            8,
            tensor_bytes=4,
            about="8-bit floats, one fp32 scale per tensor",
            source="vLLM model_executor/layers/quantization/fp8.py",
        ),
        WeightFormat(
            "fp8-block",
            "fp8",
            8,
            group_size=128,
            group_rows=128,
            scale_bits=32,
            aliases=("fp8-block-128x128",),
            about="8-bit floats, an fp32 scale per 128 x 128 tile (DeepSeek-V3)",
            source="DeepSeek-V3 config.json quantization_config.weight_block_size",
        ),
        WeightFormat(
            "int8",
            "int8",
            8,
            row_bytes=2,
            aliases=("w8a8", "w8a8-int8", "ct-w8a8-int8-channel"),
            about="8-bit integers, a 16-bit scale per output row",
            source="llm-compressor W8A8 recipe (compressed-tensors, channel strategy)",
        ),
        WeightFormat(
            "gptq-int8",
            "int8",
            8,
            group_size=128,
            scale_bits=16,
            zero_bits=8,
            input_bytes=4,
            aliases=("gptq-int8-g128",),
            about="GPTQ 8-bit, groups of 128",
            source="GPTQ checkpoints: qweight, scales, qzeros, g_idx",
        ),
        WeightFormat(
            "awq",
            "int4",
            4,
            group_size=128,
            scale_bits=16,
            zero_bits=4,
            aliases=("awq-int4", "awq-int4-g128", "int4", "awq-4bit"),
            about="AWQ 4-bit, groups of 128 with scale and zero; embeddings and head 16-bit",
            source="AutoAWQ checkpoints: qweight, qzeros, scales",
        ),
        WeightFormat(
            "gptq-int4",
            "int4",
            4,
            group_size=128,
            scale_bits=16,
            zero_bits=4,
            input_bytes=4,
            aliases=("gptq", "gptq-int4-g128", "gptq-4bit"),
            about="GPTQ 4-bit, groups of 128 with scale and zero; embeddings and head 16-bit",
            source="GPTQ checkpoints: qweight, scales, qzeros, g_idx",
        ),
        WeightFormat(
            "w4a16",
            "int4",
            4,
            group_size=128,
            scale_bits=16,
            aliases=("ct-w4a16-g128-sym", "w4a16-g128"),
            about="4-bit symmetric, groups of 128 with a 16-bit scale",
            source=_CT,
        ),
        WeightFormat(
            "w4a16-g32",
            "int4",
            4,
            group_size=32,
            scale_bits=16,
            aliases=("ct-w4a16-g32-sym",),
            about="4-bit symmetric, groups of 32 with a 16-bit scale",
            source=_CT,
        ),
        WeightFormat(
            "torchao-int4",
            "int4",
            4,
            group_size=128,
            scale_bits=16,
            zero_bits=16,
            about="torchao 4-bit, groups of 128 with 16-bit scale and zero; embeddings and head 16-bit",
            source="torchao Int4WeightOnlyConfig (tinygemm layout: scale_and_zero)",
        ),
        WeightFormat(
            "bnb-int8",
            "bnb",
            8,
            row_bytes=4,
            aliases=("llm-int8", "8bit"),
            about="bitsandbytes LLM.int8(): 8-bit rows with an fp32 absmax",
            source="bitsandbytes Linear8bitLt",
        ),
        WeightFormat(
            "nf4",
            "bnb",
            4,
            group_size=64,
            scale_bits=32,
            aliases=("bnb-nf4", "bnb-4bit", "4bit", "qlora"),
            about="bitsandbytes NF4: blocks of 64 with an fp32 absmax",
            source="transformers 5.23 BitsAndBytesConfig (double quantization off by default)",
        ),
        WeightFormat(
            "nf4-dq",
            "bnb",
            4,
            group_size=64,
            scale_bits=8,
            tensor_bytes=4,
            basis="calibrated",
            aliases=("bnb-nf4-dq",),
            about="bitsandbytes NF4 with double quantization: 8-bit absmax per 64",
            source="bitsandbytes functional.py: absmax quantized in blocks of 256",
        ),
        WeightFormat(
            "mxfp4",
            "fp4",
            4,
            "experts",
            group_size=32,
            scale_bits=8,
            about="OCP MXFP4 experts (gpt-oss): 32 elements with an 8-bit exponent; the rest 16-bit",
            source="transformers 5.23 integrations/mxfp4.py",
        ),
        WeightFormat(
            "nvfp4",
            "fp4",
            4,
            group_size=16,
            scale_bits=8,
            tensor_bytes=8,
            about="NVFP4: 16 elements with an fp8 scale, an fp32 scale a tensor; embeddings and head 16-bit",
            source="ModelOpt NVFP4 checkpoints: weight, weight_scale, weight_scale_2, input_scale",
        ),
        *(
            WeightFormat(
                f"mlx-{bits}bit",
                "mlx",
                bits,
                "linears+embeddings",
                group_size=64,
                scale_bits=16,
                zero_bits=16,
                aliases=(f"mlx-int{bits}",),
                about=f"MLX affine {bits}-bit, groups of 64 with 16-bit scale and bias, embeddings too",
                source="mlx-lm utils.py quantize_model",
            )
            for bits in (2, 3, 4, 5, 6, 8)
        ),
    )
}

# The mixes of llama.cpp's tools/quantize: names of --weights, sizes by kvplan.gguf.mix.
GGUF_MIXES: tuple[str, ...] = (
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",
    "q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",
    "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m",
    "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4_moe", "gguf-f16", "gguf-bf16", "gguf-f32",
)  # fmt: skip
GGUF_ALIASES: dict[str, str] = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}

# Formats that checkpoints use with other groups than 128: ``awq-g64``, ``gptq-int4-grow`` (whole rows).
GROUPED_FORMATS = frozenset(("awq", "gptq-int4", "gptq-int8", "w4a16", "torchao-int4"))


@lru_cache(maxsize=256)
def weight_format(name: str) -> WeightFormat:
    """Return the weight format of that name or alias.

    ``exl3-4.0`` and ``exl2-4.65`` are read as ExLlama's average bits (assumed: the converter
    spreads them over tensors). Raises UnknownFormat with the closest names.
    """
    key = name.casefold()
    if key in WEIGHT_FORMATS:
        return WEIGHT_FORMATS[key]
    for weight in WEIGHT_FORMATS.values():
        if key in weight.aliases:
            return weight
    mix = GGUF_ALIASES.get(key.replace("-", "_"), key)
    if mix in GGUF_MIXES or mix.replace("-", "_") in GGUF_MIXES:
        mix = mix if mix in GGUF_MIXES else mix.replace("-", "_")
        return WeightFormat(
            mix, "gguf", 0, "all", about=f"llama.cpp's {mix} mix", source="llama.cpp src/llama-quant.cpp"
        )
    if key.startswith(("exl2-", "exl3-")):
        return _exl_format(key)
    base, _, group = key.rpartition("-g")
    if base in GROUPED_FORMATS and (group == "row" or (group.isdigit() and 0 < int(group) <= 2**16)):
        grouped = WEIGHT_FORMATS[base]
        text = "rows" if group == "row" else f"groups of {group}"
        return replace(
            grouped,
            name=key,
            # A row longer than any matrix has makes one group of each row.
            group_size=2**40 if group == "row" else int(group),
            aliases=(),
            about=grouped.about.replace("groups of 128", text),
        )
    raise UnknownFormat(
        f"'{name}' is not a weight format",
        why=did_you_mean(name, weight_format_names()) or "formats go by the names their checkpoints use",
        hint="see: kvplan list formats",
    )


def _exl_format(key: str) -> WeightFormat:
    engine, _, bits = key.partition("-")
    try:
        hundredths = round(float(bits.removesuffix("bpw")) * 100)
    except ValueError:
        hundredths = 0
    if not 100 <= hundredths <= 800:
        raise UnknownFormat(
            f"'{key}' is not a weight format",
            why=f"{engine} takes an average of 1 to 8 bits a weight",
            hint=f"write it like {engine}-4.0",
        )
    # Hundredths of a bit: 100 elements of b bits are b x 100 bits.
    return WeightFormat(
        key,
        "exl",
        0,
        group_size=100,
        scale_bits=hundredths,
        basis="assumed",
        about=f"ExLlama at {hundredths / 100:g} bits a weight on average",
        source="exllamav3 doc/convert.md",
    )


def weight_format_names() -> tuple[str, ...]:
    """Return every name that ``--weights`` takes, aliases included."""
    names: list[str] = []
    for weight in WEIGHT_FORMATS.values():
        names += (weight.name, *weight.aliases)
    return (*names, *GGUF_MIXES, *GGUF_ALIASES)
