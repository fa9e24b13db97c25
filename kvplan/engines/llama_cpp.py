"""llama.cpp: weights, cache and compute buffers laid out layer by layer, over one card or several.

llama.cpp 0c1e57098. ``kvplan`` plans ``-c CTX x BATCH -np BATCH``: every sequence has its own padded
share of the context. Layers, the cache of each, and the output go to the devices in order, split by
free memory; the token embedding stays in system memory, and a tied one is stored twice. What does
not fit can be left in system memory with ``-ngl`` or ``--n-cpu-moe``, which is an offload.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kvplan.device import Device
from kvplan.dtypes import GGML_TYPES, KV_FORMATS, weight_format
from kvplan.engines.base import (
    CacheGroup,
    CacheUse,
    Check,
    Component,
    DevicePlan,
    Engine,
    Notice,
    Parallel,
    Plan,
    Refusal,
    context_or_limit,
)
from kvplan.engines.llama_cpp_cache import (
    Cells,
    LayerCache,
    cells_of,
    layer_cache,
    split_layers,
    window_of,
)
from kvplan.engines.llama_cpp_compute import compute_buffers
from kvplan.errors import InvalidValue, UnknownFormat, did_you_mean
from kvplan.gguf_mix import MixBytes, mix_bytes
from kvplan.gguf_names import llama_cpp_arch
from kvplan.layers import LatentAttention, kind_name
from kvplan.model import ModelSpec, cache_kinds, expand_layers, num_layers
from kvplan.quantity import Quantity, exact, total
from kvplan.textbook import cache_bytes
from kvplan.units import MIB, ceil_div
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

VERSIONS = ("b10488",)
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
GENERIC: dict[str, str] = {
    "fp16": "f16", "half": "f16", "float16": "f16", "bfloat16": "bf16",
    "fp32": "f32", "float32": "f32", "int8": "q8_0", "int4": "q4_0", "auto": "f16",
}  # fmt: skip
DEFAULT_N_BATCH = 2048
DEFAULT_N_UBATCH = 512
# --fit keeps this much free on each device before it shrinks anything (common/common.h).
FIT_TARGET_BYTES = 1024 * MIB
# What a CUDA context and cuBLAS take beside the printed buffers: 451 to 753 MiB on idle cards.
CONTEXT_BYTES = (300 * MIB, 456 * MIB, 760 * MIB)
CONTEXT_WHY = "llama.cpp's 'unaccounted' on idle CUDA cards: 451 to 753 MiB"
PLAIN_TO_GGUF = {"bf16": "gguf-bf16", "fp16": "gguf-f16", "fp32": "gguf-f32"}
ALL_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with, by llama.cpp's names."""

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


@dataclass(frozen=True, slots=True)
class Placed:
    """What lies where: per device weights and caches, and the same in system memory."""

    weight_bytes: tuple[int, ...]
    cache_bytes: tuple[int, ...]
    state_bytes: tuple[int, ...]
    host_weight_bytes: int
    host_cache_bytes: int
    spilled: bool
    unmodelled: bool


