"""transformers: caches that grow with the text, in the model's own dtype.

transformers 5.23: DynamicCache by default, StaticCache and QuantizedCache on request through
GenerationConfig's own names. There is no budget but the card; what lies beside weights and cache is
torch's context and one forward pass. Several cards share the layers (``device_map="auto"``).
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.device import Device
from kvplan.dtypes import DTYPE_BYTES
from kvplan.engines.base import (
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
from kvplan.engines.transformers.activations import forward_pass
from kvplan.engines.transformers.cache import CacheKind
from kvplan.engines.transformers.options import Generation, generation_of
from kvplan.engines.transformers.use import Footprint, footprint_of, is_measured, release_of
from kvplan.errors import InvalidValue, UnknownFormat
from kvplan.layers import CompressedAttention, CrossAttention, FullAttention, LatentAttention
from kvplan.model import ModelSpec, cache_kinds, num_layers
from kvplan.quantity import Quantity, exact, total
from kvplan.units import GIB, ceil_div
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

VERSIONS = ("4.57", "5.23")
MODEL_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
KV_NAMES = ("auto", "bf16", "fp16", "fp32", "bfloat16", "float16", "float32")
# torch's context and first kernels: about 0.3 GiB bare, 0.7 after init, up to 1.4 with workspaces.
RUNTIME_GIB = (0.3, 0.7, 1.5)
RUNTIME_WHY = "torch on CUDA: about 0.3 GiB bare (pytorch#107667), 0.7 to 1.4 after first kernels"
# Classes whose caches generate() cannot choose: it warns and goes on with the model's own
# (transformers 5.23 generation/utils.py _supports_default_dynamic_cache).
OWN_CACHE = frozenset(("minimax", "rwkv", "xlstm"))
MXFP4_NEEDS = (7, 5)


class TransformersEngine(Engine):
    """transformers' generate()."""

    name = "transformers"
    versions = VERSIONS
    kv_formats = KV_NAMES
    weight_families = ("plain", "fp8", "int8", "int4", "bnb", "fp4")
    runs_on_cpu = True
    loads_beside = True
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
        dtype = _model_dtype(model, format_name)
        _check_kv(workload, dtype)
        context_tokens, _ = context_or_limit(model, workload)
        asked, notices = _generation(model, workload, context_tokens, self.version)
        footprint = footprint_of(model, workload, context_tokens, dtype, asked, self.version)
        cache = footprint.cache
        weights = weight_bytes(model, format_name)
        if format_name == "mxfp4":
            weights, notices = _mxfp4(model, weights, devices, notices)
        if not is_measured(self.version) and cache.total.basis == "assumed":
            notices += (
                Notice(
                    "version-not-measured",
                    f"transformers {self.version} lies outside the measured {' and '.join(VERSIONS)}: "
                    "the cache covers both",
                ),
            )
        activations = forward_pass(
            model,
            context_tokens,
            workload.num_sequences * asked.num_copies,
            DTYPE_BYTES[dtype],
            chunk_size=asked.prefill_chunk_size,
            dequantizes=asked.kind.implementation == "quantized",
        )
        offloads = asked.offloads_cache and any(device.kind == "gpu" for device in devices)
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=_options(asked),
            parallel=Parallel(pipeline=max(1, len(devices))),
            weights_format=format_name,
            weights=weights,
            kv_dtype_k=dtype,
            kv_dtype_v=dtype,
            context_tokens=context_tokens,
            num_sequences=workload.num_sequences,
            devices=_device_plans(model, devices, weights, footprint, activations, workload),
            cache=cache,
            host=(Component("kv_cache", cache.total, "all layers but those at work"),) if offloads else (),
            offloaded=offloads,
            refusals=_refusals(model, asked.kind),
            warnings=notices,
        )


def engine(version: str | None) -> TransformersEngine:
    """Return the policy: 4.57's rules, 5.23's from there on, both in between."""
    if version is None:
        return TransformersEngine()
    plain = version.removeprefix("v")
    if not all(part.isdigit() for part in plain.split(".")) or int(plain.split(".")[0]) < 4:
        raise InvalidValue(
            f"'transformers@{version}' is not a version",
            why=f"known are {', '.join(VERSIONS)}",
            hint="write it like --engine transformers@5.23",
        )
    return TransformersEngine(plain)


def _model_dtype(model: ModelSpec, format_name: str) -> str:
    own = model.dtype if model.dtype in ("float32", "bfloat16", "float16") else "bfloat16"
    return MODEL_DTYPES.get(format_name, own)


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


