"""transformers: caches that grow with the text, in the model's own dtype.

transformers 5.23: DynamicCache by default, StaticCache and QuantizedCache on request through
GenerationConfig's own names (``cache_implementation``, ``cache_config``). There is no budget but the
card; what lies beside weights and cache is torch's context and one forward pass.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, cast

from kvplan.device import Device
from kvplan.dtypes import weight_format
from kvplan.engines.base import (
    CacheGroup,
    CacheUse,
    Check,
    Component,
    DevicePlan,
    Engine,
    Parallel,
    Plan,
    Refusal,
    context_or_limit,
)
from kvplan.engines.transformers_cache import CacheKind, held
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.layers import CompressedAttention, CrossAttention, FullAttention, LightningState, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact, total
from kvplan.units import GIB, ceil_div
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

VERSIONS = ("4.57", "5.23")
MODEL_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
KV_NAMES = ("auto", "bf16", "fp16", "fp32", "bfloat16", "float16", "float32")
# torch's context and first kernels: about 0.5 GiB after init, up to 1.4 with a few ops' workspaces.
RUNTIME_GIB = (0.3, 0.7, 1.5)
RUNTIME_WHY = "torch on CUDA: about 0.3 GiB bare (pytorch#107667), 0.7 to 1.4 after first kernels"


class TransformersEngine(Engine):
    """transformers' generate()."""

    name = "transformers"
    versions = VERSIONS
    kv_formats = KV_NAMES
    weight_families = ("plain", "fp8", "int8", "int4", "bnb", "fp4")
    runs_on_cpu = True
    about = "generate() with dynamic, static or quantized caches in the model's dtype"

    def __init__(self, version: str = VERSIONS[-1]) -> None:
        self.version = version

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price generate() at the asked length. Raises UnknownFormat for formats it does not take."""
        format_name = format_name_of(model, workload.weights_format)
        if weight_format(format_name).family not in self.weight_families:
            raise UnknownFormat(
                f"transformers does not keep {format_name} weights in memory",
                why="it loads GGUF files by expanding them, and has no MLX or ExLlama kernels",
                hint="name bf16, fp8, awq, gptq, nf4 or mxfp4",
            )
        dtype = MODEL_DTYPES.get(
            format_name, model.dtype if model.dtype.endswith(("16", "32")) else "bfloat16"
        )
        _check_kv(workload, dtype)
        context_tokens, _ = context_or_limit(model, workload)
        kind = _cache_kind(model, workload, context_tokens, self.version)
        cache = _cache_use(model, workload, context_tokens, dtype, kind)
        weights = weight_bytes(model, format_name)
        num_devices = max(1, len(devices))
        activations = _activations(model, context_tokens, workload.num_sequences)
        plans = tuple(
            _device_plan(device, num_devices, weights, cache, activations, workload) for device in devices
        )
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=(
                ("cache_implementation", kind.implementation),
                ("max_cache_len", kind.max_cache_len or None),
            ),
            parallel=Parallel(pipeline=num_devices),
            weights_format=format_name,
            weights=weights,
            kv_dtype_k=dtype,
            kv_dtype_v=dtype,
            context_tokens=context_tokens,
            num_sequences=workload.num_sequences,
            devices=plans,
            cache=cache,
            refusals=_refusals(model, kind),
        )


def engine(version: str | None) -> TransformersEngine:
    """Return the policy: 4.57's rules below 5, 5.23's from there on."""
    if version is None:
        return TransformersEngine()
    major = version.removeprefix("v").split(".")[0]
    if not major.isdigit():
        raise InvalidValue(
            f"'transformers@{version}' is not a version",
            why=f"known are {', '.join(VERSIONS)}",
            hint="write it like --engine transformers@5.23",
        )
    return TransformersEngine(version)


def _check_kv(workload: Workload, dtype: str) -> None:
    for asked in (workload.kv_cache_dtype_k, workload.kv_cache_dtype_v):
        if asked not in KV_NAMES:
            raise UnknownFormat(
                f"transformers' cache has no format '{asked}'",
                why="it follows the model's dtype; quantized caches are asked for by name",
                hint="write it like: -- --cache-implementation quantized --cache-config '{\"nbits\":4}'",
            )
        if asked != "auto" and MODEL_DTYPES.get(asked, asked) != dtype:
            raise UnknownFormat(
                f"transformers keeps this cache in {dtype}, not {asked}",
                why="the cache follows the model's dtype",
                hint="set the weights' dtype instead: --weights fp32, bf16 or fp16",
            )


def _cache_kind(model: ModelSpec, workload: Workload, context_tokens: int, version: str) -> CacheKind:
    asked = str(workload.option("cache_implementation") or "dynamic")
    config = workload.option("cache_config")
    settings = config if isinstance(config, dict) else {}
    implementation = asked.removeprefix("offloaded_").removesuffix("_full").split("_")[0]
    if implementation in ("hybrid", "sliding"):
        implementation = "static"
    if implementation == "offloaded":
        implementation = "dynamic"
    if implementation not in ("dynamic", "static", "quantized"):
        raise InvalidValue(
            f"--cache-implementation {asked} is not known",
            why="transformers has dynamic, static and quantized",
            hint="write it like: -- --cache-implementation static --cache-config '{\"max_cache_len\":4096}'",
        )
    return CacheKind(
        implementation=cast(Literal["dynamic", "static", "quantized"], implementation),
        max_cache_len=_int(settings, "max_cache_len", context_tokens),
        backend=str(settings.get("backend", "quanto")),
        num_bits=_int(settings, "nbits", 4),
        group_size=_int(settings, "q_group_size", 64),
        residual_length=_int(settings, "residual_length", 128),
        decompresses_mla=version.startswith("4"),
        # Falcon-40B's class repeats keys and values for every query head before it caches them.
        broadcasts_heads=model.model_type == "falcon" and _groups_heads(model),
    )


def _int(settings: dict[object, object], key: str, default: int) -> int:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidValue(
            f"cache_config: {key} is {value!r}",
            why="it must be a positive whole number",
            hint=f'write it like {{"{key}": {default or 4096}}}',
        )
    return value


def _groups_heads(model: ModelSpec) -> bool:
    return any(
        isinstance(cache, FullAttention) and 1 < cache.num_key_value_heads < cache.num_attention_heads
        for cache, _ in cache_kinds(model)
    )


@lru_cache(maxsize=4096)
def _sizes(
    model: ModelSpec, num_tokens: int, dtype: str, kind: CacheKind, encoder_tokens: int
) -> tuple[int, int, int, tuple[tuple[str, int, int], ...]]:
    whole = peak = states = 0
    groups: list[tuple[str, int, int]] = []
    for cache, count in cache_kinds(model):
        part = held(cache, num_tokens, dtype, kind, encoder_tokens)
        whole += part.held_bytes * count
        peak += part.peak_bytes * count
        states += part.state_bytes * count
        groups.append((kind_name(cache), count, part.held_bytes * count))
    return whole, peak, states, tuple(groups)


def _cache_use(
    model: ModelSpec, workload: Workload, context_tokens: int, dtype: str, kind: CacheKind
) -> CacheUse:
    whole, peak, states, groups = _sizes(model, context_tokens, dtype, kind, workload.encoder_tokens)
    more, _, _, longer = _sizes(model, context_tokens + 1, dtype, kind, workload.encoder_tokens)
    batch = workload.num_sequences
    return CacheUse(
        bytes_per_token=max(0, more - whole),
        bytes_per_sequence=whole,
        state_bytes_per_sequence=states,
        total=exact(whole * batch),
        peak_bytes=peak * batch,
        groups=tuple(
            CacheGroup(name, count, max(0, after - now), now)
            for (name, count, now), (_, _, after) in zip(groups, longer, strict=True)
        ),
    )


def _activations(model: ModelSpec, context_tokens: int, num_sequences: int) -> Quantity:
    structure = model.structure
    tokens = context_tokens * num_sequences
    # A prompt's forward pass: a few hidden-sized tensors and the widest MLP, and the last logits.
    widest = max(
        (
            tensor.shape[0]
            for group in model.layers
            for tensor in group.layer.tensors
            if tensor.role in ("mlp", "shared_expert") and tensor.split == "out"
        ),
        default=structure.hidden_size,
    )
    forward = tokens * 2 * (4 * structure.hidden_size + 2 * widest)
    logits = num_sequences * structure.vocab_size * 4
    return Quantity(
        logits,
        forward + logits,
        2 * forward + tokens * 4 + 2 * logits,
        "assumed",
        "one forward pass over the prompt",
    )


def _device_plan(
    device: Device,
    num_devices: int,
    weights: Quantity,
    cache: CacheUse,
    activations: Quantity,
    workload: Workload,
) -> DevicePlan:
    budget = max(0, device.usable_bytes - workload.reserve_bytes - device.used_bytes)
    share = Quantity(
        ceil_div(weights.low, num_devices),
        ceil_div(weights.expected, num_devices),
        ceil_div(weights.high, num_devices),
        weights.basis,
        weights.why,
    )
    # Whatever a window drops later, the prompt is held whole first.
    peak = max(cache.peak_bytes, cache.total.expected)
    states = cache.state_bytes_per_sequence * workload.num_sequences
    kv = exact(ceil_div(peak - states, num_devices), "what the tensors' storage keeps at the peak")
    low, usual, high = RUNTIME_GIB
    runtime = Quantity(int(low * GIB), int(usual * GIB), int(high * GIB), "assumed", RUNTIME_WHY)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    parts = [Component("weights", share), Component("kv_cache", kv)]
    if states:
        parts.append(Component("recurrent_state", exact(ceil_div(states, num_devices))))
    parts += [Component("activations", activations), Component("runtime", runtime)]
    required = total(part.bytes for part in parts)
    return DevicePlan(device, budget, tuple(parts), (Check("budget", required, budget, "the card is full"),))


def _refusals(model: ModelSpec, kind: CacheKind) -> tuple[Refusal, ...]:
    kinds = cache_kinds(model)
    if kind.implementation == "static" and any(
        isinstance(cache, LightningState | CompressedAttention)
        or (isinstance(cache, CrossAttention) and cache.source == "image")
        for cache, _ in kinds
    ):
        return (
            Refusal(
                "static-cache-unsupported", "this class does not take a static cache", "leave it dynamic"
            ),
        )
    if kind.implementation == "quantized" and any(not isinstance(cache, FullAttention) for cache, _ in kinds):
        return (
            Refusal(
                "quantized-cache-unsupported",
                "QuantizedCache takes models whose layers are all full attention",
                "leave it dynamic",
            ),
        )
    return ()
