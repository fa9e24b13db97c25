"""llama.cpp's compute buffers: what one micro-batch's graph needs on each card and on the host.

llama.cpp builds the graph of its largest micro-batch and lets ggml's allocator lay it out
(src/llama-context.cpp sched_reserve). So does kvplan: the graphs are in ``graph``, splits,
lifetimes and packing in ``ggml``. Nothing is fitted; the interval says how far other builds and
cards may be from the version whose rules these are.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from kvplan.dtypes import GGML_TYPES
from kvplan.engines.llama_cpp.cache import Cells, split_layers
from kvplan.engines.llama_cpp.graph.cuda import CELL_STRIDE, flash_attention_runs
from kvplan.engines.llama_cpp.graph.parts import Batch
from kvplan.engines.llama_cpp.graph.reading import model_shape
from kvplan.engines.llama_cpp.graph.shapes import Attention, Latent
from kvplan.engines.llama_cpp.graph.simulate import (
    Placement,
    compute_buffer_sizes,
    is_modelled,
)
from kvplan.engines.llama_cpp.settings import WITHOUT_FLASH_ATTENTION, Settings
from kvplan.frozen import dataclass
from kvplan.gguf.names import llama_cpp_arch
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Basis, Quantity
from kvplan.units import MIB, round_up

# Percent below and above: graphs that equal llama.cpp's breakdowns on CUDA and CPU; the same graphs on
# other backends; architectures whose graph is taken to be Llama's.
CHECKED_MARGIN = (3, 4)
OTHER_BACKEND_MARGIN = (15, 35)
GUESSED_MARGIN = (40, 100)
CHECKED_WHY = "llama.cpp's own graph and allocator, equal to its breakdowns"
OTHER_BACKEND_WHY = "llama.cpp's own graph and allocator; which operations this backend has is not known"
GUESSED_WHY = "the graph of a Llama with these widths: this architecture's own is not known"


@dataclass(frozen=True, slots=True)
class ComputeBuffers:
    """The compute buffer of each card in order, and the host's."""

    cards: tuple[Quantity, ...]
    host: Quantity


@lru_cache(maxsize=16_384)
def compute_buffers(
    model: ModelSpec,
    format_name: str,
    settings: Settings,
    cells: Cells,
    shares: tuple[int, ...],
    *,
    is_cuda: bool = True,
    is_narrow: bool = True,
) -> ComputeBuffers:
    """Return the compute buffers of a context over ``len(shares)`` cards (none: the CPU alone).

    ``shares`` are the weights by which layers are split over the cards. Without ``is_narrow`` the lower
    bound is zero where it takes a graph of its own.
    """
    shape = model_shape(model)
    used = tuple(index for index, share in enumerate(shares) if share > 0)
    cards = used if settings.split_mode == "none" else tuple(range(len(shares)))
    placement = _placed(
        num_layers(model.structure),
        tuple(shares[card] for card in cards),
        settings.n_gpu_layers,
        settings.n_cpu_moe,
        settings.overrides,
        settings.kv_offload,
        settings.op_offload,
    )
    batch = _batch(model, settings, cells, on_cards=bool(cards))
    sizes = compute_buffer_sizes(model, format_name, placement, batch)
    least = sizes
    if placement.is_pipeline and not is_narrow:
        least = (0,) * len(sizes)
    elif placement.is_pipeline:
        # A server pins norms to their layer's card; what --fit measures is larger by a copy of the state.
        least = compute_buffer_sizes(model, format_name, placement, batch, pinned=True)
    amounts = [
        _quantity(shape.arch, size, min(size, low), is_cuda=is_cuda or not cards)
        for size, low in zip(sizes, least, strict=True)
    ]
    nothing = Quantity(0, 0, 0, "exact")
    by_card = dict(zip(cards, amounts[:-1], strict=True))
    return ComputeBuffers(tuple(by_card.get(card, nothing) for card in range(len(shares))), amounts[-1])


