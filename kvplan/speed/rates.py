"""Tokens a second: how long a step's reads and its arithmetic take, place by place."""

from kvplan.engines.base import DevicePlan, Plan, Reads
from kvplan.frozen import dataclass
from kvplan.model import num_layers
from kvplan.quantity import Basis, worse_basis
from kvplan.speed.efficiency import (
    HOST_BANDWIDTH,
    HOST_LAYER_SECONDS,
    Spread,
    bus_bandwidth,
    decode_efficiency,
    prefill_efficiency,
)
from kvplan.speed.reads import (
    cache_share,
    computes_on_host,
    crossing_bytes,
    device_reads,
    expert_share,
    flops_per_token,
    host_reads,
    read_bytes,
)

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
    held = cache_share(plan, context) * sequences / max(1, plan.num_sequences)
    share = expert_share(plan.model, sequences)
    flops = sequences * flops_per_token(plan.model, context, 1.0)
    times = []
    for index, device in enumerate(plan.devices):
        seconds = _device_seconds(plan, device, device_reads(plan, index), share, held)
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
    flops = flops_per_token(plan.model, plan.context_tokens, 0.5)
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
    crossing = crossing_bytes(plan)
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


def _device_seconds(plan: Plan, item: DevicePlan, reads: Reads, share: float, held: float) -> Spread | None:
    device = item.device
    bandwidth = device.bandwidth_bytes_per_second
    if device.kind == "cpu":
        return _on_host(reads, share, held)
    if not bandwidth:
        return None
    found = decode_efficiency(plan.engine_name, device)
    num_bytes = read_bytes(reads, share, held)
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
    reads = host_reads(plan)
    num_bytes = read_bytes(reads, share, held)
    if not num_bytes and not reads.num_layers:
        return Spread(0.0, 0.0, 0.0)
    if plan.devices and plan.devices[0].device.unified_memory:
        # The same memory, read by the CPU.
        return _device_seconds(plan, plan.devices[0], reads, share, held)
    if computes_on_host(plan):
        return _on_host(reads, share, held)
    bus = bus_bandwidth(plan.devices[0].device)
    if bus is None:
        return None
    return Spread(num_bytes / bus.high, num_bytes / bus.expected, num_bytes / bus.low)


def _on_host(reads: Reads, share: float, held: float) -> Spread:
    num_bytes = read_bytes(reads, share, held)
    seconds = HOST_LAYER_SECONDS
    return Spread(
        num_bytes / HOST_BANDWIDTH.high + reads.num_layers * seconds.low,
        num_bytes / HOST_BANDWIDTH.expected + reads.num_layers * seconds.expected,
        num_bytes / HOST_BANDWIDTH.low + reads.num_layers * seconds.high,
    )


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


def _why(plan: Plan, share: float, held: float, context_tokens: int) -> str:
    parts = []
    for index, item in enumerate(plan.devices):
        name = item.device.name if len(plan.devices) == 1 else f"{item.device.name} {index}"
        parts.append(f"{read_bytes(device_reads(plan, index), share, held) / 1e9:,.1f} GB from {name}")
    on_host = read_bytes(host_reads(plan), share, held)
    if on_host:
        where = "system memory" if computes_on_host(plan) else "system memory over the bus"
        parts.append(f"{on_host / 1e9:,.1f} GB from {where}")
    return f"a step at {context_tokens:,} tokens reads {', '.join(parts)}"
