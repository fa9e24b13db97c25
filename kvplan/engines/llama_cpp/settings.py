"""llama.cpp's settings, resolved: what its flags and defaults make of a workload.

llama.cpp 0c1e57098: common/common.h has the defaults, common/arg.cpp the flags, tools/server/server.cpp
what the server makes of an unset ``-np`` (four slots over one unified cache).
"""

import re

from kvplan.engines.base import Notice
from kvplan.errors import InvalidValue, UnknownFormat, did_you_mean
from kvplan.frozen import dataclass
from kvplan.weight_formats import weight_format
from kvplan.workload import Workload

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
GENERIC: dict[str, str] = {
    "fp16": "f16", "half": "f16", "float16": "f16", "bfloat16": "bf16",
    "fp32": "f32", "float32": "f32", "int8": "q8_0", "int4": "q4_0", "auto": "f16",
}  # fmt: skip
PLAIN_TO_GGUF = {"bf16": "gguf-bf16", "fp16": "gguf-f16", "fp32": "gguf-f32"}
DEFAULT_N_BATCH = 2048
DEFAULT_N_UBATCH = 512
AUTO_PARALLEL = 4
ALL_LAYERS = 10_000
# Tensors of routed experts: common/common.h LLM_FFN_EXPS_REGEX.
EXPERT_NAMES = r"\.ffn_(up|down|gate_up|gate)_(ch|)exps"
# A pattern from a file must not stall: repeats of a group that repeats itself.
MAX_PATTERN = 2000
NESTED_REPEATS = re.compile(r"[+*}]\??\)[+*{]")
FLASH_OFF, FLASH_ON = ("off", "0", "false", "disabled"), ("on", "1", "true", "enabled")
# Architectures that flash attention is turned off for (src/llama-context.cpp llama_init_from_model).
WITHOUT_FLASH_ATTENTION = frozenset(("grok",))
SPLIT_MODES = ("none", "layer", "row", "tensor")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with, by llama.cpp's names.

    ``n_ctx`` is all slots together, ``n_parallel`` the slots. ``n_gpu_layers`` counts the output as
    one, ``n_cpu_moe`` the layers whose experts stay in system memory; ``overrides`` are
    ``--override-tensor``'s (pattern, buffer) in order, the first match wins. ``placement_is_given``
    says that a flag fixed where layers go, so that nothing else may be tried. ``flash_attn_auto`` lets
    the engine turn ``flash_attn`` off where a card has no kernel for it.
    """

    n_ctx: int
    n_parallel: int
    n_batch: int
    n_ubatch: int
    flash_attn: bool
    kv_unified: bool
    swa_full: bool
    n_gpu_layers: int
    type_k: str
    type_v: str
    n_cpu_moe: int
    kv_offload: bool
    tensor_split: tuple[int, ...]
    num_outputs: int
    overrides: tuple[tuple[str, str], ...] = ()
    split_mode: str = "layer"
    main_gpu: int = 0
    op_offload: bool = True
    placement_is_given: bool = False
    flash_attn_auto: bool = False


def settings_of(
    workload: Workload, context_tokens: int, type_k: str, type_v: str, *, is_causal: bool = True
) -> Settings:
    """Resolve the settings: ``-c`` and ``-np`` from the load unless the flags say otherwise.

    Without ``is_causal`` attention batches are not cut to the context. Raises InvalidValue for a flag whose
    value llama.cpp would not take.
    """
    option = workload.option
    parallel = option("parallel")
    unified = bool(option("kv_unified", False))
    n_parallel = whole(parallel, workload.num_sequences)
    if n_parallel < 0:
        n_parallel, unified = AUTO_PARALLEL, bool(option("kv_unified", True))
    n_parallel = max(1, n_parallel)
    # Slots share one pool of cells when unified; otherwise each has its own part of ``-c``.
    num_shares = workload.num_sequences if unified else max(n_parallel, workload.num_sequences)
    n_ctx = whole(option("ctx_size"), 0) or context_tokens * num_shares
    n_batch = whole(option("n_batch"), DEFAULT_N_BATCH)
    if is_causal:
        # The context as it was asked for: it is padded only afterwards (src/llama-context.cpp).
        n_batch = min(n_ctx, n_batch)
    flash = str(option("flash_attn", "auto")).casefold()
    layers, split_mode = option("n_gpu_layers"), _split_mode(option("split_mode"))
    n_cpu_moe = ALL_LAYERS if option("cpu_moe") else whole(option("n_cpu_moe"), 0)
    overrides = _overrides(option("override_tensor"), whole(option("n_cpu_ffn"), 0))
    return Settings(
        n_ctx=n_ctx,
        n_parallel=n_parallel,
        n_batch=n_batch,
        n_ubatch=min(n_batch, whole(option("n_ubatch"), DEFAULT_N_UBATCH)),
        flash_attn=flash not in FLASH_OFF,
        kv_unified=unified,
        swa_full=bool(option("swa_full", False)),
        n_gpu_layers=gpu_layers(layers),
        type_k=type_k,
        type_v=type_v,
        n_cpu_moe=n_cpu_moe,
        kv_offload=not option("no_kv_offload", False),
        tensor_split=_tensor_split(option("tensor_split")),
        num_outputs=n_parallel,
        overrides=overrides,
        split_mode=split_mode,
        main_gpu=whole(option("main_gpu"), 0),
        op_offload=not option("no_op_offload", False),
        # Parts of layers on several cards need it: no card turns it off then.
        flash_attn_auto=flash not in (*FLASH_OFF, *FLASH_ON) and split_mode != "tensor",
        placement_is_given=bool(
            n_cpu_moe or overrides or str(layers or "auto").casefold() not in ("auto", "-1")
        ),
    )


def cache_types(workload: Workload) -> tuple[str, str, tuple[Notice, ...]]:
    """Return the types of K and V and what was mapped. Raises UnknownFormat for others."""
    types, notices = [], []
    for asked in (workload.kv_cache_dtype_k, workload.kv_cache_dtype_v):
        name = GENERIC.get(asked, asked)
        if name not in CACHE_TYPES:
            raise UnknownFormat(
                f"llama.cpp has no KV cache type '{asked}'",
                why=did_you_mean(asked, CACHE_TYPES) or f"it takes {', '.join(CACHE_TYPES)}",
                hint="write it like --kv q8_0",
            )
        if asked in ("int8", "int4"):
            notice = Notice("kv-format-mapped", f"--kv {asked} is llama.cpp's {name}")
            if notice not in notices:
                notices.append(notice)
        types.append(name)
    return types[0], types[1], tuple(notices)


def gguf_format(name: str, *, explicit: bool) -> str:
    """Return the GGUF format of a weight format: itself, or the plain type's file.

    A published format that no GGUF has (fp8, AWQ) stands for the 16-bit conversion unless it was
    asked for. Raises UnknownFormat then.
    """
    weight = weight_format(name)
    if weight.family == "gguf":
        return weight.name
    if weight.name in PLAIN_TO_GGUF:
        return PLAIN_TO_GGUF[weight.name]
    if weight.name == "mxfp4":
        return "mxfp4_moe"
    if not explicit:
        return "gguf-bf16"
    raise UnknownFormat(
        f"llama.cpp does not load {name} weights",
        why="it loads GGUF files: q4_k_m, q8_0, iq4_xs, f16 …",
        hint="name a GGUF mix, or leave out --engine",
    )


def whole(value: object, default: int) -> int:
    """Return an option's whole number, or ``default`` where it has none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def gpu_layers(value: object) -> int:
    """Read ``-ngl``: a number, or all layers. Raises InvalidValue for anything else."""
    text = str(value).casefold()
    if value is None or text in ("all", "auto", "-1", "-2"):
        return ALL_LAYERS
    if not text.isdigit():
        raise InvalidValue(
            f"--n-gpu-layers {value} is not a number of layers",
            why="llama.cpp takes a count, all or auto",
            hint="write it like -ngl 40",
        )
    return int(text)