class LlamaCppEngine(Engine):
    """llama.cpp's server."""

    name = "llama.cpp"
    versions = VERSIONS
    kv_formats = (*CACHE_TYPES, *GENERIC)
    weight_families = ("plain", "gguf")
    about = "GGUF files on one card or several, with layers or experts in system memory"

    def __init__(self, version: str = VERSIONS[-1]) -> None:
        self.version = version

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price one server. Raises UnknownFormat for weights or caches llama.cpp does not take."""
        asked = format_name_of(model, workload.weights_format)
        format_name = gguf_format(asked, explicit=workload.weights_format is not None)
        type_k, type_v, notices = cache_types(workload)
        context_tokens, _ = context_or_limit(model, workload)
        settings = settings_of(workload, context_tokens, type_k, type_v)
        if format_name != asked and workload.weights_format is None:
            notices += (
                Notice(
                    "weights-converted",
                    f"the checkpoint's {asked} weights are planned as {format_name}: llama.cpp needs a GGUF",
                ),
            )
        on_gpu = tuple(device for device in devices if device.kind == "gpu")
        placed = _placed(model, format_name, settings, _splits(settings, on_gpu), len(on_gpu))
        cells = _cells(model, settings)
        cache = _cache_use(model, workload, settings, context_tokens)
        compute, host_compute = compute_buffers(
            model,
            cells,
            n_ubatch=min(settings.n_ubatch, settings.n_ctx),
            num_outputs=settings.num_outputs,
            flash_attn=settings.flash_attn,
            quantized_cache=(GGML_TYPES[type_k].block_size > 1, GGML_TYPES[type_v].block_size > 1),
        )
        if placed.unmodelled:
            notices += (
                Notice(
                    "layer-not-modelled",
                    "some of this model's caches are not modelled under llama.cpp yet: "
                    "between the textbook figure and full attention",
                ),
            )
        plans = tuple(
            _device_plan(device, index, placed, compute, workload, cache, len(on_gpu))
            for index, device in enumerate(on_gpu)
        )
        host = [Component("weights", exact(placed.host_weight_bytes), "token embedding and layers in RAM")]
        if placed.host_cache_bytes:
            host.append(Component("kv_cache", exact(placed.host_cache_bytes)))
        host.append(Component("activations", host_compute if on_gpu else compute))
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=_options(settings),
            parallel=Parallel(pipeline=max(1, len(on_gpu))),
            weights_format=format_name,
            weights=weight_bytes(model, format_name),
            kv_dtype_k=type_k,
            kv_dtype_v=type_v,
            context_tokens=context_tokens,
            num_sequences=workload.num_sequences,
            devices=plans,
            cache=cache,
            host=tuple(host),
            offloaded=placed.spilled and bool(on_gpu),
            refusals=_refusals(model, settings),
            warnings=notices,
        )


def engine(version: str | None) -> LlamaCppEngine:
    """Return the policy; builds are named like b10488."""
    if version is None:
        return LlamaCppEngine()
    if not version.removeprefix("b").isdigit():
        raise InvalidValue(
            f"'llama.cpp@{version}' is not a build",
            why=f"the rules are those of {VERSIONS[-1]}",
            hint=f"write it like --engine llama.cpp@{VERSIONS[-1]}",
        )
    return LlamaCppEngine(f"b{version.removeprefix('b')}")


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
            notices.append(Notice("kv-format-mapped", f"{asked} is llama.cpp's {name}"))
        types.append(name)
    return types[0], types[1], tuple(dict.fromkeys(notices))


def settings_of(workload: Workload, context_tokens: int, type_k: str, type_v: str) -> Settings:
    """Resolve the settings: ``-c`` and ``-np`` from the load unless the flags say otherwise."""
    n_parallel = _int(workload.option("parallel"), workload.num_sequences)
    n_ctx = _int(workload.option("ctx_size"), 0) or context_tokens * n_parallel
    n_batch = min(n_ctx, _int(workload.option("n_batch"), DEFAULT_N_BATCH))
    unified = bool(workload.option("kv_unified", False))
    flash = str(workload.option("flash_attn", "auto")).casefold()
    split = workload.option("tensor_split")
    n_cpu_moe = ALL_LAYERS if workload.option("cpu_moe") else _int(workload.option("n_cpu_moe"), 0)
    return Settings(
        n_ctx=n_ctx,
        n_parallel=max(1, n_parallel),
        n_batch=n_batch,
        n_ubatch=min(n_batch, _int(workload.option("n_ubatch"), DEFAULT_N_UBATCH)),
        flash_attn=flash not in ("off", "0", "false", "disabled"),
        kv_unified=unified,
        swa_full=bool(workload.option("swa_full", False)),
        n_gpu_layers=_gpu_layers(workload.option("n_gpu_layers")),
        type_k=type_k,
        type_v=type_v,
        n_cpu_moe=n_cpu_moe,
        kv_offload=not workload.option("no_kv_offload", False),
        tensor_split=_tensor_split(split),
        num_outputs=max(1, n_parallel),
    )


def _gpu_layers(value: object) -> int:
    text = str(value).casefold()
    if value is None or text in ("all", "auto", "-1"):
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
    except ValueError:
        shares = ()
    if not shares or sum(shares) <= 0 or min(shares) < 0:
        raise InvalidValue(
            f"--tensor-split {value} cannot be read",
            why="it takes one share a device",
            hint="write it like --tensor-split 3,2",
        )
    return shares


def _splits(settings: Settings, devices: tuple[Device, ...]) -> tuple[int, ...]:
    if settings.tensor_split:
        shares = settings.tensor_split[: len(devices)]
        return shares + (0,) * (len(devices) - len(shares))
    return tuple(device.usable_bytes - device.used_bytes for device in devices)


def _cells(model: ModelSpec, settings: Settings) -> Cells:
    return cells_of(
        settings.n_ctx,
        settings.n_parallel,
        settings.n_ubatch,
        window_of(cache_kinds(model), llama_cpp_arch(model)),
        kv_unified=settings.kv_unified,
        swa_full=settings.swa_full,
    )


def _file(model: ModelSpec, format_name: str) -> MixBytes:
    return mix_bytes(model, format_name)


@lru_cache(maxsize=8192)
def _placed(
    model: ModelSpec, format_name: str, settings: Settings, splits: tuple[int, ...], num_gpus: int
) -> Placed:
    layers = num_layers(model.structure)
    file = _file(model, format_name)
    caches, unmodelled = _layer_caches(model, settings)
    first_on_gpu = max(0, layers + 1 - settings.n_gpu_layers) if num_gpus else layers + 1
    offloaded_layers = layers + 1 - first_on_gpu
    places = split_layers(max(0, offloaded_layers - 1), splits) if num_gpus and offloaded_layers else ()
    weights, kv, states = [0] * num_gpus, [0] * num_gpus, [0] * num_gpus
    # The embedding is looked up on the CPU; a tied one is copied to the device as the output.
    host_weights = file.embedding_bytes + file.input_bytes
    host_cache = 0
    spilled = first_on_gpu > 0 and num_gpus > 0
    for index in range(layers):
        amount, cache = file.layer_bytes[index], caches[index]
        if index < first_on_gpu:
            host_weights += amount
            host_cache += cache.total_bytes
            continue
        place = places[index - first_on_gpu]
        if index < settings.n_cpu_moe and file.expert_bytes[index]:
            host_weights += file.expert_bytes[index]
            amount -= file.expert_bytes[index]
            spilled = True
        weights[place] += amount
        if settings.kv_offload:
            kv[place] += cache.key_bytes + cache.value_bytes
            states[place] += cache.state_bytes
        else:
            host_cache += cache.total_bytes
            spilled = True
    output = (file.output_bytes or file.embedding_bytes) + file.output_norm_bytes
    if offloaded_layers > 0:
        weights[places[-1]] += output
    else:
        host_weights += file.output_bytes + file.output_norm_bytes
    return Placed(tuple(weights), tuple(kv), tuple(states), host_weights, host_cache, spilled, unmodelled)


def _layer_caches(model: ModelSpec, settings: Settings) -> tuple[list[LayerCache], bool]:
    cells = _cells(model, settings)
    honours = window_of(cache_kinds(model), llama_cpp_arch(model)) > 0
    wide = KV_FORMATS["fp16"]
    unmodelled = False
    placed: list[LayerCache] = []
    for layer in expand_layers(model):
        keys = values = states = 0
        for cache in layer.caches:
            part = layer_cache(
                cache,
                cells,
                settings.type_k,
                settings.type_v,
                honours_window=honours,
                cuda=settings.kv_offload,
            )
            if part is None:
                unmodelled = True
                keys += cache_bytes(cache, cells.full, wide, wide) * cells.num_streams
                continue
            keys += part.key_bytes
            values += part.value_bytes
            states += part.state_bytes
        placed.append(LayerCache(keys, values, states))
    return placed, unmodelled


def _device_plan(
    device: Device,
    index: int,
    placed: Placed,
    compute: Quantity,
    workload: Workload,
    cache: CacheUse,
    num_gpus: int,
) -> DevicePlan:
    budget = max(0, device.usable_bytes - workload.reserve_bytes - device.used_bytes)
    parts = [Component("weights", exact(placed.weight_bytes[index]))]
    kv = exact(placed.cache_bytes[index])
    if placed.unmodelled:
        whole = cache.total
        kv = Quantity(
            ceil_div(whole.low, num_gpus),
            ceil_div(whole.expected, num_gpus),
            ceil_div(whole.high, num_gpus),
            "assumed",
        )
    parts.append(Component("kv_cache", kv))
    if placed.state_bytes[index]:
        parts.append(Component("recurrent_state", exact(placed.state_bytes[index])))
    parts.append(Component("activations", compute, "compute buffer"))
    low, usual, high = CONTEXT_BYTES
    runtime = Quantity(low, usual, high, "calibrated", CONTEXT_WHY)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    parts.append(Component("runtime", runtime))
    components = tuple(parts)
    required = total(part.bytes for part in components)
    return DevicePlan(device, budget, components, (Check("budget", required, budget, "the card is full"),))


def _cache_use(model: ModelSpec, workload: Workload, settings: Settings, context_tokens: int) -> CacheUse:
    now = _sizes(model, settings)
    more = _sizes(model, _lengthened(settings, workload, context_tokens))
    per_token = max(0, (more[0] - now[0]) // (256 * max(1, settings.n_parallel)))
    parallel = max(1, settings.n_parallel)
    kv, states, groups, low, high = now
    every = kv + states
    basis = exact(every)
    if high:
        basis = Quantity(every - kv + low, every, every - kv + high, "assumed")
    return CacheUse(
        bytes_per_token=per_token,
        bytes_per_sequence=ceil_div(every, parallel),
        state_bytes_per_sequence=states // parallel,
        total=basis,
        peak_bytes=every,
        groups=groups,
        block_size=256,
    )


def _lengthened(settings: Settings, workload: Workload, context_tokens: int) -> Settings:
    longer = settings_of(workload, context_tokens + 256, settings.type_k, settings.type_v)
    if longer.n_ctx != settings.n_ctx:
        return longer
    # -c was given: lengthen what it fixed.
    return settings_of(workload, context_tokens, settings.type_k, settings.type_v)


@lru_cache(maxsize=8192)
def _sizes(model: ModelSpec, settings: Settings) -> tuple[int, int, tuple[CacheGroup, ...], int, int]:
    cells = _cells(model, settings)
    honours = window_of(cache_kinds(model), llama_cpp_arch(model)) > 0
    wide = KV_FORMATS["fp16"]
    kv = states = low = high = 0
    groups: list[CacheGroup] = []
    for cache, count in cache_kinds(model):
        part = layer_cache(
            cache, cells, settings.type_k, settings.type_v, honours_window=honours, cuda=settings.kv_offload
        )
        if part is None:
            textbook = cache_bytes(cache, cells.full, wide, wide) * cells.num_streams * count
            full = 4 * model.structure.hidden_size * cells.full * cells.num_streams * count
            kv += (textbook + full) // 2
            low, high = low + textbook, high + full
            groups.append(CacheGroup(kind_name(cache), count, 0, textbook // max(1, settings.n_parallel)))
            continue
        amount = (part.key_bytes + part.value_bytes) * count
        kv += amount
        low, high = low + amount, high + amount
        states += part.state_bytes * count
        rows = max(1, cells.full * cells.num_streams)
        groups.append(
            CacheGroup(
                kind_name(cache),
                count,
                amount // rows,
                ceil_div(amount + part.state_bytes * count, max(1, settings.n_parallel)),
            )
        )
    is_assumed = high != kv
    return kv, states, tuple(groups), low if is_assumed else 0, high if is_assumed else 0


def _refusals(model: ModelSpec, settings: Settings) -> tuple[Refusal, ...]:
    if any(isinstance(cache, LatentAttention) for cache, _ in cache_kinds(model)) and (
        settings.type_k != settings.type_v
    ):
        return (Refusal("mla-types-differ", "MLA keeps one latent: K and V need the same type", "--kv q8_0"),)
    if GGML_TYPES[settings.type_v].block_size > 1 and not settings.flash_attn:
        return (
            Refusal(
                "quantized-v-needs-flash-attention",
                "V cache quantization requires flash_attn",
                "-- --flash-attn on",
            ),
        )
    return ()


def _options(settings: Settings) -> tuple[tuple[str, object], ...]:
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


def _int(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
