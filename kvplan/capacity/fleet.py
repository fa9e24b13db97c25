"""How many GPUs a number of sessions needs: replicas x tensor x pipeline ranks, each shape planned.

Two answers: every session at its full context, which is what reserving needs, and sessions that hold
``live_tokens`` on average in a pool of blocks, which is true while they do. A shape (tensor, pipeline)
is legal when the engine starts with it; how many sessions one replica of it holds is asked of the
engine, so block rounding, slots and ``max_num_seqs`` are included.
"""

from dataclasses import replace
from math import ceil

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.errors import KvplanError
from kvplan.frozen import dataclass
from kvplan.judge import DEFAULT_RULES, Rules, Status, judge, succeeds
from kvplan.model import ModelSpec, num_layers
from kvplan.plan import plan
from kvplan.solve import MAX_SEQUENCES, max_context, max_sequences
from kvplan.units import ceil_div
from kvplan.workload import Workload

GPUS_PER_NODE = 8
MAX_GPUS_PER_REPLICA = 64
# Engines that split heads over ranks; the others hand out layers.
SPLITS_HEADS = ("vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi")
# Kinds of cache that grow by the same bytes with every token.
GROWING = ("full_attention", "latent_attention")


@dataclass(frozen=True, slots=True)
class Shape:
    """One replica: ``tensor`` x ``pipeline`` GPUs, and the sessions it holds with what stops more.

    ``pool_tokens`` is the pool in tokens where every token costs the same, else None.
    """

    tensor: int
    pipeline: int
    num_sessions: int
    binding: str
    plan: Plan
    pool_tokens: int | None = None

    @property
    def num_gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.pipeline


@dataclass(frozen=True, slots=True)
class Fleet:
    """``replicas`` of a shape that together hold the sessions.

    ``max_live_tokens`` is how much each session may hold on average, ``num_nodes`` how many machines
    that is with ``gpus_per_node`` GPUs in each; ``status`` is the verdict on one replica under its
    load: every session in full where contexts are reserved, one of them in a paged pool.
    """

    shape: Shape
    replicas: int
    num_gpus: int
    num_nodes: int
    max_live_tokens: int
    status: Status = "fits"

    @property
    def layout(self) -> str:
        """The layout in words: ``2 × TP4``."""
        ranks = [
            f"{letter}{count}"
            for letter, count in (("TP", self.shape.tensor), ("PP", self.shape.pipeline))
            if count > 1
        ]
        one = " × ".join(ranks) or "1 GPU"
        return one if self.replicas == 1 else f"{self.replicas} × {one}"


@dataclass(frozen=True, slots=True)
class Site:
    """Where replicas are built: one kind of card, an engine, and how many cards a machine has.

    ``max_gpus_per_replica`` is 1 where machines hold a fraction of a card.
    """

    model: ModelSpec
    workload: Workload
    device: Device
    engine: Engine
    rules: Rules = DEFAULT_RULES
    gpus_per_node: int = GPUS_PER_NODE
    max_gpus_per_replica: int = MAX_GPUS_PER_REPLICA


def reserved_fleet(site: Site, num_sessions: int, *, tensor_only: bool = False) -> Fleet | None:
    """Return the fewest GPUs that hold every session at its full context; None if no shape does."""
    return _smallest(site, num_sessions, None, tensor_only=tensor_only)


def paged_fleet(site: Site, num_sessions: int, live_tokens: float) -> Fleet | None:
    """Return the fewest GPUs that hold the sessions while they average ``live_tokens``."""
    return _smallest(site, num_sessions, live_tokens, tensor_only=False)


