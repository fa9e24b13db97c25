"""vLLM: what one rank holds and the three tests that must hold on its device.

vLLM 0.33 v1/worker/gpu_worker.py and v1/worker/utils.py: ``budget`` (weights, overhead and one load of
requests inside the share), ``free_at_start`` (as much free memory as is requested, or vLLM refuses)
and ``outside_pool`` (what lives beside the share). What does not depend on the load is made once.
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import Check, Component, Parallel
from kvplan.engines.vllm.activations import Terms, activations, has_towers, terms_of
from kvplan.engines.vllm.budget import NO_GRAPHS, before_snapshot, cuda_graphs, non_torch
from kvplan.engines.vllm.drafts import draft_bytes
from kvplan.engines.vllm.offload import ipc_bytes, on_device
from kvplan.engines.vllm.settings import Settings
from kvplan.engines.vllm.speculative import draft_layers
from kvplan.engines.vllm.stages import Layout
from kvplan.engines.vllm.versions import Behaviour
from kvplan.engines.vllm.weights import loaded_weights, without_towers
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quantity import ZERO, Quantity, exact, total
from kvplan.workload import Workload

ESTIMATES_SINCE = (0, 18)
WARM_UP_COPIES = 3
WARM_UP_WHY = "the sampler's warm-up over max_num_seqs rows of logits"


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank on its device, the load aside.

    ``weights`` and ``after`` are the components around the cache, ``fixed`` their sum without the
    activations, which a long context may widen; ``beside`` are the tests besides the budget's.
    ``overhead_is_given`` says that ``--overhead`` stands for activations and graphs too.
    """

    device: Device
    stage: int
    name: str
    budget_bytes: int
    weights: Component
    after: tuple[Component, ...]
    fixed: Quantity
    beside: tuple[Check, ...]
    terms: Terms
    samples: bool
    sees: bool
    activation: Quantity
    pool_bytes: int | None
    taken: tuple[Quantity, ...]
    overhead_is_given: bool