def _generation(
    model: ModelSpec, workload: Workload, context_tokens: int, version: str
) -> tuple[Generation, tuple[Notice, ...]]:
    notices: tuple[Notice, ...] = ()
    if model.model_type in OWN_CACHE and workload.option("cache_implementation") is not None:
        kept = tuple(pair for pair in workload.engine_options if pair[0] != "cache_implementation")
        workload = replace(workload, engine_options=kept)
        notices = (
            Notice("cache-implementation-ignored", f"{model.model_type} always uses its own cache class"),
        )
    asked = generation_of(
        workload,
        context_tokens,
        decompresses_mla=release_of(version)[0] < 5,
        # Falcon-40B's class repeats keys and values for every query head before it caches them.
        broadcasts_heads=model.model_type == "falcon" and _groups_heads(model),
    )
    return asked, notices


def _groups_heads(model: ModelSpec) -> bool:
    return any(
        isinstance(cache, FullAttention) and 1 < cache.num_key_value_heads < cache.num_attention_heads
        for cache, _ in cache_kinds(model)
    )


def _mxfp4(
    model: ModelSpec, weights: Quantity, devices: Sequence[Device], notices: tuple[Notice, ...]
) -> tuple[Quantity, tuple[Notice, ...]]:
    """Return MXFP4's weights, expanded to bf16 where the card has no kernels for them.

    transformers 5.23 quantizers/quantizer_mxfp4.py: CUDA below 7.5 dequantizes on loading.
    """
    for device in devices:
        parts = device.compute_capability.split(".")
        if len(parts) == 2 and all(part.isdigit() for part in parts):
            if (int(parts[0]), int(parts[1])) >= MXFP4_NEEDS:
                continue
            notice = Notice("mxfp4-expanded", f"{device.name} has no MXFP4 kernels: weights become bf16")
            return weight_bytes(model, "bf16"), (*notices, notice)
    return weights, (
        *notices,
        Notice("mxfp4-needs-kernels", "without the kernels package transformers expands MXFP4 to bf16"),
    )


def _device_plans(
    model: ModelSpec,
    devices: Sequence[Device],
    weights: Quantity,
    footprint: Footprint,
    activations: Quantity,
    workload: Workload,
) -> tuple[DevicePlan, ...]:
    room = [max(1, device.usable_bytes - workload.reserve_bytes - device.used_bytes) for device in devices]
    layers = max(1, num_layers(model.structure))
    low, usual, high = RUNTIME_GIB
    runtime = Quantity(int(low * GIB), int(usual * GIB), int(high * GIB), "assumed", RUNTIME_WHY)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    plans = []
    for device, mine in zip(devices, room, strict=True):
        place = (mine, sum(room), layers)
        parts = [
            Component("weights", _share(weights, place)),
            Component("kv_cache", _share(footprint.attention, place)),
        ]
        if footprint.state_bytes:
            parts.append(Component("recurrent_state", _share(exact(footprint.state_bytes), place)))
        parts += [Component("activations", activations), Component("runtime", runtime)]
        budget = max(0, device.usable_bytes - workload.reserve_bytes - device.used_bytes)
        check = Check("budget", total(part.bytes for part in parts), budget, "the card is full")
        plans.append(DevicePlan(device, budget, tuple(parts), (check,)))
    return tuple(plans)


def _share(amount: Quantity, place: tuple[int, int, int]) -> Quantity:
    """Return one card's part: by its memory, whole layers at a time."""
    mine, whole, layers = place
    if mine == whole:
        return amount
    low, expected, high = (
        ceil_div(part * mine, whole) for part in (amount.low, amount.expected, amount.high)
    )
    # Whole layers, and embedding and head on the first and last: up to two layers off the even share.
    layer = ceil_div(amount.high, layers)
    return Quantity(max(0, low - 2 * layer), expected, high + 2 * layer, "assumed", 'device_map="auto"')


def _options(asked: Generation) -> tuple[tuple[str, object], ...]:
    kind = asked.kind
    options: tuple[tuple[str, object], ...] = (
        ("cache_implementation", kind.implementation),
        ("max_cache_len", kind.max_cache_len or None),
    )
    if kind.implementation == "quantized":
        options += (("backend", kind.backend), ("nbits", kind.num_bits))
        if kind.backend != "fp8":
            options += (("q_group_size", kind.group_size), ("residual_length", kind.residual_length))
    return options


def _refusals(model: ModelSpec, kind: CacheKind) -> tuple[Refusal, ...]:
    caches = [cache for cache, _ in cache_kinds(model)]
    if kind.implementation == "static" and any(
        isinstance(cache, CompressedAttention)
        or (isinstance(cache, CrossAttention) and cache.source == "image")
        for cache in caches
    ):
        return (
            Refusal(
                "static-cache-unsupported", "this class does not take a static cache", "leave it dynamic"
            ),
        )
    if kind.implementation == "quantized" and any(
        not isinstance(cache, FullAttention | LatentAttention) or cache.index_head_dim for cache in caches
    ):
        return (
            Refusal(
                "quantized-cache-unsupported",
                "QuantizedCache takes models whose layers are all full attention",
                "leave it dynamic",
            ),
        )
    return ()
