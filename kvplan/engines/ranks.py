"""How GPUs are laid out for an engine that shards layers: as asked, else all of them over each layer.

Tensor parallelism over every GPU if heads and padded vocabulary divide, else pipeline parallelism.
"""

from collections.abc import Callable

from kvplan.engines.base import Parallel, Refusal
from kvplan.errors import OptionClash
from kvplan.layers import ChunkedAttention, FullAttention, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds, num_layers
from kvplan.sharding import VOCAB_PADDING
from kvplan.units import round_up
from kvplan.workload import Workload


def parallel_of(
    model: ModelSpec, workload: Workload, num_devices: int, data: int, expert: int, *, replicas_share: bool
) -> tuple[Parallel, tuple[Refusal, ...]]:
    """Return the layout and what the engine refuses of it.

    ``data`` replicas take as many GPUs each, unless they share them (``replicas_share``: data-parallel
    attention). Raises OptionClash when the replicas cannot be alike.
    """
    replicas = 1 if replicas_share else data
    tensor, pipeline = layout_of(
        model, workload, num_devices, replicas, f"{data} data-parallel replicas do not divide"
    )
    refusals: list[Refusal] = []
    if not divides(model, tensor):
        works = max(ranks for ranks in range(1, tensor + 1) if divides(model, ranks))
        heads = model.structure.num_attention_heads
        rows = round_up(model.structure.vocab_size, VOCAB_PADDING)
        odd = heads if heads % tensor else rows
        code = "heads-not-divisible" if heads % tensor else "vocabulary-not-divisible"
        refusals.append(Refusal(code, f"{odd} is not divisible by {tensor}", f"--tp {works}"))
    pipeline, too_many = within_layers(model, pipeline)
    return Parallel(tensor, pipeline, data, expert), (*refusals, *too_many)


def tensor_only(
    model: ModelSpec,
    workload: Workload,
    num_devices: int,
    engine: str,
    kv_heads_split: Callable[[int, int], bool],
) -> tuple[Parallel, tuple[Refusal, ...]]:
    """Return the layout of an engine without pipelines, and what it refuses of it.

    ``engine`` is its name for people; ``kv_heads_split`` tells whether so many KV heads can be split
    over so many ranks.
    """
    pipeline = max(1, workload.pipeline_parallel)
    tensor = workload.tensor_parallel or max(1, num_devices // pipeline)
    refusals: list[Refusal] = []
    if pipeline > 1:
        refusals.append(Refusal("no-pipeline", f"{engine} has no pipeline parallelism", "--pp 1"))
    heads = model.structure.num_attention_heads
    kv_heads = {
        cache.num_key_value_heads
        for cache, _ in cache_kinds(model)
        if isinstance(cache, FullAttention | SlidingWindow | ChunkedAttention)
    }

    def splits(ranks: int) -> bool:
        return heads % ranks == 0 and all(kv_heads_split(count, ranks) for count in kv_heads)

    if not splits(tensor):
        works = max(ranks for ranks in range(1, tensor + 1) if splits(ranks))
        if heads % tensor:
            code, odd = "heads-not-divisible", f"{heads}"
        else:
            code, odd = "kv-heads-not-divisible", f"{min(kv_heads)} KV heads"
        verb = "cannot be split over" if kv_heads and not heads % tensor else "is not divisible by"
        refusals.append(Refusal(code, f"{odd} {verb} {tensor}", f"--tp {works}"))
    return Parallel(tensor), tuple(refusals)


def layout_of(
    model: ModelSpec, workload: Workload, num_devices: int, replicas: int, complaint: str
) -> tuple[int, int]:
    """Return a replica's tensor and pipeline ranks: what was asked, the rest from its GPUs.

    Raises OptionClash, beginning with ``complaint``, when the replicas do not divide the GPUs.
    """
    if num_devices % replicas:
        raise OptionClash(
            f"{complaint} {num_devices} GPUs",
            why="every replica takes the same number of GPUs",
            hint=f"name a multiple of {replicas} GPUs",
        )
    each = max(1, num_devices // replicas)
    tensor, pipeline = workload.tensor_parallel, workload.pipeline_parallel
    if not tensor and not pipeline:
        return (each, 1) if divides(model, each) else (1, each)
    return tensor or max(1, each // pipeline), pipeline or max(1, each // tensor)


def within_layers(model: ModelSpec, pipeline: int) -> tuple[int, tuple[Refusal, ...]]:
    """Return the pipeline ranks that the layers allow, and the refusal where more were asked."""
    layers = num_layers(model.structure)
    if pipeline <= layers:
        return pipeline, ()
    message = f"{layers} layers cannot be split over {pipeline} pipeline ranks"
    return layers, (Refusal("too-few-layers", message, f"--pp {layers}"),)


def divides(model: ModelSpec, ranks: int) -> bool:
    """Tell whether heads and padded vocabulary divide over ``ranks``."""
    structure = model.structure
    rows = round_up(structure.vocab_size, VOCAB_PADDING)
    return structure.num_attention_heads % ranks == 0 and rows % ranks == 0
