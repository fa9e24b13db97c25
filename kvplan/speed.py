"""How fast it decodes: a roofline over what one step must read, and from where.

A decode step reads every active weight and every cached token once. Its time is, place by place,
``bytes / (share x bandwidth) + layers x launch time``: layers split over devices take turns, tensor
parallel ranks work at once, what lies in system memory is computed there (llama.cpp) or crosses the
bus (vLLM, SGLang, transformers). A mixture of experts reads the experts that some sequence's router
picks: ``E x (1 - (1 - k / E) ** sequences)`` of E, with k a token. Where a device's compute is known
the arithmetic of many sequences may take longer than the reading.

Shares of the vendor's bandwidth and launch times come from published runs: llama.cpp's of May 2024
and December 2023 on 22 devices (XiongjieDai/GPU-Benchmarks-on-LLM-Inference@00dd2bd README, the rows
of tests/oracles/decode_rates.jsonl), 0.8 and 3 microseconds an operation for NVIDIA and 0.5 for Intel
Arc (ai-dynamo/aiconfigurator@095f58a), PCIe 5.0 x16 measured at 55 GB/s of 63
(stas00/ml-engineering@744d01e network/README.md). System memory is taken as two channels, DDR4-3200
to DDR5-6400; a server with eight is faster than the upper bound.
"""

from functools import lru_cache

from kvplan.efficiency import (
    HOST_BANDWIDTH,
    HOST_LAYER_SECONDS,
    Spread,
    bus_bandwidth,
    decode_efficiency,
    prefill_efficiency,
)
from kvplan.engines.base import DevicePlan, Plan, Reads
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec, layer_kinds, num_layers, tensors_of
from kvplan.quantity import Basis, worse_basis
from kvplan.weights import tensor_table

