"""vLLM: what one rank holds and the three tests that must hold on its device.

vLLM 0.33 v1/worker/gpu_worker.py and v1/worker/utils.py: ``budget`` (weights, overhead and one load of
requests inside the share), ``free_at_start`` (as much free memory as is requested, or vLLM refuses)
and ``outside_pool`` (what lives beside the share). What does not depend on the load is made once.
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Check, Component
from kvplan.engines.vllm.activations import Terms, activations, has_towers, terms_of
from kvplan.engines.vllm.budget import (
    NO_GRAPHS,
    Surroundings,
    before_snapshot,
    cuda_graphs,
    non_torch,
    surroundings_of,
)
from kvplan.engines.vllm.drafts import draft_bytes
from kvplan.engines.vllm.offload import ipc_bytes, on_device
from kvplan.engines.vllm.sampler import Held, held_by_sampler, runs_v2
from kvplan.engines.vllm.server import Server
from kvplan.engines.vllm.settings import Settings
from kvplan.engines.vllm.speculative import draft_layers
from kvplan.engines.vllm.stages import Layout
from kvplan.engines.vllm.versions import Behaviour
from kvplan.engines.vllm.weights import loaded_weights, without_towers
from kvplan.frozen import dataclass
from kvplan.quantity import ZERO, Quantity, exact, total
from kvplan.weights import format_name_of
from kvplan.workload import Workload

ESTIMATES_SINCE = (0, 18)
MISTRAL_FILES_FIRST = (0, 12)
WARM_UP_COPIES = 3
WARM_UP_WHY = "the sampler's warm-up over max_num_seqs rows of logits"


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What a rank of one stage holds on any card with the same surroundings, the load aside.

    ``weights`` and ``after`` are the components around the cache, ``fixed`` their sum without the
    ``activation``, which a long context may widen; ``beside`` is the sum with it and ``behind`` all
    that follows the cache where none does; ``taken`` is what is gone before vLLM looks,
    ``outside`` what else lies beside the pool's share. ``overhead_is_given`` says that ``--overhead``
    stands for activations and graphs too; ``held`` is what the sampler holds on cards of the class
    ``kernels``. Compared by identity, to look up by it cheaply.
    """

    server: Server
    stage: int
    weights: Component
    after: tuple[Component, ...]
    fixed: Quantity
    taken: Quantity
    outside: Quantity
    terms: Terms
    samples: bool
    activation: Quantity
    beside: Quantity
    behind: tuple[Component, ...]
    overhead_is_given: bool
    held: Held
    kernels: str


@dataclass(frozen=True, slots=True, eq=False)
class Rank:
    """One rank on its device: ``tests`` are those besides the budget's, ``taken`` all that others hold."""

    share: Share
    device: Device
    name: str
    budget_bytes: int
    tests: tuple[Check, ...]
    taken: Quantity


