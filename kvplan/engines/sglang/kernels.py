"""Which attention kernels SGLang picks, and with them the page size and the cache's dtype.

SGLang 0.5.23 srt/arg_groups: model_override_base.py (get_default_attn_backend), overrides.py (page
constraints, sparse latent defaults) and model_overrides/*.py (defaults by class).
"""

from kvplan.device import Device
from kvplan.engines.sglang.traits import Traits
from kvplan.errors import UnknownFormat, did_you_mean
from kvplan.frozen import dataclass

KV_NAMES = ("auto", "bf16", "bfloat16", "fp8_e4m3", "fp8_e5m2", "mxfp8", "nvfp4", "fp4_mx_block16")
FP4_NAMES = ("nvfp4", "fp4_mx_block16")
# Generic names and what SGLang calls them.
GENERIC: dict[str, str] = {
    "fp8": "fp8_e4m3",
    "fp8_e4m3fn": "fp8_e4m3",
    "fp4": "nvfp4",
    "fp4_e2m1": "nvfp4",
}
# _DEEPSEEK_FAMILY_ARCHS: latent attention on TRT-LLM's kernels on SM100.
DEEPSEEK_CLASSES = frozenset((
    "DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM", "KimiK25ForConditionalGeneration",
    "MistralLarge3ForCausalLM", "PixtralForConditionalGeneration", "GlmMoeDsaForCausalLM",
    "Glm5NextForConditionalGeneration", "HYV4ForCausalLM", "LongcatFlashForCausalLM",
    "Dots3NoteForCausalLM",
))  # fmt: skip
GATED_DELTA_CLASSES = frozenset((
    "Qwen3NextForCausalLM", "Qwen3_5MoeForConditionalGeneration",
    "InternS2PreviewForConditionalGeneration", "InternS2MobiusForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration",
))  # fmt: skip
FA3_ELSE_TRITON_CLASSES = frozenset((
    "Olmo2ForCausalLM", "Exaone4ForCausalLM", "ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM",
))  # fmt: skip
MINIMAX_M3_CLASSES = frozenset(("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"))
# Classes that page_size=1 backends serve on SM100: no TRT-LLM kernel for their states or heads.
TRITON_ON_SM100 = frozenset((
    "FalconH1ForCausalLM", "JetNemotronForCausalLM", "JetVLMForConditionalGeneration",
    "MiniCPMV4_6ForConditionalGeneration", "MiniCPMV4_7ForConditionalGeneration",
))  # fmt: skip
FLASHINFER_ON_SM100 = frozenset(("Lfm2ForCausalLM", "Lfm2MoeForCausalLM", "GraniteMoeHybridForCausalLM"))


@dataclass(frozen=True, slots=True)
class Platform:
    """The GPU generation, as SGLang asks for it: SM number major and minor, or AMD."""

    major: int
    minor: int
    is_amd: bool

    @property
    def is_sm90(self) -> bool:
        """Hopper."""
        return self.major == 9 and not self.is_amd

    @property
    def is_sm100(self) -> bool:
        """Blackwell in the data centre (B200, B300)."""
        return self.major == 10 and not self.is_amd


def platform_of(device: Device | None) -> Platform:
    """Return a device's generation; an unnamed size is taken as Ampere to Ada (SM 8.x)."""
    if device is None:
        return Platform(8, 0, False)
    major, _, minor = device.compute_capability.partition(".")
    is_amd = device.vendor == "amd"
    if not major.isdigit():
        return Platform(8, 0, is_amd)
    return Platform(int(major), int(minor) if minor.isdigit() else 0, is_amd)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What was resolved: attention kernels for prefill and decode, sparse ones, page and dtype.

    ``sparse`` names the (prefill, decode) kernels of sparse latent attention, empty elsewhere.
    """

    prefill: str
    decode: str
    sparse: tuple[str, str]
    page_size: int
    kv_dtype: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of kernels, pages and dtype; empty or 0 where it says nothing.

    ``eagle_topk`` is what it says, not what SGLang chooses later; ``extra_buffer`` a state strategy that
    keeps one.
    """

    attention: str = ""
    prefill: str = ""
    decode: str = ""
    sparse_prefill: str = ""
    sparse_decode: str = ""
    page_size: int = 0
    kv_dtype: str = "auto"
    speculates: str = ""
    eagle_topk: int = 0
    radix_cache: bool = True
    extra_buffer: bool = False
    dcp: int = 1


