"""vLLM: the number formats of its KV cache, and what a head's row takes in each.

vLLM 0.33: config/cache.py (names), v1/attention/backends/triton_attn.py (per-token-head scales),
flashinfer.py and utils/torch_utils.py (NVFP4), model_executor/layers/quantization/turboquant,
model_executor/layers/attention/mla_attention.py (packed latent rows).
"""

from kvplan.frozen import dataclass
from kvplan.units import ceil_div, round_up

# A latent row of 512 + 64 in packed form: fp8 latent with scales and a bf16 rope part, and NVFP4.
DS_MLA_ROW_BYTES: dict[str, int] = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
SCALE_BYTES = 4
NVFP4_GROUP = 16


@dataclass(frozen=True, slots=True)
class KvDtype:
    """A cache dtype: bits an element, and whether each head and token carries a pair of fp32 scales.

    ``scale_group`` > 0 adds one byte for so many elements (NVFP4).
    """

    name: str
    element_bits: int
    per_token_head: bool = False
    scale_group: int = 0

    def head_bytes(self, head_dim: int, v_head_dim: int) -> int:
        """Return the bytes of one head's key and value of one token."""
        num_bytes = (head_dim * self.element_bits // 8) + (v_head_dim * self.element_bits // 8)
        if self.scale_group:
            num_bytes += head_dim // self.scale_group + v_head_dim // self.scale_group
        return num_bytes + (2 * SCALE_BYTES if self.per_token_head else 0)

    def latent_bytes(self, width: int) -> int:
        """Return the bytes of one latent row of ``width`` elements, which has no separate value."""
        return width * self.element_bits // 8 + (2 * SCALE_BYTES if self.per_token_head else 0)


KV_DTYPES: dict[str, KvDtype] = {
    dtype.name: dtype
    for dtype in (
        KvDtype("float32", 32),
        KvDtype("bfloat16", 16),
        KvDtype("float16", 16),
        KvDtype("fp8", 8),
        KvDtype("fp8_e4m3", 8),
        KvDtype("fp8_e5m2", 8),
        KvDtype("fp8_inc", 8),
        KvDtype("fp8_per_token_head", 8, per_token_head=True),
        KvDtype("int8_per_token_head", 8, per_token_head=True),
        KvDtype("int4_per_token_head", 4, per_token_head=True),
        KvDtype("nvfp4", 4, scale_group=NVFP4_GROUP),
        KvDtype("nvfp4_4over6", 4, scale_group=NVFP4_GROUP),
        KvDtype("fp8_ds_mla", 8),
        KvDtype("nvfp4_ds_mla", 4),
    )
}


@dataclass(frozen=True, slots=True)
class TurboQuant:
    """A TurboQuant preset: bits of a key and of a value; keys of 8 bits are plain fp8."""

    key_bits: int
    value_bits: int

    def head_bytes(self, head_dim: int) -> int:
        """Return one head's slot: key (and its fp16 norm), value with scale and zero, rounded to even."""
        key = head_dim if self.key_bits == 8 else ceil_div(head_dim * self.key_bits, 8) + 2
        value = ceil_div(head_dim * self.value_bits, 8) + 4
        return round_up(key + value, 2)


TURBOQUANT: dict[str, TurboQuant] = {
    "turboquant_k8v4": TurboQuant(8, 4),
    "turboquant_4bit_nc": TurboQuant(4, 4),
    "turboquant_k3v4_nc": TurboQuant(3, 4),
    "turboquant_3bit_nc": TurboQuant(3, 3),
}
# Dense models keep this many layers at each end in their own type under TurboQuant.
TURBOQUANT_BOUNDARY_LAYERS = 2


def head_row_bytes(heads: int, head_dim: int, v_head_dim: int, dtype: str) -> int:
    """Return the bytes of one token's keys and values of ``heads`` heads."""
    preset = TURBOQUANT.get(dtype)
    each = preset.head_bytes(head_dim) if preset else KV_DTYPES[dtype].head_bytes(head_dim, v_head_dim)
    return heads * each


def latent_row_bytes(width: int, dtype: str) -> int:
    """Return the bytes of one latent row, whole on every tensor-parallel rank."""
    return DS_MLA_ROW_BYTES.get(dtype) or KV_DTYPES[dtype].latent_bytes(width)
