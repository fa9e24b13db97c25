"""One rank's share of the weights: tensor parallelism by the tensors' own splits, pipelines by layer.

Vocabulary rows are padded to 64 before they are split (vLLM
model_executor/layers/vocab_parallel_embedding.py; SGLang alike); key and value projections are
replicated when there are fewer heads than ranks.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from kvplan.gguf.mix import mix_bytes
from kvplan.layers import Cache, LayerGroup
from kvplan.model import ModelSpec, num_layers
from kvplan.tensors import Tensor
from kvplan.units import ceil_div, round_up
from kvplan.weight_formats import weight_format
from kvplan.weights import span_bytes, stored_bytes, weight_bytes

VOCAB_PADDING = 64
ATTENTION_ROLES = frozenset(("attention", "indexer", "recurrent"))


def pipeline_split(num_hidden_layers: int, pipeline: int) -> tuple[int, ...]:
    """Return the layers of each pipeline rank: even, what remains from the second-last backwards.

    vLLM 0.33 distributed/utils.py get_pp_indices: the last rank, which samples, gets no extra layer.
    """
    sizes = [num_hidden_layers // pipeline] * pipeline
    for offset in range(num_hidden_layers % pipeline):
        sizes[(pipeline - 2 - offset) % pipeline] += 1
    return tuple(sizes)


def stage_groups(layers: tuple[LayerGroup, ...], start: int, count: int) -> tuple[LayerGroup, ...]:
    """Return the layers ``start`` to ``start + count`` of a run-length encoded list."""
    groups: list[LayerGroup] = []
    position = 0
    for group in layers:
        first, last = max(start, position), min(start + count, position + group.count)
        if first < last:
            groups.append(LayerGroup(group.layer, last - first))
        position += group.count
    return tuple(groups)


@lru_cache(maxsize=1024)
def stage_caches(model: ModelSpec, pipeline: int, stage: int) -> tuple[tuple[Cache, int], ...]:
    """Return each distinct cache of a stage's layers with how many of them hold it (``pipeline_split``)."""
    sizes = pipeline_split(num_layers(model.structure), pipeline)
    counts: Counter[Cache] = Counter()
    for group in stage_groups(model.layers, sum(sizes[:stage]), sizes[stage]):
        for cache in group.layer.caches:
            counts[cache] += group.count
    return tuple(counts.items())


