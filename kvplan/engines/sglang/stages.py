"""What each pipeline stage's ranks hold under SGLang: layers, rows, states, weights.

SGLang 0.5.23 srt/distributed/utils.py (get_pp_indices: what does not divide goes to the last stages)
and srt/layers/dp_attention.py (data-parallel attention: attention and embedding are split over the
attention group only, experts and MLPs over all ranks). Vision towers are split like the text model.
"""

from dataclasses import dataclass
from functools import lru_cache

from kvplan.dtypes import weight_format
from kvplan.engines.sglang.cells import Cells, cells_of, is_compressed
from kvplan.engines.sglang.compressed import CompressedLayout, layout_of
from kvplan.engines.sglang.settings import Layout
from kvplan.layers import LayerGroup
from kvplan.model import ModelSpec, num_layers
from kvplan.sharding import rank_share, stage_groups, stage_weight_bytes
from kvplan.tensors import Tensor
from kvplan.weights import span_bytes

ATTENTION_ROLES = frozenset(("attention", "indexer", "recurrent"))


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage's rank.

    ``state_bytes`` are one request's states as the stage with most of them has them: SGLang charges
    every stage alike. ``compressed`` is set for DeepSeek-V4.
    """

    weight_bytes: int
    cells: Cells
    state_bytes: int
    compressed: CompressedLayout | None


@dataclass(frozen=True, slots=True)
class Ranks:
    """How weights are spread: over a layer, over stages, over experts, and in attention groups."""

    tensor: int
    pipeline: int
    expert: int
    attention_dp: int


def pipeline_sizes(layers: int, pipeline: int) -> tuple[int, ...]:
    """Return the layers of each stage: even, one more on each of the last where they do not divide."""
    each, extra = divmod(layers, pipeline)
    return tuple(each + (1 if stage >= pipeline - extra else 0) for stage in range(pipeline))


@lru_cache(maxsize=2048)
def stages_of(model: ModelSpec, format_name: str, ranks: Ranks, layout: Layout) -> tuple[Stage, ...]:
    """Return every stage of a model in a format."""
    sizes = pipeline_sizes(num_layers(model.structure), ranks.pipeline)
    starts = [sum(sizes[:stage]) for stage in range(len(sizes))]
    parts = [stage_groups(model.layers, start, size) for start, size in zip(starts, sizes, strict=True)]
    cells = [cells_of(part, layout) for part in parts]
    whole = cells_of(model.layers, layout)
    per_request = 0
    if whole.num_state_layers:
        most = max(part.num_state_layers for part in cells)
        per_request = int(whole.state_bytes * (most / whole.num_state_layers))
    stages: list[Stage] = []
    for stage, part in enumerate(parts):
        weights = stage_weight_bytes(
            model, format_name, ranks.tensor, ranks.pipeline, ranks.expert, stage, sizes
        )
        if stage == 0 and ranks.tensor > 1:
            weights -= _vision_split(model, format_name, ranks.tensor)
        if ranks.attention_dp > 1:
            weights += _attention_dp_extra(model, format_name, ranks, part, starts[stage], stage)
        compressed = layout_of(part) if is_compressed(part) else None
        stages.append(Stage(weights, cells[stage], per_request, compressed))
    return tuple(stages)


def _vision_split(model: ModelSpec, format_name: str, tensor: int) -> int:
    """Return what a rank is spared because a vision tower's projections are split like any other.

    Unless --mm-enable-dp-encoder replicates them; biases, positions and patches stay whole.
    """
    weight = weight_format(format_name)
    whole = sum(
        span_bytes(model, weight, part, None, 1)
        for part in model.structure.tensors
        if part.role == "vision" and part.split == "none" and len(part.shape) == 2
    )
    return whole - whole // tensor


def _attention_dp_extra(
    model: ModelSpec, format_name: str, ranks: Ranks, groups: tuple[LayerGroup, ...], first: int, stage: int
) -> int:
    """Return what a rank holds more because attention is split over fewer ranks."""
    weight = weight_format(format_name)
    fewer = max(1, ranks.tensor // ranks.attention_dp)

    def extra(tensor: Tensor, stored: int, split: int) -> int:
        return rank_share(tensor, stored, split, 1) - rank_share(tensor, stored, ranks.tensor, 1)

    amount, start = 0, first
    for group in groups:
        for tensor in group.layer.tensors:
            if tensor.role in ATTENTION_ROLES:
                stored = span_bytes(model, weight, tensor, start, group.count)
                amount += extra(tensor, stored // group.count, fewer) * group.count
        start += group.count
    if stage == 0:
        for tensor in model.structure.tensors:
            if tensor.role == "embedding":
                amount += extra(tensor, span_bytes(model, weight, tensor, None, 1), 1)
    return amount
