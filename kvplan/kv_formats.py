"""Formats that a cache is kept in: how many bytes a head of one token takes, scales included."""

from collections.abc import Iterable
from dataclasses import replace

from kvplan.dtypes import GGML_TYPES
from kvplan.errors import UnknownFormat, did_you_mean
from kvplan.frozen import dataclass
from kvplan.units import ceil_div


@dataclass(frozen=True, slots=True)
class KvFormat:
    """A format that keys or values are kept in.

    A head of n elements takes ``ceil(n / block_size) * block_bytes + head_bytes``: blocks of values
    with their scales, and what is stored once per token and head.
    """

    name: str
    block_size: int
    block_bytes: int
    head_bytes: int = 0
    aliases: tuple[str, ...] = ()
    about: str = ""
    source: str = ""

    def row_bytes(self, head_dim: int) -> int:
        """Return the bytes of one head's ``head_dim`` values of one token."""
        return ceil_div(head_dim, self.block_size) * self.block_bytes + self.head_bytes


KV_FORMATS: dict[str, KvFormat] = {
    kv.name: kv
    for kv in (
        KvFormat("fp32", 1, 4, aliases=("f32", "float32"), about="32-bit floats"),
        KvFormat("bf16", 1, 2, aliases=("bfloat16",), about="16-bit brain floats"),
        KvFormat("fp16", 1, 2, aliases=("f16", "float16", "half"), about="16-bit floats"),
        KvFormat(
            "fp8",
            1,
            1,
            aliases=("fp8_e4m3", "fp8_e5m2", "fp8_e4m3fn"),
            about="8-bit floats, one scale a tensor",
            source="vLLM, SGLang, TensorRT-LLM: scales are per tensor, no bytes a token",
        ),
        KvFormat(
            "int8",
            1,
            1,
            4,
            aliases=("int8_per_token_head",),
            about="8-bit integers, an fp32 scale per token and head",
            source="vLLM 0.33 v1/attention/backends/triton_attn.py",
        ),
        KvFormat(
            "int4",
            2,
            1,
            4,
            aliases=("int4_per_token_head",),
            about="4-bit integers, 16-bit scale and zero point per token and head",
            source="LMDeploy docs/en/quantization/kv_quant.md (quant_policy 4)",
        ),
        KvFormat("nvfp4", 16, 9, aliases=("fp4",), about="4-bit floats, an fp8 scale per 16 values"),
        KvFormat("mxfp8", 32, 33, about="8-bit floats, an 8-bit exponent per 32 values"),
        *(
            KvFormat(
                name, GGML_TYPES[name].block_size, GGML_TYPES[name].block_bytes, about="llama.cpp blocks"
            )
            for name in ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
        ),
    )
}


def kv_format(name: str, known: Iterable[str] = ()) -> KvFormat:
    """Return the cache format of that name or alias.

    ``known`` limits it to what an engine takes. Raises UnknownFormat with what can be typed.
    """
    key = name.casefold()
    found = KV_FORMATS.get(key)
    if found is None:
        for candidate in KV_FORMATS.values():
            if key in candidate.aliases:
                found = replace(candidate, name=key)
                break
    names = tuple(known) or kv_format_names()
    if found is None:
        raise UnknownFormat(
            f"'{name}' is not a KV cache format",
            why=did_you_mean(name, names) or f"known are {', '.join(KV_FORMATS)}",
            hint="see: kvplan list formats",
        )
    return found


def kv_format_names() -> tuple[str, ...]:
    """Return every name that ``--kv`` takes, aliases included."""
    names: list[str] = []
    for kv in KV_FORMATS.values():
        names += (kv.name, *kv.aliases)
    return tuple(names)
