"""What a plan under SGLang has to say: what it maps, does not know, caps and refuses."""

from kvplan.engines.base import Notice, Refusal
from kvplan.engines.sglang._classes import CLASSES
from kvplan.engines.sglang.cells import state_bytes
from kvplan.engines.sglang.kernels import GENERIC, kv_name
from kvplan.engines.sglang.settings import Settings
from kvplan.engines.sglang.unplanned import not_planned
from kvplan.kv_formats import KV_FORMATS
from kvplan.layers import RECURRENT_STATES, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.textbook import cache_bytes
from kvplan.workload import Workload

NEWEST = "0.5.23"


def notices_of(model: ModelSpec, workload: Workload, version: str) -> tuple[Notice, ...]:
    """Return what the reader must know before the numbers."""
    notices: tuple[Notice, ...] = ()
    asked = workload.kv_cache_dtype_k
    if GENERIC.get(asked, asked) != asked and not asked.startswith("fp8_"):
        notices += (Notice("kv-format-mapped", f"{asked} is SGLang's {kv_name(asked)}"),)
    if version != NEWEST:
        notices += (
            Notice("version-not-known", f"planned by the rules of SGLang {NEWEST}; {version}'s may differ"),
        )
    if model.architecture not in CLASSES:
        notices += (
            Notice(
                "class-not-known",
                f"SGLang {NEWEST} has no class {model.architecture}: it runs transformers' or refuses",
            ),
        )
    draft = workload.option("speculative_draft_model_path")
    if draft and model.draft is None:
        notices += (
            Notice(
                "draft-not-planned", f"the draft model {draft} is not known here: its weights are assumed"
            ),
        )
    if model.structure.kind == "encoder-decoder":
        notices += (
            Notice("layer-not-modelled", "SGLang's pools for encoder-decoder models are not modelled yet"),
        )
    return notices + not_planned(workload)


def is_unmodelled(model: ModelSpec, settings: Settings) -> bool:
    """Tell whether ``unmodelled`` is more than nothing."""
    return unmodelled(model, settings, 1).high > 0


def unmodelled(model: ModelSpec, settings: Settings, context_tokens: int) -> Quantity:
    """Return what a sequence's kinds without a pool take: textbook at least, as full attention at most."""
    wide = KV_FORMATS["bf16"]
    low = high = 0
    for cache, count in cache_kinds(model):
        missing = isinstance(cache, RECURRENT_STATES) and state_bytes(cache, settings.layout) is None
        if missing or model.structure.kind == "encoder-decoder":
            least = cache_bytes(cache, context_tokens, wide, wide) if missing else 0
            low += least * count
            # A short context takes less than a state of fixed size.
            high += max(least, 4 * model.structure.hidden_size * context_tokens) * count
    if not high:
        return exact(0)
    return Quantity(low, (low + high) // 2, high, "assumed", "between the textbook and full attention")


def unmodelled_notice(model: ModelSpec, settings: Settings) -> Notice:
    """Name the kinds that are priced between two bounds."""
    kinds = sorted(
        {
            kind_name(cache)
            for cache, _ in cache_kinds(model)
            if isinstance(cache, RECURRENT_STATES) and state_bytes(cache, settings.layout) is None
        }
    )
    names = ", ".join(kinds).replace("_", " ") or "cross attention"
    return Notice(
        "layer-not-modelled",
        f"{names} is not modelled under SGLang: between the textbook figure and full attention",
    )


def cap_of(slots: int, slots_per_request: int) -> str:
    """Return what caps the running requests; ``slots`` 0 where no state slots bind."""
    why = "max_running_requests"
    return f"{why}: {slots} state slots, {slots_per_request} a request" if slots else why


def kv_refusals(settings: Settings) -> tuple[Refusal, ...]:
    """Return what SGLang refuses of the cache's format on this generation of GPU (kv_cache_hook.py)."""
    major = settings.layout.platform.major
    if settings.kv_dtype == "nvfp4" and major not in (10, 12):
        message = (
            "--kv-cache-dtype=nvfp4 requires Blackwell SM100 or SM120. "
            "Use --kv-cache-dtype=fp4_mx_block16 for the block-size-16 FP4 recipe."
        )
        return (Refusal("kv-format-refused", message, "--kv fp8_e4m3"),)
    if settings.kv_dtype == "mxfp8" and major not in (10, 12):
        message = (
            "--kv-cache-dtype mxfp8 requires an SM100+ (Blackwell) GPU for the block-scaled operands "
            "used by the FA4 MXFP8 attention path."
        )
        return (Refusal("kv-format-refused", message, "--kv fp8_e4m3"),)
    latent = settings.layout.kernels.decode in ("trtllm_mla", "cutedsl_mla")
    if latent and settings.kv_dtype not in ("fp8_e4m3", "bf16", "bfloat16", "float16"):
        message = "TensorRT-LLM MLA backend only supports kv-cache-dtype of fp8_e4m3, bf16, or auto."
        return (Refusal("kv-format-refused", message, "--kv fp8_e4m3"),)
    return ()
