"""The size of llama.cpp's compute buffers: build the worst micro-batch's graph and allocate it.

src/llama-context.cpp sched_reserve: the prompt graph of ``n_ubatch`` tokens in as many equal parts as
there are sequences, over caches that are full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kvplan.engines.ggml.scheduler import Backends, buffer_sizes
from kvplan.engines.ggml.tensor import Tensor
from kvplan.engines.llama_cpp_graph.builder import Batch, Builder, Places
from kvplan.engines.llama_cpp_graph.cuda import ALIGNMENT, HOST_ALIGNMENT, has_kernel
from kvplan.engines.llama_cpp_graph.gemma3n import Gemma3n
from kvplan.engines.llama_cpp_graph.hybrid import HYBRIDS, hybrid
from kvplan.engines.llama_cpp_graph.matrices import matrix_bytes, output_bytes
from kvplan.engines.llama_cpp_graph.shapes import ModelShape, model_shape
from kvplan.engines.llama_cpp_graph.transformer import RULES, Rules, transformer
from kvplan.model import ModelSpec

# How often a pattern of layers that repeats is built (the last time included): by then the buffer has
# settled. Patterns of up to MAX_PERIOD layers are looked for.
REPEATS = 3000
MAX_PERIOD = 8


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's parts lie: cards are 0, 1 …, the CPU is ``num_cards``.

    ``layers`` has a place for each layer, ``experts_on_cpu`` the layers whose experts stay behind.
    ``op_offload`` lets a card work on weights that lie in system memory.
    """

    num_cards: int
    layers: tuple[int, ...]
    output: int
    experts_on_cpu: int = 0
    kv_offload: bool = True
    op_offload: bool = True

    @property
    def all_on_cards(self) -> bool:
        """Whether all layers and the output are on cards."""
        return all(place < self.num_cards for place in (*self.layers, self.output))

    @property
    def is_pipeline(self) -> bool:
        """Whether batches run one behind the other over several cards (llama-context.cpp)."""
        return self.num_cards > 1 and self.all_on_cards and self.kv_offload and not self.experts_on_cpu


def is_modelled(arch: str) -> bool:
    """Tell whether the architecture's graph is known, rather than taken to be like Llama's."""
    return arch in RULES or arch in HYBRIDS or arch == "gemma3n"


@lru_cache(maxsize=4096)
def compute_buffer_sizes(
    model: ModelSpec, mix: str, placement: Placement, batch: Batch, *, pinned: bool = False
) -> tuple[int, ...]:
    """Return the bytes of each card's compute buffer and, last, the CPU's.

    With ``pinned`` as a server allocates them over several cards, else as ``--fit`` measures them.
    """
    shape, places = _shortened(model_shape(model), placement, model, mix, pinned=pinned)
    builder = Builder(shape, batch, places)
    if shape.arch in HYBRIDS:
        hybrid(builder, HYBRIDS[shape.arch])
    elif shape.arch == "gemma3n":
        Gemma3n(builder).build()
    else:
        transformer(builder, RULES.get(shape.arch, Rules(gating="own")))

    def runs(backend: int, tensor: Tensor) -> bool:
        if backend == places.cpu:
            return True
        if any(
            each.buffer is not None and backend != each.buffer < places.cpu for each in tensor.src
        ):
            return False
        return has_kernel(tensor)

    backends = Backends(
        placement.num_cards,
        (ALIGNMENT,) * placement.num_cards + (HOST_ALIGNMENT,),
        runs,
        placement.op_offload,
        placement.is_pipeline,
    )
    return buffer_sizes(builder.graph, backends)


def _shortened(
    shape: ModelShape, placement: Placement, model: ModelSpec, mix: str, *, pinned: bool
) -> tuple[ModelShape, Places]:
    """Leave out layers that repeat: the buffer does not grow with them."""
    cpu = placement.num_cards
    layers = placement.layers
    experts = tuple(
        cpu if index < placement.experts_on_cpu else place for index, place in enumerate(layers)
    )
    on_host = any(place == cpu for place in experts) and placement.op_offload
    sizes = matrix_bytes(model, mix) if on_host and cpu else {}
    by_layer: dict[int, list[tuple[str, int]]] = {}
    for (layer, name), num_bytes in sizes.items():
        if experts[layer] == cpu and (layers[layer] == cpu or name.endswith("_exps")):
            by_layer.setdefault(layer, []).append((name, num_bytes))
    keys = [
        (shape.layers[index], layers[index], experts[index], tuple(by_layer.get(index, ())))
        for index in range(len(layers))
    ]
    kept = _kept_layers(keys)
    chosen = [by_layer.get(index, []) for index in kept]
    tables = [dict(each) for each in chosen]
    short = ModelShape(
        shape.arch, shape.hidden_size, shape.vocab_size,
        tuple(shape.layers[index] for index in kept), shape.num_layers, shape.routing,
        shape.per_layer_input, shape.num_altup,
    )  # fmt: skip
    places = Places(
        cpu,
        tuple(layers[index] for index in kept),
        tuple(experts[index] for index in kept),
        placement.output,
        placement.kv_offload,
        pinned and placement.all_on_cards,
        lambda layer, name: tables[layer].get(name),
        output_bytes(model, mix) if placement.output == cpu else None,
    )
    return short, places


def _kept_layers(keys: Sequence[object]) -> list[int]:
    """Return the layers to build: of a pattern that repeats, the first ones and the last."""
    kept: list[int] = []
    index = 0
    while index < len(keys):
        period, repeats = max(
            ((period, _repeats(keys, index, period)) for period in range(1, MAX_PERIOD + 1)),
            key=lambda found: found[0] * (found[1] - REPEATS),
        )
        if repeats <= REPEATS:
            kept.append(index)
            index += 1
            continue
        end = index + period * repeats
        kept += [*range(index, index + period * (REPEATS - 1)), *range(end - period, end)]
        index = end
    return kept


def _repeats(keys: Sequence[object], start: int, period: int) -> int:
    pattern = keys[start : start + period]
    end = start + period
    while keys[end : end + period] == pattern:
        end += period
    return (end - start) // period