@lru_cache(maxsize=4096)
def _placed(
    layers: int,
    shares: tuple[int, ...],
    n_gpu_layers: int,
    n_cpu_moe: int,
    overrides: tuple[tuple[str, str], ...],
    kv_offload: bool,
    op_offload: bool,
) -> Placement:
    """Return where layers, experts and the output go (src/llama-model.cpp load_tensors)."""
    cpu = len(shares)
    offloaded = min(layers + 1, n_gpu_layers) if cpu else 0
    on_host = layers + 1 - offloaded
    on_cards = split_layers(offloaded - 1, shares) if offloaded else ()
    places = (cpu,) * on_host + on_cards if offloaded else (cpu,) * (layers + 1)
    experts = tuple(
        cpu if index < n_cpu_moe or _moves_experts(overrides, index) else place
        for index, place in enumerate(places[:-1])
    )
    return Placement(
        cpu,
        places[:-1],
        experts,
        places[-1],
        kv_offload,
        op_offload,
        has_overrides=bool(overrides) or n_cpu_moe > 0,
    )


def _moves_experts(overrides: Sequence[tuple[str, str]], layer: int) -> bool:
    name = f"blk.{layer}.ffn_up_exps.weight"
    for pattern, buffer in overrides:
        if re.search(pattern, name):
            return buffer.upper().startswith("CPU")
    return False


def _batch(model: ModelSpec, settings: Settings, cells: Cells, *, on_cards: bool) -> Batch:
    tokens = min(settings.n_ubatch, cells.full * cells.num_streams)
    wants = settings.flash_attn and llama_cpp_arch(model) not in WITHOUT_FLASH_ATTENTION
    flash_attn = wants
    if wants and settings.flash_attn_auto and on_cards:
        # The cache was made for it by then. The CPU has a kernel for every head.
        flash_attn = _flash_attention_runs(model, settings.type_k, settings.type_v, cells.full % CELL_STRIDE)
    return Batch(
        num_tokens=round_up(tokens, cells.num_sequences),
        num_sequences=cells.num_sequences,
        num_outputs=min(tokens, settings.num_outputs),
        full=cells.full,
        window=cells.window,
        num_streams=cells.num_streams,
        flash_attn=flash_attn,
        type_k=settings.type_k,
        type_v=settings.type_v,
        values_turned=not wants,
    )


@lru_cache(maxsize=1024)
def _flash_attention_runs(model: ModelSpec, type_k: str, type_v: str, odd_cells: int) -> bool:
    """Tell whether ``--flash-attn auto`` stays on: it is turned off where a layer has no kernel for it.

    A quantized V cache asks for it, and attention then runs on the CPU. ``odd_cells`` are those beyond
    whole strides of the kernels.
    """
    if GGML_TYPES[type_v].block_size > 1:
        return True
    for part in {layer.attention for layer in model_shape(model).layers}:
        match part:
            case Attention():
                key, value = part.head_dim, part.v_head_dim
                each = part.num_heads // max(1, part.num_kv_heads)
            case Latent():
                key, value = part.kv_lora_rank + part.rope_dim, part.kv_lora_rank
                each = part.num_heads
            case _:
                continue
        if not flash_attention_runs(key, value, each, odd_cells, type_k, type_v):
            return False
    return True


def _quantity(arch: str, size: int, least: int, *, is_cuda: bool) -> Quantity:
    basis: Basis = "assumed"
    if not is_modelled(arch):
        (below, above), why = GUESSED_MARGIN, GUESSED_WHY
    elif is_cuda:
        (below, above), why, basis = CHECKED_MARGIN, CHECKED_WHY, "calibrated"
    else:
        (below, above), why = OTHER_BACKEND_MARGIN, OTHER_BACKEND_WHY
    room = 0 if basis == "calibrated" else 16 * MIB
    return Quantity(least - least * below // 100, size, size + size * above // 100 + room, basis, why)