# Kinds of cache that stop growing; the others are read at every length.
WINDOWED = ("sliding_window", "chunked_attention")
COMPUTES_ON_HOST = ("llama.cpp", "ollama")
MEASURED_ENGINES = ("llama.cpp", "ollama")


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens a second between ``low`` and ``high``, most likely ``expected``.

    ``calibrated`` where published runs of this engine on this kind of device stand behind the
    bounds, ``assumed`` otherwise; ``why`` says what was read at which context.
    """

    low: float
    expected: float
    high: float
    basis: Basis
    why: str


def decode_rate(
    plan: Plan, *, context_tokens: int | None = None, num_sequences: int | None = None
) -> Rate | None:
    """Return tokens a second of all sequences together.

    None where a bandwidth is not known, and for encoders, which decode nothing.

    ``context_tokens`` are held by each sequence (default: the planned context, which is the slowest),
    ``num_sequences`` decode at once (default: the planned number).
    """
    if plan.model.structure.kind == "encoder":
        return None
    context = plan.context_tokens if context_tokens is None else context_tokens
    sequences = plan.num_sequences if num_sequences is None else num_sequences
    if not plan.devices and not plan.host:
        return None
    held = _cache_share(plan, context) * sequences / max(1, plan.num_sequences)
    share = expert_share(plan.model, sequences)
    flops = sequences * _flops_per_token(plan.model, context, 1.0)
    times = []
    for index, device in enumerate(plan.devices):
        seconds = _device_seconds(plan, device, _device_reads(plan, index), share, held)
        if seconds is None:
            return None
        times.append(_at_least(seconds, _compute_seconds(plan, device, flops / len(plan.devices))))
    host = _host_seconds(plan, share, held)
    if host is None:
        return None
    step = _together(plan, times) + host
    basis: Basis = "calibrated" if plan.engine_name in MEASURED_ENGINES else "assumed"
    for device in plan.devices:
        basis = worse_basis(basis, decode_efficiency(plan.engine_name, device.device).basis)
    if host.expected:
        basis = "assumed"
    return Rate(
        sequences / step.high,
        sequences / step.expected,
        sequences / step.low,
        basis,
        _why(plan, share, held, context),
    )


def prefill_rate(plan: Plan) -> Rate | None:
    """Return prompt tokens a second, None where a device's compute is not known.

    Compute-bound: two operations a weight and token, and attention over half the prompt on average.
    Weights in system memory cross the bus once a micro-batch (llama.cpp's op offload).
    """
    if not plan.devices or any(not item.device.bf16_flops for item in plan.devices):
        return None
    flops = _flops_per_token(plan.model, plan.context_tokens, 0.5)
    each = [
        prefill_efficiency(plan.engine_name, item.device).scaled(item.device.bf16_flops)
        for item in plan.devices
    ]
    if plan.parallel.tensor > 1:
        ranks = plan.parallel.tensor
        compute = Spread(
            min(one.low for one in each) * ranks * 0.5,
            min(one.expected for one in each) * ranks * 0.8,
            min(one.high for one in each) * ranks,
        )
    else:
        # Layers split over devices take turns; only micro-batches in flight keep all of them busy.
        count = len(each)
        slowest = min(each, key=lambda one: one.expected)
        compute = Spread(slowest.low, slowest.expected, slowest.high * count)
    seconds = Spread(flops / compute.high, flops / compute.expected, flops / compute.low)
    crossing = _crossing_bytes(plan)
    if crossing:
        option = dict(plan.engine_options).get("n_ubatch")
        batch = option if isinstance(option, int) and option > 0 else 512
        bus = bus_bandwidth(plan.devices[0].device)
        if bus is None:
            return None
        seconds += Spread(
            crossing / bus.high / batch, crossing / bus.expected / batch, crossing / bus.low / batch
        )
    basis: Basis = "assumed" if crossing or plan.engine_name not in MEASURED_ENGINES else "calibrated"
    for device in plan.devices:
        basis = worse_basis(basis, decode_efficiency(plan.engine_name, device.device).basis)
    why = f"{flops / 1e9:,.1f} GFLOP a token at {plan.context_tokens:,} tokens"
    if crossing:
        why += f", {crossing / 1e9:,.1f} GB over the bus each micro-batch"
    return Rate(1 / seconds.high, 1 / seconds.expected, 1 / seconds.low, basis, why)


@lru_cache(maxsize=1024)
def expert_share(model: ModelSpec, num_sequences: int) -> float:
    """Return the part of the routed experts that a step with ``num_sequences`` tokens reads."""
    for layer, _ in layer_kinds(model):
        for tensor in layer.tensors:
            if tensor.role == "expert" and tensor.count > 1 and tensor.num_active:
                return float(1 - (1 - tensor.num_active / tensor.count) ** num_sequences)
    return 1.0


@lru_cache(maxsize=1024)
def model_reads(model: ModelSpec, format_name: str) -> tuple[int, int, int]:
    """Return (dense, expert, looked-up) weight bytes of the whole model in a format.

    The looked-up part is the token embedding of an untied model and other tables by position.
    """
    dense = expert = looked_up = 0
    tied = model.structure.tie_word_embeddings
    for tensor, times, num_bytes in tensor_table(model, format_name):
        if tensor.role == "expert":
            expert += times * num_bytes
        elif tensor.role == "position_embedding" or (tensor.role == "embedding" and not tied):
            looked_up += times * num_bytes
        elif tensor.role not in ("vision", "audio", "encoder", "projector", "mtp"):
            dense += times * num_bytes
    return dense, expert, looked_up


def _device_reads(plan: Plan, index: int) -> Reads:
    """Return what a step reads on one device: the engine's own figures, or an even share."""
    device = plan.devices[index]
    if device.reads is not None:
        return device.reads
    dense, expert, _ = model_reads(plan.model, plan.weights_format)
    stages = max(1, plan.parallel.pipeline)
    ranks = max(1, len(plan.devices) // stages)
    held = sum(part.bytes.expected for part in device.components if part.name == "weights")
    # What lies in system memory is not read here.
    whole = max(1, plan.weights.expected)
    stays = min(1.0, held * len(plan.devices) / whole) if plan.offloaded else 1.0
    return Reads(
        dense_bytes=int(dense * stays) // len(plan.devices),
        expert_bytes=int(expert * stays) // len(plan.devices),
        cache_bytes=plan.cache.total.expected // (ranks * stages),
        num_layers=num_layers(plan.model.structure) // stages,
    )


def _host_reads(plan: Plan) -> Reads:
    if plan.host_reads is not None:
        return plan.host_reads
    if plan.devices and not plan.offloaded:
        return Reads(0, 0, 0, 0)
    dense, expert, _ = model_reads(plan.model, plan.weights_format)
    weights = sum(part.bytes.expected for part in plan.host if part.name == "weights")
    cache = sum(part.bytes.expected for part in plan.host if part.name in ("kv_cache", "recurrent_state"))
    share = min(1.0, weights / max(1, plan.weights.expected))
    layers = 0 if plan.devices else num_layers(plan.model.structure)
    return Reads(int(dense * share), int(expert * share), cache, layers)


def _device_seconds(plan: Plan, item: DevicePlan, reads: Reads, share: float, held: float) -> Spread | None:
    device = item.device
    bandwidth = device.bandwidth_bytes_per_second
    if device.kind == "cpu":
        return _on_host(reads, share, held)
    if not bandwidth:
        return None
    found = decode_efficiency(plan.engine_name, device)
    num_bytes = _bytes(reads, share, held)
    return Spread(
        num_bytes / (found.share.high * bandwidth) + reads.num_layers * found.layer_seconds.low,
        num_bytes / (found.share.expected * bandwidth) + reads.num_layers * found.layer_seconds.expected,
        num_bytes / (found.share.low * bandwidth) + reads.num_layers * found.layer_seconds.high,
    )


def _compute_seconds(plan: Plan, item: DevicePlan, flops: float) -> Spread:
    """Return the time of the arithmetic, which many sequences at once make longer than the reading."""
    if not item.device.bf16_flops:
        return Spread(0.0, 0.0, 0.0)
    reached = prefill_efficiency(plan.engine_name, item.device).scaled(item.device.bf16_flops)
    return Spread(flops / reached.high, flops / reached.expected, flops / reached.low)


def _at_least(seconds: Spread, floor: Spread) -> Spread:
    return Spread(
        max(seconds.low, floor.low), max(seconds.expected, floor.expected), max(seconds.high, floor.high)
    )


def _host_seconds(plan: Plan, share: float, held: float) -> Spread | None:
    reads = _host_reads(plan)
    num_bytes = _bytes(reads, share, held)
    if not num_bytes and not reads.num_layers:
        return Spread(0.0, 0.0, 0.0)
    if plan.devices and plan.devices[0].device.unified_memory:
        # The same memory, read by the CPU.
        return _device_seconds(plan, plan.devices[0], reads, share, held)
    if plan.engine_name in COMPUTES_ON_HOST or not plan.devices:
        return _on_host(reads, share, held)
    bus = bus_bandwidth(plan.devices[0].device)
    if bus is None:
        return None
    return Spread(num_bytes / bus.high, num_bytes / bus.expected, num_bytes / bus.low)


def _on_host(reads: Reads, share: float, held: float) -> Spread:
    num_bytes = _bytes(reads, share, held)
    seconds = HOST_LAYER_SECONDS
    return Spread(
        num_bytes / HOST_BANDWIDTH.high + reads.num_layers * seconds.low,
        num_bytes / HOST_BANDWIDTH.expected + reads.num_layers * seconds.expected,
        num_bytes / HOST_BANDWIDTH.low + reads.num_layers * seconds.high,
    )


def _bytes(reads: Reads, share: float, held: float) -> float:
    return reads.dense_bytes + reads.expert_bytes * share + reads.cache_bytes * held


def _together(plan: Plan, times: list[Spread]) -> Spread:
    """Return the time of a step over all devices: ranks at once, stages in turn."""
    if not times:
        return Spread(0.0, 0.0, 0.0)
    stages = max(1, plan.parallel.pipeline)
    ranks = max(1, len(times) // stages)
    step = Spread(0.0, 0.0, 0.0)
    for first in range(0, len(times), ranks):
        abreast = times[first : first + ranks]
        step += Spread(
            max(time.low for time in abreast),
            max(time.expected for time in abreast),
            max(time.high for time in abreast),
        )
    if ranks > 1:
        # Two reductions a layer, 5 to 40 microseconds each over NVLink or PCIe.
        layers = num_layers(plan.model.structure)
        step += Spread(layers * 10e-6, layers * 25e-6, layers * 80e-6)
    return step


def _cache_share(plan: Plan, context_tokens: int) -> float:
    """Return how much of the planned cache a sequence of ``context_tokens`` reads."""
    planned = read = 0
    for group in plan.cache.groups:
        planned += group.bytes_per_sequence
        if not group.bytes_per_token:
            read += group.bytes_per_sequence
            continue
        grown = group.bytes_per_token * context_tokens
        stops = group.kind in WINDOWED or context_tokens <= plan.context_tokens
        read += min(grown, group.bytes_per_sequence) if stops else grown
    return read / planned if planned else 0.0


def _crossing_bytes(plan: Plan) -> int:
    if not plan.offloaded or plan.devices[0].device.unified_memory:
        return 0
    reads = _host_reads(plan)
    return reads.dense_bytes + reads.expert_bytes


@lru_cache(maxsize=1024)
def _flops_per_token(model: ModelSpec, context_tokens: int, seen_share: float) -> float:
    """Return the operations of one token that sees ``seen_share`` of the context."""
    active = 0
    tied = model.structure.tie_word_embeddings
    for tensor, times in tensors_of(model.structure):
        if tensor.role in ("position_embedding", "vision", "audio", "encoder", "projector"):
            continue
        if tensor.role == "embedding" and not tied:
            continue
        active += tensor.num_active_elements * times
    attended = 0
    for layer, count in layer_kinds(model):
        for cache in layer.caches:
            heads = getattr(cache, "num_attention_heads", 0)
            width = getattr(cache, "head_dim", 0) or getattr(cache, "kv_lora_rank", 0)
            window = getattr(cache, "sliding_window", 0) or getattr(cache, "attention_chunk_size", 0)
            seen = context_tokens * seen_share
            attended += int(4 * heads * width * (min(seen, window) if window else seen)) * count
    return float(2 * active + attended)


def _why(plan: Plan, share: float, held: float, context_tokens: int) -> str:
    parts = []
    for index, item in enumerate(plan.devices):
        name = item.device.name if len(plan.devices) == 1 else f"{item.device.name} {index}"
        parts.append(f"{_bytes(_device_reads(plan, index), share, held) / 1e9:,.1f} GB from {name}")
    on_host = _bytes(_host_reads(plan), share, held)
    if on_host:
        where = "system memory" if _computes_on_host(plan) else "system memory over the bus"
        parts.append(f"{on_host / 1e9:,.1f} GB from {where}")
    return f"a step at {context_tokens:,} tokens reads {', '.join(parts)}"


def _computes_on_host(plan: Plan) -> bool:
    return not plan.devices or plan.engine_name in COMPUTES_ON_HOST
