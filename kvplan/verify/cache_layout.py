"""A plan's cache as tensors: which layers, how many of each, in which shapes.

Derived from the model's layers and the engine's layout; the plan's own byte counts are only carried
along, to be compared with.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from kvplan.engines.base import Plan
from kvplan.errors import CannotTell
from kvplan.frozen import dataclass
from kvplan.verify.storage import TensorShape

LAYOUTS: dict[str, str] = {
    "ideal": "ideal_layout",
    "transformers": "transformers_layout",
    "vllm": "vllm_layout",
    "llama.cpp": "llama_cpp_layout",
    "ollama": "llama_cpp_layout",
    "sglang": "sglang_layout",
    "tensorrt-llm": "tensorrt_llm_layout",
    "tgi": "tgi_layout",
    "lmdeploy": "lmdeploy_layout",
}


@dataclass(frozen=True, slots=True)
class LayoutGroup:
    """``num_layers`` layers that are alike: the tensors of one of them, allocated for each.

    ``planned_bytes`` is what the plan says of them all, None where it says it only of the whole.
    ``beside`` tells that the engine allocates it with the cache, and the plan counts it elsewhere than
    in the cache's total (padding pages, spare slots, tables of positions). ``unit`` names what
    ``num_layers`` counts where one tensor holds several layers.
    """

    name: str
    num_layers: int
    tensors: tuple[TensorShape, ...]
    planned_bytes: int | None = None
    detail: str = ""
    beside: bool = False
    unit: str = "layer"

    @property
    def layer_bytes(self) -> int:
        """What one layer's tensors take."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    @property
    def num_bytes(self) -> int:
        """What all layers' tensors take."""
        return self.layer_bytes * self.num_layers


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Every tensor of a plan's cache, and those beside it.

    ``num_layers_left_out`` counts the layers that scaling down dropped, ``beside_left_out`` names what
    it dropped beside them.
    """

    groups: tuple[LayoutGroup, ...]
    num_layers_left_out: int = 0
    beside_left_out: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """What all tensors take."""
        return sum(group.num_bytes for group in self.groups)

    @property
    def cache_bytes(self) -> int:
        """What the cache itself takes: all but what lies beside it."""
        return sum(group.num_bytes for group in self.groups if not group.beside)

    @property
    def num_layers(self) -> int:
        """How many layers (or slots of a pool) are allocated."""
        return sum(group.num_layers for group in self.groups if not group.beside)


def layout_of(plan: Plan) -> CacheLayout:
    """Return the tensors of a plan's cache.

    Raises CannotTell for an engine whose layout is not written down, and for layers that its policy
    does not model (there is nothing exact to hold against).
    """
    module = LAYOUTS.get(plan.engine_name)
    if module is None:
        raise CannotTell(
            f"how {plan.engine_name} lays out its cache is not written down here",
            why=f"layouts are known for {', '.join(LAYOUTS)}",
            hint="add --engine vllm, or read the server's log: kvplan verify --log FILE",
        )
    if plan.cache.total.basis == "assumed":
        raise CannotTell(
            f"{plan.engine_name}'s cache for {plan.model.name} is assumed, not exact",
            why=next((one.message for one in plan.warnings if one.code == "layer-not-modelled"), "")
            or plan.cache.total.why
            or "some layers are not modelled under this engine",
            hint="add --engine transformers, whose caches are measured, or --engine ideal",
        )
    layout: Callable[[Plan], CacheLayout] = import_module(f"kvplan.verify.{module}").layout
    return layout(plan)


def with_planned(plan: Plan, groups: tuple[LayoutGroup, ...], num_copies: int) -> CacheLayout:
    """Give each group what the plan says of its kind, where the plan's kinds add up to its total.

    ``groups`` are in the order of the plan's; ``num_copies`` sequences are planned.
    """
    said = plan.cache.groups
    amounts = [group.bytes_per_sequence * num_copies for group in said]
    if len(groups) != len(said) or sum(amounts) != plan.cache.total.expected:
        return CacheLayout(groups)
    return CacheLayout(
        tuple(replace(group, planned_bytes=planned) for group, planned in zip(groups, amounts, strict=True))
    )


def scaled_down(layout: CacheLayout, limit_bytes: int) -> CacheLayout:
    """Drop layers until the rest fits, keeping at least one of each kind that stores something.

    What lies beside the layers goes first. Raises CannotTell when one layer of each kind is already too much.
    """
    if layout.num_bytes <= limit_bytes:
        return layout
    beside = tuple(group.name for group in layout.groups if group.beside)
    if beside:
        layers = tuple(group for group in layout.groups if not group.beside)
        return scaled_down(replace(layout, groups=layers, beside_left_out=beside), limit_bytes)
    least = sum(group.layer_bytes for group in layout.groups)
    if least > limit_bytes:
        raise CannotTell(
            f"one layer of each kind takes {least:,} bytes, more than {limit_bytes:,}",
            why="a layer is the least that can be measured",
            hint="ask for a shorter --ctx or a smaller --batch",
        )
    kept: list[LayoutGroup] = []
    spare, more = limit_bytes - least, layout.num_bytes - least
    for group in layout.groups:
        # The same share of every kind.
        extra = (group.num_layers - 1) * spare // more if more else 0
        num_layers = min(group.num_layers, 1 + extra) if group.layer_bytes else group.num_layers
        planned = group.planned_bytes
        if planned is not None:
            planned = planned * num_layers // group.num_layers
        kept.append(replace(group, num_layers=num_layers, planned_bytes=planned))
    dropped = layout.num_layers - sum(group.num_layers for group in kept)
    return CacheLayout(tuple(kept), dropped, layout.beside_left_out)
