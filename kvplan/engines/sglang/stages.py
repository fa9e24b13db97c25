"""What each pipeline stage's ranks hold under SGLang: layers, rows, states, weights.

SGLang 0.5.23 srt/distributed/utils.py (get_pp_indices: what does not divide goes to the last stages)
and srt/layers/dp_attention.py (data-parallel attention: attention and embedding are split over the
attention group only, experts and MLPs over all ranks). Vision towers are split like the text model.
"""

from functools import lru_cache

from kvplan.engines.sglang.cells import Cells, cells_of, is_compressed
from kvplan.engines.sglang.compressed import CompressedLayout, layout_of
from kvplan.engines.sglang.settings import Layout
from kvplan.frozen import dataclass
from kvplan.layers import LayerGroup
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Quantity, exact
from kvplan.sharding import attention_replicas, rank_share, stage_groups, stage_weight_bytes
from kvplan.units import GIB
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of, span_bytes, tensor_bytes


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage's rank.

    ``state_bytes`` are one request's states as the stage with most of them has them: SGLang charges
    every stage alike. ``compressed`` is set for DeepSeek-V4. ``draft_weights`` are those of the
    prediction layers that speculation without a draft model loads, on the last stage.
    """

    weight_bytes: int
    draft_weights: Quantity
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
            fewer = max(1, ranks.tensor // ranks.attention_dp)
            weights += attention_replicas(model, format_name, ranks.tensor, fewer, part, starts[stage])
        compressed = layout_of(part) if is_compressed(part) else None
        draft = exact(0)
        if stage == len(parts) - 1 and layout.draft_layers:
            draft = _draft_weights(model, format_name, ranks.tensor, layout)
        stages.append(Stage(weights, draft, cells[stage], per_request, compressed))
    return tuple(stages)


def _draft_weights(model: ModelSpec, format_name: str, tensor: int, layout: Layout) -> Quantity:
    """Return a rank's prediction layers; where nothing describes them, as large as the last layer.

    A draft model of its own is sharded like the model, in the format it is published in; where it is
    not known (``draft_path`` alone) it may be far larger: the upper bound is 4 GiB.
    """
    if model.draft is not None:
        own = stage_weight_bytes(model.draft, format_name_of(model.draft, None), tensor, 1, 1, 0)
        return exact(own, f"{model.draft.name} in {format_name_of(model.draft, None)}")
    weight = weight_format(format_name)
    groups = model.structure.mtp_layers or (LayerGroup(model.layers[-1].layer, layout.draft_layers),)
    parts = [(part, group.count) for group in groups for part in group.layer.tensors]
    parts += [(part, 1) for part in model.structure.mtp_tensors]
    amount = sum(
        rank_share(part, tensor_bytes(part, weight, model.dtype), tensor, 1) * count for part, count in parts
    )
    if layout.draft_path:
        return Quantity(
            0, amount, max(4 * GIB, 2 * amount), "assumed", "a draft model that is not known here"
        )
    if model.structure.mtp_layers:
        return exact(amount, "the checkpoint's prediction layers")
    return Quantity(amount // 2, amount, 2 * amount, "assumed", "as large as the last layer")


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