@lru_cache(maxsize=256)
def ranks_of(server: Server, devices: tuple[Device, ...]) -> tuple[Rank, ...]:
    """Return one rank a device, equal ones made once."""
    made: dict[tuple[int, int], Rank] = {}
    found: list[Rank] = []
    parallel = server.parallel
    per_replica = parallel.tensor * parallel.pipeline
    for index, device in enumerate(devices):
        stage = min((index % per_replica) // parallel.tensor, parallel.pipeline - 1)
        rank = made.get((id(device), stage))
        if rank is None:
            rank = made[id(device), stage] = _rank(server, device, stage)
        found.append(rank)
    return tuple(found)


def _rank(server: Server, device: Device, stage: int) -> Rank:
    tensor, pipeline = server.parallel.tensor, server.parallel.pipeline
    beside = surroundings_of(device, tensor, pipeline, by_kernels=server.format_name == "mxfp4")
    share = _share(server, stage, beside)
    usable = device.usable_bytes
    budget = server.settings.requested_bytes(usable)
    others = server.asked.reserve_bytes + device.used_bytes
    taken = share.taken.shifted(others) if others else share.taken
    return Rank(
        share=share,
        device=device,
        name=f"pp {stage}" if server.parallel.pipeline > 1 else "",
        budget_bytes=budget,
        tests=(
            Check(
                "free_at_start",
                taken.shifted(budget),
                usable,
                "less memory is free at start than is requested",
            ),
            Check(
                "outside_pool",
                taken + share.outside,
                max(0, usable - budget),
                "what lives beside the share exceeds the rest",
            ),
        ),
        taken=taken,
    )


@lru_cache(maxsize=4096)
def _share(server: Server, stage: int, beside: Surroundings) -> Share:
    model, settings, rules, parallel = server.model, server.settings, server.rules, server.parallel
    tensor, pipeline, format_name = parallel.tensor, parallel.pipeline, server.format_name
    num_ranks = tensor * pipeline
    loaded = loaded_weights(
        model,
        format_name,
        tensor,
        pipeline,
        parallel.expert,
        stage,
        settings.speculation,
        version=rules.version,
        kernels=beside.kernels,
        whole_towers=whole_towers(server),
    )
    if not settings.sees:
        loaded = without_towers(loaded, model, format_name, tensor, stage)
    terms = terms_of(
        model,
        format_name,
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        tensor,
        settings.model_dtype,
        parallel.expert,
        beside.kernels,
    )
    samples = stage == pipeline - 1 and model.structure.kind != "encoder"
    held = held_by_sampler(model, format_name, rules.version, beside.kernels, settings.max_num_seqs)
    inside = graphs_inside(server.asked, rules)
    graphs = NO_GRAPHS
    if not settings.enforce_eager:
        drafted = sum(group.count for group in draft_layers(model, settings.speculation)) if samples else 0
        # No log shows the V2 runner's graphs: its range is that of other cards.
        is_v2 = runs_v2(model, format_name, rules.version)
        graphs = cuda_graphs(
            model,
            settings.largest_capture,
            "" if is_v2 else beside.architecture,
            rules.version,
            drafted,
            estimated=inside and not is_v2,
        )
    overhead = server.asked.overhead_bytes
    after: list[Component] = []
    draft = None
    if samples:
        draft = draft_bytes(model, settings.speculation, tensor, parallel.expert, rules.version)
    if draft is not None:
        after.append(Component("draft_model", draft, "weights; its cache is in the pool"))
    frames = ipc_bytes(server.asked) if stage == 0 and settings.sees and has_towers(model) else 0
    if frames:
        after.append(Component("multimodal", exact(frames, "--mm-ipc-gpu-memory-gb")))
    if server.asked.option("enable_lora"):
        from kvplan.engines.vllm.adapters import adapter_bytes

        after.append(Component("adapters", adapter_bytes(model, server.asked, tensor, pipeline, stage)))
    if inside and graphs.high and overhead is None:
        after.append(Component("cuda_graphs", graphs))
    if overhead is None:
        runtime = non_torch(num_ranks, beside, loaded.expected, rules.version)
    else:
        # One figure stands for all that is estimated beside weights and cache.
        runtime = exact(overhead, "--overhead, activations and graphs included")
    after.append(Component("runtime", runtime))
    weights = Component("weights", on_device(loaded, server.asked))
    # Mostly what the profile run left free serves the warm-up; two gpt-oss-20b servers died in it
    # whose room beside the pool was smaller than the logits.
    warm_up = Quantity(0, 0, WARM_UP_COPIES * terms.logits if samples else 0, "calibrated", WARM_UP_WHY)
    fixed = total((weights.bytes, *(part.bytes for part in after)))
    activation = ZERO
    if overhead is None:
        activation = activations(terms, model, 0, held, beside.kernels, samples=samples, sees=settings.sees)
    return Share(
        server=server,
        stage=stage,
        weights=weights,
        after=tuple(after),
        fixed=fixed,
        taken=before_snapshot(num_ranks, beside),
        outside=warm_up if inside else warm_up + graphs,
        terms=terms,
        samples=samples,
        activation=activation,
        beside=fixed + activation,
        behind=(*activation_parts(activation), *after),
        overhead_is_given=overhead is not None,
        held=held,
        kernels=beside.kernels,
    )


def activation_parts(activation: Quantity) -> tuple[Component, ...]:
    """Return the activations as a component, where there are any."""
    return (Component("activations", activation),) if activation.high else ()


def whole_towers(server: Server) -> bool:
    """Tell whether every rank has all of a tower: asked for, or Mistral's own format.

    vLLM 0.19 models/pixtral.py: the tower that Mistral's own files load into is not split;
    transformers_utils/config.py: since 0.12 those files go first where a repository has them, as
    Mistral's own do.
    """
    if server.asked.option("mm_encoder_tp_mode") == "data":
        return True
    formats = (server.asked.option("load_format"), server.asked.option("config_format"))
    if "mistral" in formats or "hf" in formats:
        return "mistral" in formats
    is_published = server.format_name == format_name_of(server.model, None)
    owner = (server.model.repo or "").partition("/")[0]
    return server.rules.version >= MISTRAL_FILES_FIRST and is_published and owner == "mistralai"


def graphs_inside(workload: Workload, rules: Behaviour) -> bool:
    """Tell whether captured graphs come off the pool: VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS, its default.

    The variable is new in 0.18.
    """
    asked = workload.option("estimate_cudagraphs")
    if isinstance(asked, bool) and rules.version >= ESTIMATES_SINCE:
        return asked
    return rules.graphs_inside


def fixed_pool_bytes(settings: Settings, layout: Layout, stage: int) -> int | None:
    """Return the bytes of a pool that the flags fix on one stage; None where the card's share decides."""
    if settings.num_gpu_blocks_override:
        return settings.num_gpu_blocks_override * layout.pool.stage_bytes_per_block[stage]
    return settings.kv_cache_memory_bytes or None