def kernels_of(traits: Traits, platform: Platform, asked: Asked) -> Kernels:
    """Resolve kernels, page size and cache dtype.

    Raises UnknownFormat for a cache dtype that SGLang does not have, or not for these layers.
    """
    kv_dtype = kv_name(asked.kv_dtype)
    unset = not (asked.attention or asked.prefill or asked.decode)
    page = asked.page_size
    backend = asked.attention
    if unset:
        backend = _default_backend(traits, platform, asked, kv_dtype)
    if backend == "fa3" and kv_dtype == "fp8_e5m2":
        backend = "triton"
    prefill, decode = asked.prefill or backend, asked.decode or backend
    if not prefill or not decode:
        fallback = _by_generation(traits, platform, asked)
        prefill, decode = prefill or fallback, decode or fallback
    if traits.architecture in MINIMAX_M3_CLASSES and decode in ("fa3", "fa4", "trtllm_mha"):
        page = page or 128
    if traits.is_compressed:
        return Kernels("dsv4", "dsv4", ("", ""), 256, _compressed_dtype(kv_dtype))
    sparse = ("", "")
    if traits.is_sparse_latent:
        kv_dtype = _sparse_latent_dtype(kv_dtype, platform)
        sparse = _sparse_kernels(traits, platform, asked, kv_dtype)
        page = 1 if platform.is_amd else 64
    page = _page(page, prefill, decode, traits, platform, asked)
    return Kernels(prefill, decode, sparse, page, kv_dtype)


def kv_name(text: str) -> str:
    """Return SGLang's name of a cache dtype. Raises UnknownFormat for what it lacks."""
    name = GENERIC.get(text, text)
    if name not in KV_NAMES:
        raise UnknownFormat(
            f"SGLang has no KV cache format '{text}'",
            why=did_you_mean(text, (*KV_NAMES, *GENERIC)) or f"it takes {', '.join(KV_NAMES)}",
            hint="name one of them, or the engine that has it: kvplan list engines",
        )
    return "bf16" if name == "bfloat16" else name


def _default_backend(traits: Traits, platform: Platform, asked: Asked, kv_dtype: str) -> str:
    """Return the backend of the model's class where one is declared, else by generation."""
    name = traits.architecture
    if name == "GptOssForCausalLM":
        return _pick(platform, "trtllm_mha", "fa3", "triton", amd="aiter")
    if name == "Llama4ForConditionalGeneration":
        return _pick(platform, "trtllm_mha", "fa3", "triton", amd="aiter")
    if name.startswith(("Gemma4", "DiffusionGemma")):
        return "trtllm_mha" if platform.is_sm100 and not name.startswith("Diffusion") else "triton"
    if name in FA3_ELSE_TRITON_CLASSES and (traits.has_windows or name == "Olmo2ForCausalLM"):
        if platform.is_sm100:
            return "trtllm_mha"
        return "fa3" if platform.major >= 8 and not platform.is_amd else "triton"
    if name.startswith("MiMoV2") and platform.is_sm100:
        return "fa4"
    if name.startswith("Step3p") and not platform.is_amd and platform.major in (10, 12):
        return "fa4"
    if name.startswith("Inkling"):
        return "fa4" if platform.major in (9, 10) else "triton"
    if name in MINIMAX_M3_CLASSES:
        fp8 = "trtllm_mha" if kv_dtype == "fp8_e4m3" else "fa4"
        return _pick(platform, fp8, "fa3", _by_generation(traits, platform, asked), amd="triton")
    if traits.is_sparse_latent:
        return "dsa"
    if (
        name.startswith("NemotronH")
        and asked.speculates
        and platform.major in (10, 12)
        and not platform.is_amd
    ):
        return "trtllm_mha" if platform.is_sm100 and asked.eagle_topk <= 1 else "triton"
    if platform.is_sm100:
        if name in DEEPSEEK_CLASSES or name == "KimiK3ForConditionalGeneration":
            return "trtllm_mla"
        if name in TRITON_ON_SM100:
            return "triton"
        if name in FLASHINFER_ON_SM100 and traits.has_states:
            return "flashinfer"
        if name in GATED_DELTA_CLASSES:
            alone = asked.radix_cache and not asked.speculates and not asked.extra_buffer
            found = _by_generation(traits, platform, asked)
            return "trtllm_mha" if found == "trtllm_mha" and not alone else "triton"
    return _by_generation(traits, platform, asked)


