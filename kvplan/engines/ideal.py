"""The textbook engine: exact tokens, the window itself, no blocks, no overhead.

Every other engine rounds, pads and reserves on top of this; it is the figure that papers and
formulas give. Weights and cache divide evenly over all devices.
"""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import (
    CacheGroup,
    CacheUse,
    Check,
    Component,
    DevicePlan,
    Engine,
    Parallel,
    Plan,
    context_or_limit,
)
from kvplan.errors import InvalidValue
from kvplan.kv_formats import KV_FORMATS, KvFormat, kv_format, kv_format_names
from kvplan.layers import Cache, kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.textbook import cache_bytes, state_bytes
from kvplan.units import ceil_div
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload


class IdealEngine(Engine):
    """Textbook arithmetic."""

    name = "ideal"
    version = "1"
    versions = ("1",)
    kv_formats = kv_format_names()
    weight_families = ("plain", "fp8", "int8", "int4", "bnb", "fp4", "gguf", "mlx", "exl")
    runs_on_cpu = True
    loads_beside = True
    about = "the textbook formula: exact tokens, no blocks, no overhead"

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price exact tokens on evenly divided devices. Raises UnknownFormat for a KV format."""
        context_tokens, _ = context_or_limit(model, workload)
        key_format, value_format = _kv_formats(model, workload)
        format_name = format_name_of(model, workload.weights_format)
        weights = weight_bytes(model, format_name)
        cache = _cache(model, workload, context_tokens, key_format, value_format)
        num_devices = max(1, len(devices))
        parts = [Component("weights", _share(weights, num_devices))]
        attention_bytes = cache.total.expected - cache.state_bytes_per_sequence * workload.num_sequences
        parts.append(Component("kv_cache", exact(ceil_div(attention_bytes, num_devices))))
        if cache.state_bytes_per_sequence:
            states = cache.state_bytes_per_sequence * workload.num_sequences
            parts.append(Component("recurrent_state", exact(ceil_div(states, num_devices))))
        if workload.overhead_bytes:
            parts.append(Component("runtime", exact(workload.overhead_bytes, "--overhead")))
        components = tuple(parts)
        required = _sum(components)
        device_plans = tuple(
            DevicePlan(
                device,
                max(0, device.usable_bytes - workload.reserve_bytes),
                components,
                (Check("budget", required, max(0, device.usable_bytes - workload.reserve_bytes)),),
            )
            for device in devices
        )
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=(),
            parallel=Parallel(
                tensor=workload.tensor_parallel or ceil_div(num_devices, workload.pipeline_parallel or 1),
                pipeline=workload.pipeline_parallel or 1,
            ),
            weights_format=format_name,
            weights=weights,
            kv_dtype_k=key_format.name,
            kv_dtype_v=value_format.name,
            context_tokens=context_tokens,
            num_sequences=workload.num_sequences,
            devices=device_plans,
            cache=cache,
        )


def engine(version: str | None) -> IdealEngine:
    """Return the policy; the textbook has one version."""
    if version not in (None, "1"):
        raise InvalidValue(
            f"'ideal@{version}' is not known", why="the textbook has one version", hint="write --engine ideal"
        )
    return IdealEngine()


def _sum(components: tuple[Component, ...]) -> Quantity:
    amount = components[0].bytes
    for component in components[1:]:
        amount = amount + component.bytes
    return amount


def _share(weights: Quantity, num_devices: int) -> Quantity:
    if num_devices == 1:
        return weights
    return Quantity(
        ceil_div(weights.low, num_devices),
        ceil_div(weights.expected, num_devices),
        ceil_div(weights.high, num_devices),
        weights.basis,
        weights.why,
    )


def _kv_formats(model: ModelSpec, workload: Workload) -> tuple[KvFormat, KvFormat]:
    own = KV_FORMATS["fp32" if model.dtype == "float32" else "bf16" if model.dtype == "bfloat16" else "fp16"]
    key = own if workload.kv_cache_dtype_k == "auto" else kv_format(workload.kv_cache_dtype_k)
    value = own if workload.kv_cache_dtype_v == "auto" else kv_format(workload.kv_cache_dtype_v)
    return key, value


@lru_cache(maxsize=4096)
def _group(
    cache: Cache,
    num_layers: int,
    context_tokens: int,
    encoder_tokens: int,
    key: KvFormat,
    value: KvFormat,
    dtype: str,
) -> CacheGroup:
    if states := state_bytes(cache, dtype):
        # In the model's own type, whatever the format of keys and values.
        return CacheGroup(kind_name(cache), num_layers, 0, states * num_layers)
    at_context = cache_bytes(cache, context_tokens, key, value, encoder_tokens)
    one_less = cache_bytes(cache, context_tokens - 1, key, value, encoder_tokens)
    return CacheGroup(
        kind_name(cache), num_layers, (at_context - one_less) * num_layers, at_context * num_layers
    )


def _cache(
    model: ModelSpec, workload: Workload, context_tokens: int, key: KvFormat, value: KvFormat
) -> CacheUse:
    kinds = cache_kinds(model)
    groups = tuple(
        _group(cache, count, context_tokens, workload.encoder_tokens, key, value, model.dtype)
        for cache, count in kinds
    )
    per_sequence = sum(group.bytes_per_sequence for group in groups)
    states = _state_bytes(model)
    return CacheUse(
        bytes_per_token=sum(group.bytes_per_token for group in groups),
        bytes_per_sequence=per_sequence,
        state_bytes_per_sequence=states,
        total=exact(per_sequence * workload.num_sequences),
        peak_bytes=per_sequence * workload.num_sequences,
        groups=groups,
    )


@lru_cache(maxsize=512)
def _state_bytes(model: ModelSpec) -> int:
    return sum(state_bytes(cache, model.dtype) * count for cache, count in cache_kinds(model))
