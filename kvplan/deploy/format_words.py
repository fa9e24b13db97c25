"""What a model's name says of its weights: a GGUF file's mix, or that a folder's are quantized."""

import re

from kvplan.errors import UnknownFormat

GGUF_QUANT = re.compile(
    r"(?<![A-Za-z0-9])(?P<dynamic>UD-)?(?P<quant>I?Q\d_[A-Z0-9]+(?:_[A-Z]+)?|T?Q\d_\d|BF16|F16|F32|MXFP4(?:_MOE)?)"
    r"(?=[.\-_]|$)",
    re.IGNORECASE,
)
OLLAMA_QUANT = re.compile(r"[-:](q\d_[a-z0-9_]+|fp16|bf16)$", re.IGNORECASE)

# Words that say a folder's weights are not the published 16-bit ones, and what each is among kvplan's
# formats ("" where that is not said), the more telling ones first.
WORDS: dict[str, str] = {
    "nvfp4": "nvfp4", "mxfp4": "mxfp4", "fp4": "", "fp8": "fp8", "awq": "awq", "gptq-int8": "gptq-int8",
    "gptq": "gptq-int4", "w4a16": "w4a16", "autoround": "w4a16", "w8a16": "", "w8a8": "int8",
    "bnb-4bit": "nf4", "bnb": "", "nf4": "nf4", "int8": "int8", "int4": "", "4bit": "", "8bit": "",
    "exl2": "", "exl3": "", "mlx": "", "gguf": "",
}  # fmt: skip
_QUANTIZED = re.compile("|".join(WORDS), re.IGNORECASE)
_WITH_ITS_DASHES = re.compile(
    rf"[-_.]*(?:{_QUANTIZED.pattern})(?:[-_.](?:kv|dynamic|block))*[-_.]*", re.IGNORECASE
)


def sounds_quantized(name: str) -> bool:
    """Tell whether a name has a word that says its weights are quantized."""
    return _QUANTIZED.search(name) is not None


def format_said(name: str) -> str:
    """Return the weight format that a name says, an empty string where it says none that is known."""
    said = name.casefold()
    return next((known for word, known in WORDS.items() if known and word in said), "")


def without_format(name: str) -> str:
    """Return a name without what it says of its quantization."""
    return _WITH_ITS_DASHES.sub("-", name).strip("-_.")


def without_mix(name: str) -> str:
    """Return a GGUF file's name without its ending, the number of its part and its mix."""
    return GGUF_QUANT.sub("", re.sub(r"\.gguf$|-\d{5}-of-\d{5}", "", name, flags=re.IGNORECASE))


def gguf_format(written: str) -> tuple[str, tuple[str, ...]] | None:
    """Return (weight format, notes) that a GGUF file's name states, None for other names."""
    from kvplan.weight_formats import weight_format

    last = written.rpartition("/")[2]
    if not last.casefold().endswith(".gguf"):
        return None
    match = GGUF_QUANT.search(last)
    if match is None:
        return None
    quant = match.group("quant").casefold()
    name = {"bf16": "gguf-bf16", "f16": "gguf-f16", "f32": "gguf-f32", "mxfp4": "mxfp4_moe"}.get(quant, quant)
    try:
        weight_format(name)
    except UnknownFormat:
        return None
    note = f"weights read as {quant} by the file's name"
    if match.group("dynamic"):
        note += " (UD: Unsloth's own mix, a little larger or smaller)"
    return name, (note,)