def rank_share(tensor: Tensor, num_bytes: int, tensor_ranks: int, expert_ranks: int) -> int:
    """Return the bytes of a tensor on one rank.

    ``expert_ranks`` > 1 gives each rank whole experts (expert parallelism); otherwise experts are
    split like any other projection.
    """
    if tensor.role == "expert" and expert_ranks > 1:
        return ceil_div(num_bytes * ceil_div(tensor.count, expert_ranks), tensor.count)
    if tensor_ranks == 1 and tensor.split != "vocab":
        return num_bytes
    match tensor.split:
        case "out" | "in":
            return ceil_div(num_bytes, tensor_ranks)
        case "kv":
            return ceil_div(num_bytes, min(tensor_ranks, max(1, tensor.num_heads)))
        case "vocab":
            rows = tensor.shape[0]
            return num_bytes * (round_up(rows, VOCAB_PADDING) // tensor_ranks) // rows
        case _:
            return num_bytes


@lru_cache(maxsize=4096)
def stage_weight_bytes(
    model: ModelSpec,
    format_name: str,
    tensor_ranks: int,
    pipeline: int,
    expert_ranks: int,
    stage: int,
    sizes: tuple[int, ...] = (),
) -> int:
    """Return the weight bytes of one rank of pipeline ``stage``.

    The first stage holds the embedding and what lies before the layers, the last the head and the
    final norm; a tied embedding lies on both. GGUF mixes and headers are divided by layer bytes.
    ``sizes`` are the layers of each stage where the engine does not split as vLLM does.
    """
    total_layers = num_layers(model.structure)
    sizes = sizes or pipeline_split(total_layers, pipeline)
    start = sum(sizes[:stage])
    weight = weight_format(format_name)
    if weight.family == "gguf":
        return _mix_share(model, format_name, tensor_ranks, start, sizes[stage], total_layers)
    if model.stored and weight.name == model.weights_format and tensor_ranks * pipeline == 1:
        return weight_bytes(model, format_name).expected
    return sum(
        each * times
        for _, each, times in stage_tensors(
            model, format_name, tensor_ranks, pipeline, expert_ranks, stage, sizes
        )
    )


@lru_cache(maxsize=1024)
def stage_tensors(
    model: ModelSpec,
    format_name: str,
    tensor_ranks: int,
    pipeline: int,
    expert_ranks: int,
    stage: int,
    sizes: tuple[int, ...] = (),
) -> tuple[tuple[Tensor, int, int], ...]:
    """Return (tensor, bytes on one rank, how often) of every tensor that a rank of ``stage`` holds.

    ``sizes`` as for ``stage_weight_bytes``.
    """
    sizes = sizes or pipeline_split(num_layers(model.structure), pipeline)
    held: list[tuple[Tensor, int, int]] = []
    for tensor, count, stored in _stored(model, format_name, sum(sizes[:stage]), sizes[stage]):
        if stored % count == 0:
            held.append((tensor, rank_share(tensor, stored // count, tensor_ranks, expert_ranks), count))
        else:
            held.append((tensor, rank_share(tensor, stored, tensor_ranks, expert_ranks), 1))
    is_first, is_last = stage == 0, stage == pipeline - 1
    for tensor, num_bytes in stored_bytes(model, format_name).outside:
        if _on_stage(tensor, is_first=is_first, is_last=is_last, tied=model.structure.tie_word_embeddings):
            held.append((tensor, rank_share(tensor, num_bytes, tensor_ranks, expert_ranks), 1))
    return tuple(held)


def _stored(
    model: ModelSpec, format_name: str, first: int, num_held: int
) -> Iterator[tuple[Tensor, int, int]]:
    """Yield each tensor of ``num_held`` layers from ``first`` on: in how many, its bytes in all of them."""
    if num_held == num_layers(model.structure):
        for group, tensors in zip(model.layers, stored_bytes(model, format_name).groups, strict=True):
            for tensor, spans in tensors:
                yield tensor, group.count, sum(each * times for each, times in spans)
        return
    weight = weight_format(format_name)
    for group in stage_groups(model.layers, first, num_held):
        for tensor in group.layer.tensors:
            yield tensor, group.count, span_bytes(model, weight, tensor, first, group.count)
        first += group.count


def attention_replicas(
    model: ModelSpec,
    format_name: str,
    tensor_ranks: int,
    attention_ranks: int,
    groups: tuple[LayerGroup, ...],
    first: int,
) -> int:
    """Return what a rank holds more where attention is split over fewer ranks than the rest.

    Data-parallel attention keeps whole heads for its own requests: attention, indexers and states
    are split over ``attention_ranks``, the embedding (with the first layer) not at all, experts and
    MLPs over all. ``groups`` are the stage's layers from ``first`` on.
    """
    weight = weight_format(format_name)

    def extra(tensor: Tensor, stored: int, ranks: int) -> int:
        return rank_share(tensor, stored, ranks, 1) - rank_share(tensor, stored, tensor_ranks, 1)

    amount, start = 0, first
    for group in groups:
        for tensor in group.layer.tensors:
            if tensor.role in ATTENTION_ROLES:
                stored = span_bytes(model, weight, tensor, start, group.count)
                amount += extra(tensor, stored // group.count, attention_ranks) * group.count
        start += group.count
    if first == 0:
        for tensor in model.structure.tensors:
            if tensor.role == "embedding":
                amount += extra(tensor, span_bytes(model, weight, tensor, None, 1), 1)
    return amount


def _on_stage(tensor: Tensor, *, is_first: bool, is_last: bool, tied: bool) -> bool:
    if tensor.role in {"lm_head", "norm"}:
        return is_last
    if tensor.role == "embedding":
        return is_first or (is_last and tied)
    return is_first


def _mix_share(
    model: ModelSpec, format_name: str, tensor_ranks: int, start: int, count: int, total_layers: int
) -> int:
    sizes = mix_bytes(model, format_name)
    amount = sum(sizes.layer_bytes[start : start + count])
    if start == 0:
        amount += sizes.embedding_bytes
    if start + count == total_layers:
        amount += sizes.output_bytes + sizes.output_norm_bytes
        if not sizes.output_bytes and start > 0:
            amount += sizes.embedding_bytes
    return ceil_div(amount, tensor_ranks)