def _smallest(site: Site, num_sessions: int, live_tokens: float | None, *, tensor_only: bool) -> Fleet | None:
    best: tuple[tuple[int, int, int], Shape] | None = None
    for tensor in _widths(site):
        layers = 1 if tensor_only else max(1, num_layers(site.model.structure))
        for pipeline in range(1, min(layers, site.max_gpus_per_replica // tensor) + 1):
            if best is not None and tensor * pipeline > best[0][0]:
                break
            shape = _shape(site, tensor, pipeline, live_tokens)
            if shape is None or not shape.num_sessions:
                continue
            replicas = ceil_div(num_sessions, shape.num_sessions)
            # Among equals the fewest stages: they add latency, and layers do not divide evenly.
            order = (replicas * shape.num_gpus, shape.pipeline, replicas)
            if best is None or order < best[0]:
                best = order, shape
            if replicas == 1:
                break
    if best is None:
        return None
    (num_gpus, _, replicas), shape = best
    each = ceil_div(num_sessions, replicas) if live_tokens is None else 1
    loaded = replace(shape.plan.workload, num_sequences=each)
    full = plan(site.model, loaded, (site.device,) * shape.num_gpus, site.engine)
    return Fleet(
        shape,
        replicas,
        num_gpus,
        _num_nodes(shape, replicas, site.gpus_per_node),
        _max_live_tokens(site, shape, ceil_div(num_sessions, replicas)),
        judge(full, site.rules).status,
    )


def _widths(site: Site) -> tuple[int, ...]:
    """Return the tensor-parallel sizes that the engine starts with, within one machine."""
    if site.engine.name not in SPLITS_HEADS:
        return (1,)
    fixed = site.workload.tensor_parallel
    sizes = (fixed,) if fixed else range(1, site.gpus_per_node + 1)
    return tuple(ranks for ranks in sizes if _starts(site, ranks))


def _num_nodes(shape: Shape, replicas: int, gpus_per_node: int) -> int:
    """Return the machines: tensor ranks of a stage stay in one."""
    stages_per_node = max(1, gpus_per_node // shape.tensor)
    return ceil_div(replicas * shape.pipeline, stages_per_node)


def _max_live_tokens(site: Site, shape: Shape, num_sessions: int) -> int:
    if shape.pool_tokens is not None:
        # An average: to the nearest token.
        return round(shape.pool_tokens / num_sessions)
    asked = replace(_asked(site, shape.tensor, shape.pipeline), num_sequences=num_sessions)
    return max_context(site.model, asked, (site.device,) * shape.num_gpus, site.engine, site.rules)


def _asked(site: Site, tensor: int, pipeline: int) -> Workload:
    if site.engine.name not in SPLITS_HEADS:
        return replace(site.workload, tensor_parallel=0, pipeline_parallel=0)
    return replace(site.workload, tensor_parallel=tensor, pipeline_parallel=pipeline)


def _starts(site: Site, tensor: int) -> bool:
    try:
        result = plan(site.model, _asked(site, tensor, 1), (site.device,) * tensor, site.engine)
    except KvplanError:
        return False
    return not result.refusals


def _shape(site: Site, tensor: int, pipeline: int, live_tokens: float | None) -> Shape | None:
    devices = (site.device,) * (tensor * pipeline)
    asked = replace(_asked(site, tensor, pipeline), num_sequences=1)
    try:
        one = plan(site.model, asked, devices, site.engine)
    except KvplanError:
        return None
    if not succeeds(one, site.rules):
        return None
    limit = one.sequence_limit or MAX_SEQUENCES
    pool_tokens = _pool_tokens(one)
    if live_tokens is None:
        held = max_sequences(site.model, asked, devices, site.engine, site.rules, limit)
    elif pool_tokens is not None:
        held = min(limit, int(pool_tokens / live_tokens))
    else:
        shorter = replace(asked, context_tokens=ceil(live_tokens), context_source="trace")
        held = max_sequences(site.model, shorter, devices, site.engine, site.rules, limit)
    binding = "kv_pool"
    if one.sequence_limit is not None and held >= limit:
        binding = one.sequence_limit_name or "max_num_seqs"
    elif one.cache.state_bytes_per_sequence * 2 > one.cache.bytes_per_sequence:
        binding = "state_slots"
    return Shape(tensor, pipeline, held, binding, one, pool_tokens)


def _pool_tokens(one: Plan) -> int | None:
    if one.kv_cache_tokens is None or any(group.kind not in GROWING for group in one.cache.groups):
        return None
    return one.kv_cache_tokens