def _tensor_split(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        shares = tuple(int(float(part) * 1000) for part in str(value).replace("/", ",").split(","))
    except (ValueError, OverflowError):
        shares = ()
    if not shares or sum(shares) <= 0 or min(shares) < 0:
        raise InvalidValue(
            f"--tensor-split {value} cannot be read",
            why="it takes one share a device",
            hint="write it like --tensor-split 3,2",
        )
    return shares


def _split_mode(value: object) -> str:
    mode = str(value or "layer").casefold()
    if mode not in SPLIT_MODES:
        raise InvalidValue(
            f"--split-mode {value} is not known",
            why=f"llama.cpp takes {', '.join(SPLIT_MODES)}",
            hint="write it like --split-mode layer",
        )
    return mode


def _overrides(value: object, n_cpu_ffn: int) -> tuple[tuple[str, str], ...]:
    """Read ``--override-tensor``: comma-separated ``pattern=buffer``, patterns as regular expressions."""
    made: list[tuple[str, str]] = []
    for part in str(value).split(",") if value is not None else ():
        pattern, joined, buffer = part.rpartition("=")
        if len(pattern) > MAX_PATTERN or NESTED_REPEATS.search(pattern):
            raise _bad_override(part, "repeats within repeats can take for ever to match")
        try:
            re.compile(pattern)
        except re.error as error:
            raise _bad_override(part, f"its pattern is no regular expression: {error}") from None
        if not joined or not pattern or not buffer:
            raise _bad_override(part, "it takes a pattern of tensor names and a buffer")
        made.append((pattern, buffer))
    made += [(rf"blk\.{index}\.ffn_(up|down|gate)\.", "CPU") for index in range(min(n_cpu_ffn, 1000))]
    return tuple(made)


def _bad_override(part: str, why: str) -> InvalidValue:
    return InvalidValue(
        f"--override-tensor {part[:60]} cannot be read",
        why=why,
        hint="write it like --override-tensor '.ffn_.*_exps.=CPU'",
    )


def options_of(settings: Settings) -> tuple[tuple[str, object], ...]:
    """Return the settings under llama.cpp's own names."""
    return (
        ("n_ctx", settings.n_ctx),
        ("n_parallel", settings.n_parallel),
        ("n_batch", settings.n_batch),
        ("n_ubatch", settings.n_ubatch),
        ("flash_attn", settings.flash_attn),
        ("kv_unified", settings.kv_unified),
        ("swa_full", settings.swa_full),
        ("n_gpu_layers", settings.n_gpu_layers),
        ("type_k", settings.type_k),
        ("type_v", settings.type_v),
        ("n_cpu_moe", settings.n_cpu_moe),
        ("kv_offload", settings.kv_offload),
    )