def _pick(platform: Platform, sm100: str, sm90: str, other: str, *, amd: str) -> str:
    if platform.is_amd:
        return amd
    if platform.is_sm100:
        return sm100
    return sm90 if platform.is_sm90 else other


def _by_generation(traits: Traits, platform: Platform, asked: Asked) -> str:
    """Return get_default_attn_backend's choice."""
    topk_one = not asked.eagle_topk or (asked.eagle_topk == 1 and asked.page_size <= 1)
    topk_known = not asked.speculates or asked.eagle_topk > 0 or asked.speculates == "DFLASH"
    if traits.is_latent:
        return _pick(platform, "flashinfer", "fa3", "triton", amd="aiter")
    if platform.is_sm90 and topk_one:
        return "fa3"
    if platform.is_sm100 and topk_one and topk_known:
        return "fa4" if traits.has_asymmetric_kv else "trtllm_mha"
    if platform.is_amd:
        return "aiter"
    return "triton" if traits.has_sinks else "flashinfer"


def _page(page: int, prefill: str, decode: str, traits: Traits, platform: Platform, asked: Asked) -> int:
    """Return the page size after the kernels' constraints; 1 where none asks for more."""
    both = (prefill, decode)
    if decode == "flashmla":
        page = 64
    if decode in ("trtllm_mla", "cutedsl_mla") and page not in (32, 64):
        page = 64
    if "trtllm_mha" in both and page not in (16, 32, 64, 128):
        page = 64
    if "hpc_ops" in both:
        page = 64
    if "fa4" in both and not traits.is_latent and platform.is_sm100 and asked.eagle_topk <= 1:
        page = 128
    return page or 1


def _compressed_dtype(kv_dtype: str) -> str:
    name = "fp8_e4m3" if kv_dtype == "auto" else kv_dtype
    if name not in ("fp8_e4m3", "bf16"):
        raise UnknownFormat(
            f"{name} is not supported for compressed attention in SGLang",
            why="it keeps fp8_e4m3 rows (deepseek_v4_hook.py)",
            hint="use --kv auto",
        )
    return "fp8_e4m3"


def _sparse_latent_dtype(kv_dtype: str, platform: Platform) -> str:
    """Return the dtype of sparse latent rows: fp8 from SM100 on, bf16 before (overrides.py)."""
    name = kv_dtype
    if name == "auto":
        name = "fp8_e4m3" if platform.major >= 10 and not platform.is_amd else "bf16"
    if name not in ("fp8_e4m3", "bf16"):
        raise UnknownFormat(
            f"SGLang keeps sparse latent attention in bf16 or fp8_e4m3, not {name}",
            why="DeepSeek DSA only supports bf16/bfloat16 or fp8_e4m3 kv_cache_dtype",
            hint="use --kv bf16 or --kv fp8_e4m3",
        )
    return name


def _sparse_kernels(traits: Traits, platform: Platform, asked: Asked, kv_dtype: str) -> tuple[str, str]:
    if asked.dcp > 1:
        defaults = ("trtllm", "trtllm")
    elif platform.is_amd:
        defaults = ("triton", "triton")
    elif traits.architecture == "GlmMoeDsaForCausalLM" and platform.major == 12 and kv_dtype == "fp8_e4m3":
        defaults = ("flashinfer_sparse_mla", "flashinfer_sparse_mla")
    elif kv_dtype == "fp8_e4m3":
        kernel = "trtllm" if platform.major >= 10 else "flashmla_kv"
        defaults = (kernel, kernel)
    else:
        defaults = ("flashmla_sparse", "trtllm" if platform.major >= 10 else "fa3")
    return asked.sparse_prefill or defaults[0], asked.sparse_decode or defaults[1]
