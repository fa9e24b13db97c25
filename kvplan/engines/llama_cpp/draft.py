"""A draft model under llama.cpp: a model and a context of its own beside the first.

llama.cpp common/speculative.cpp common_base_params_to_speculative and common/common.cpp (llama-cpp-python
0.3.36's copy): the draft's context takes the server's own ``-c``, ``-np``, ``-ub`` and FlashAttention, but
its own layers on the GPU and its own cache types, f16 unless ``-ctkd`` and ``-ctvd`` say otherwise;
``-ncmoe`` and ``-ot`` do not reach it. Older servers kept a context a slot.
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.engines.base import Component
from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.placement import place
from kvplan.engines.llama_cpp.settings import Settings, gguf_format, gpu_layers, whole
from kvplan.engines.llama_cpp.use import cells_for
from kvplan.frozen import dataclass
from kvplan.gguf.mix import Layout
from kvplan.model import ModelSpec
from kvplan.quantity import exact
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of
from kvplan.workload import Workload


@dataclass(frozen=True, slots=True)
class Drafting:
    """What a draft model takes: on each device in order, and in system memory."""

    devices: tuple[Component, ...]
    host: Component


def drafting(
    draft: ModelSpec,
    workload: Workload,
    settings: Settings,
    format_name: str,
    shares: Sequence[int],
    layout: Layout,
) -> Drafting:
    """Price ``draft`` beside a server with ``settings``; ``format_name`` is the served model's.

    A draft that is not a GGUF yet is converted to the served model's format. ``shares`` are the weights
    by which layers are split over the devices.
    """
    own = draft_settings(workload, settings)
    stored = draft_format(draft, format_name)
    cells = cells_for(draft, own)
    placed = place(draft, stored, own, tuple(shares), layout)
    compute = compute_buffers(draft, stored, own, cells, tuple(shares), is_cuda=layout == "cuda")
    note = f"{draft.name} {stored}: weights, cache, compute buffer"
    devices = tuple(
        Component("draft_model", exact(held.num_bytes) + buffer, note)
        for held, buffer in zip(placed.devices, compute.cards, strict=True)
    )
    return Drafting(devices, Component("draft_model", exact(placed.host.num_bytes) + compute.host, note))


def draft_settings(workload: Workload, settings: Settings) -> Settings:
    """Return the settings of the draft's context."""
    option = workload.option
    return replace(
        settings,
        n_ctx=whole(option("ctx_size_draft"), 0) or settings.n_ctx,
        n_gpu_layers=gpu_layers(option("n_gpu_layers_draft")),
        type_k=str(option("cache_type_k_draft") or "f16").casefold(),
        type_v=str(option("cache_type_v_draft") or "f16").casefold(),
        n_cpu_moe=0,
        overrides=(),
    )


def draft_format(draft: ModelSpec, format_name: str) -> str:
    """Return the GGUF format the draft is loaded in: its own, else the served model's."""
    own = format_name_of(draft, None)
    if weight_format(own).family == "gguf":
        return own
    return format_name if weight_format(format_name).family == "gguf" else gguf_format(own, explicit=False)
