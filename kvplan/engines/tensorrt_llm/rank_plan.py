"""One rank under TensorRT-LLM: the pool gets a share of what weights and the profile run leave."""

from kvplan.device import Device
from kvplan.engines.base import Check, Component, DevicePlan, Parallel
from kvplan.engines.free_share import activation_peak, runtime_bytes
from kvplan.engines.tensorrt_llm.request import stage_request, times
from kvplan.engines.tensorrt_llm.settings import Settings
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import exact, total
from kvplan.sharding import attention_replicas, pipeline_split, stage_groups, stage_weight_bytes
from kvplan.units import ceil_div
from kvplan.workload import Workload

ACTIVATION_WHY = "profile run: 2 x max_num_tokens x hidden size x a factor by tp (aiconfigurator)"


def rank_plan(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    format_name: str,
    parallel: Parallel,
    stage: int,
    device: Device,
    context_tokens: int,
    num_sequences: int,
) -> DevicePlan:
    """Plan one rank: weights, the asked load, the profile run's peak, and what is left free."""
    sizes = pipeline_split(num_layers(model.structure), parallel.pipeline)
    first = sum(sizes[:stage])
    weights = stage_weight_bytes(
        model, format_name, parallel.tensor, parallel.pipeline, parallel.expert, stage
    )
    if settings.attention_dp and parallel.tensor > 1:
        groups = stage_groups(model.layers, first, sizes[stage])
        weights += attention_replicas(model, format_name, parallel.tensor, 1, groups, first)
    here = ceil_div(num_sequences, parallel.tensor if settings.attention_dp else 1)
    kv = times(stage_request(model, settings, parallel, stage, context_tokens), here)
    activations = activation_peak(model, settings.max_num_tokens, parallel.tensor, ACTIVATION_WHY)
    runtime = runtime_bytes(parallel.tensor * parallel.pipeline, device)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    others = workload.reserve_bytes + device.used_bytes
    usable = device.usable_bytes
    taken = weights + activations.expected + runtime.expected + others
    spare = int(max(0, usable - taken) * (1 - settings.free_gpu_memory_fraction))
    parts = [
        Component("weights", exact(weights)),
        Component("kv_cache", kv, "blocks of the asked load"),
        Component("activations", activations),
        Component("runtime", runtime + exact(spare), "with the share of free memory that is left free"),
    ]
    if others:
        parts.append(Component("other_processes", exact(others)))
    required = total(part.bytes for part in parts)
    checks = [Check("budget", required, usable, "weights, activations and the asked load exceed the share")]
    rank = f"pp {stage}" if parallel.pipeline > 1 else ""
    return DevicePlan(device, usable, tuple(parts), tuple(checks), rank)