def ranks_of(
    model: ModelSpec,
    format_name: str,
    workload: Workload,
    settings: Settings,
    rules: Behaviour,
    layout: Layout,
    devices: Sequence[Device],
    parallel: Parallel,
) -> tuple[Rank, ...]:
    """Return one rank a device, equal ones made once."""
    made: dict[tuple[Device, int], Rank] = {}
    found: list[Rank] = []
    per_replica = parallel.tensor * parallel.pipeline
    for index, device in enumerate(devices):
        stage = min((index % per_replica) // parallel.tensor, parallel.pipeline - 1)
        if (device, stage) not in made:
            made[device, stage] = _rank(
                model, format_name, workload, settings, rules, layout, device, parallel, stage
            )
        found.append(made[device, stage])
    return tuple(found)


def _rank(
    model: ModelSpec,
    format_name: str,
    workload: Workload,
    settings: Settings,
    rules: Behaviour,
    layout: Layout,
    device: Device,
    parallel: Parallel,
    stage: int,
) -> Rank:
    tensor, pipeline = parallel.tensor, parallel.pipeline
    samples = stage == pipeline - 1
    num_ranks = tensor * pipeline
    budget = settings.requested_bytes(device.usable_bytes)
    loaded = loaded_weights(
        model,
        format_name,
        tensor,
        pipeline,
        parallel.expert,
        stage,
        settings.speculation,
        whole_towers=workload.option("mm_encoder_tp_mode") == "data",
    )
    if not settings.sees:
        loaded = without_towers(loaded, model, format_name, tensor, stage)
    weights = Component("weights", on_device(loaded, workload))
    terms = terms_of(
        model,
        format_name,
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        tensor,
        settings.model_dtype,
        parallel.expert,
    )
    graphs = NO_GRAPHS
    if not settings.enforce_eager:
        drafted = sum(group.count for group in draft_layers(model, settings.speculation)) if samples else 0
        graphs = cuda_graphs(model, settings.largest_capture, device.architecture, rules.version, drafted)
    runtime = non_torch(num_ranks, device, loaded.expected, rules.version)
    overhead_is_given = workload.overhead_bytes is not None
    if workload.overhead_bytes is not None:
        # One figure stands for all that is estimated beside weights and cache.
        runtime = exact(workload.overhead_bytes, "--overhead, activations and graphs included")
    after: list[Component] = []
    draft = draft_bytes(model, settings.speculation, tensor, parallel.expert) if samples else None
    if draft is not None:
        after.append(Component("draft_model", draft, "weights; its cache is in the pool"))
    frames = ipc_bytes(workload) if stage == 0 and settings.sees and has_towers(model) else 0
    if frames:
        after.append(Component("multimodal", exact(frames, "--mm-ipc-gpu-memory-gb")))
    if workload.option("enable_lora"):
        from kvplan.engines.vllm.adapters import adapter_bytes

        after.append(Component("adapters", adapter_bytes(model, workload, tensor, pipeline, stage)))
    if graphs_inside(workload, rules) and graphs.high and not overhead_is_given:
        after.append(Component("cuda_graphs", graphs))
    after.append(Component("runtime", runtime))
    return Rank(
        device=device,
        stage=stage,
        name=f"pp {stage}" if pipeline > 1 else "",
        budget_bytes=budget,
        weights=weights,
        after=tuple(after),
        fixed=total((weights.bytes, *(part.bytes for part in after))),
        beside=_beside(settings, rules, workload, device, num_ranks, graphs, terms, samples=samples),
        terms=terms,
        samples=samples,
        overhead_is_given=overhead_is_given,
        sees=settings.sees,
        activation=ZERO
        if overhead_is_given
        else activations(terms, model, 0, rules.version, samples=samples, sees=settings.sees),
        pool_bytes=fixed_pool_bytes(settings, layout, stage),
        taken=_taken(workload, device, num_ranks),
    )


def graphs_inside(workload: Workload, rules: Behaviour) -> bool:
    """Tell whether captured graphs come off the pool: VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS, its default.

    The variable is new in 0.18.
    """
    asked = workload.option("estimate_cudagraphs")
    if isinstance(asked, bool) and rules.version >= ESTIMATES_SINCE:
        return asked
    return rules.graphs_inside


def _beside(
    settings: Settings,
    rules: Behaviour,
    workload: Workload,
    device: Device,
    num_ranks: int,
    graphs: Quantity,
    terms: Terms,
    *,
    samples: bool,
) -> tuple[Check, ...]:
    """Return the tests besides the budget's."""
    usable, budget = device.usable_bytes, settings.requested_bytes(device.usable_bytes)
    context, reserved = _taken(workload, device, num_ranks)
    # Mostly what the profile run left free serves the warm-up; two gpt-oss-20b servers died in it
    # whose room beside the pool was smaller than the logits.
    warm_up = Quantity(0, 0, WARM_UP_COPIES * terms.logits if samples else 0, "calibrated", WARM_UP_WHY)
    outside = [context, reserved, warm_up]
    if not graphs_inside(workload, rules):
        outside.append(graphs)
    return (
        Check(
            "free_at_start",
            total((exact(budget), context, reserved)),
            usable,
            "less memory is free at start than is requested",
        ),
        Check(
            "outside_pool",
            total(outside),
            max(0, usable - budget),
            "what lives beside the share exceeds the rest",
        ),
    )


def fixed_pool_bytes(settings: Settings, layout: Layout, stage: int) -> int | None:
    """Return the bytes of a pool that the flags fix on one stage; None where the card's share decides."""
    if settings.num_gpu_blocks_override:
        return settings.num_gpu_blocks_override * layout.pool.stage_bytes_per_block[stage]
    return settings.kv_cache_memory_bytes or None


def _taken(workload: Workload, device: Device, num_ranks: int) -> tuple[Quantity, Quantity]:
    """Return what the context (and NCCL) and what others hold on a device."""
    return before_snapshot(num_ranks, device), exact(workload.reserve_bytes + device.used_bytes)
