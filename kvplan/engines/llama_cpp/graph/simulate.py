"""The size of llama.cpp's compute buffers: build the worst micro-batch's graph and allocate it.

src/llama-context.cpp sched_reserve: the prompt graph of ``n_ubatch`` tokens in as many equal parts as
there are sequences, over caches that are full.
"""

from functools import lru_cache

from kvplan.engines.llama_cpp.graph.builder import EXACT_EXPERT_ARCHS
from kvplan.engines.llama_cpp.graph.cuda import ALIGNMENT, HOST_ALIGNMENT
from kvplan.engines.llama_cpp.graph.lengths import Buffers
from kvplan.engines.llama_cpp.graph.matrices import matrix_bytes, output_bytes
from kvplan.engines.llama_cpp.graph.outline import Outline, graph_of, runs_on_cards
from kvplan.engines.llama_cpp.graph.parts import Batch, Matrices, Places
from kvplan.engines.llama_cpp.graph.reading import model_shape
from kvplan.engines.llama_cpp.graph.repeats import runs_of
from kvplan.engines.llama_cpp.graph.rules import RULES
from kvplan.engines.llama_cpp.graph.shapes import ModelShape
from kvplan.engines.llama_cpp.graph.sparse import SPARSE_ARCHS
from kvplan.frozen import dataclass, replace
from kvplan.gguf.names import llama_cpp_arch
from kvplan.model import ModelSpec

# How often a pattern of layers that repeats is built (the last time included): by then the buffer has
# settled, on one card soon, but for layers with states. Models of which that would leave out less than one
# layer in LEAST_SAVED are built whole: their patterns change too often.
REPEATS_ON_ONE_PLACE = 3
REPEATS_WITH_STATES = REPEATS_OVER_PLACES = 5
LEAST_SAVED = 3
# Buffers change places from layer to layer: two in turn on one card, two or three over several places.
TURN_ON_ONE_PLACE, TURN_OVER_PLACES = 2, 6
# Every layer reads what the first one made (RWKV 7) or has a table from the start (indexers), or the
# buffer settles late.
WHOLE_ARCHS = frozenset(("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "arctic", *SPARSE_ARCHS))
# Graphs that project with the embedding where it lies, in system memory (src/models/bitnet.cpp).
HEAD_STAYS_ARCHS = frozenset(("bitnet",))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's parts lie: cards are 0, 1 …, the CPU is ``num_cards``.

    ``layers`` and ``experts`` have a place for each layer. ``op_offload`` lets a card work on weights
    that lie in system memory.
    """

    num_cards: int
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    output: int
    kv_offload: bool = True
    op_offload: bool = True
    has_overrides: bool = False

    @property
    def all_on_cards(self) -> bool:
        """Whether all layers and the output are on cards, but for experts."""
        return self.num_cards not in self.layers and self.num_cards != self.output

    @property
    def is_pipeline(self) -> bool:
        """Whether batches run one behind the other over several cards (llama-context.cpp)."""
        return self.num_cards > 1 and self.all_on_cards and self.kv_offload and not self.has_overrides


def is_modelled(arch: str) -> bool:
    """Tell whether the architecture's graph is known and was compared with llama.cpp's own.

    Others are taken to be like Llama's.
    """
    if arch in RULES or arch in SPARSE_ARCHS or arch in ("arctic", "gemma3n", "gemma4", "plamo2"):
        return True
    from kvplan.engines.llama_cpp.graph.bert import BERTS
    from kvplan.engines.llama_cpp.graph.hybrid import HYBRIDS
    from kvplan.engines.llama_cpp.graph.rwkv import RWKVS

    return arch in HYBRIDS or arch in BERTS or arch in RWKVS


def compute_buffer_sizes(
    model: ModelSpec, mix: str, placement: Placement, batch: Batch, *, pinned: bool = False
) -> tuple[int, ...]:
    """Return the bytes of each card's compute buffer and, last, the CPU's.

    With ``pinned`` as a server allocates them over several cards, else as ``--fit`` measures them.
    Which tensors live when does not depend on the length of the context, and their sizes grow with it
    by a constant each.
    """
    cpu = placement.num_cards
    # The matrices' types decide only about those that lie in system memory.
    reads_types = cpu in placement.layers or cpu in placement.experts or cpu == placement.output
    of_mix = mix if reads_types or llama_cpp_arch(model) in EXACT_EXPERT_ARCHS | HEAD_STAYS_ARCHS else ""
    follows = batch.window == batch.full
    # An indexer chooses all cells of a short context: until then sizes do not grow in a straight line.
    is_short = batch.full < model_shape(model).index_top_k
    length = batch.full if is_short else 0
    anywhere = replace(batch, full=length, window=0 if follows else batch.window)
    return _by_length(model, of_mix, placement, anywhere, follows, pinned).at(batch.full)


def _alignments(num_cards: int) -> tuple[int, ...]:
    return (ALIGNMENT,) * num_cards + (HOST_ALIGNMENT,)


@lru_cache(maxsize=4096)
def _by_length(
    model: ModelSpec, mix: str, placement: Placement, batch: Batch, window_follows: bool, pinned: bool
) -> Buffers:
    def outlined(*, is_whole: bool) -> Outline:
        shape, places = _shortened(model, mix, placement, pinned, is_whole)
        return Outline(shape, places, batch, window_follows, placement.op_offload, placement.is_pipeline)

    outline = outlined(is_whole=model_shape(model).arch in WHOLE_ARCHS)
    if placement.is_pipeline and not runs_on_cards(outline):
        # The CPU works in every layer, and all that goes there and back is kept for each batch in flight.
        outline = outlined(is_whole=True)
    return _buffers(outline)


@lru_cache(maxsize=1024)
def _buffers(outline: Outline) -> Buffers:
    return Buffers(graph_of(outline), _alignments(outline.places.cpu))


def _is_one_place(placement: Placement) -> bool:
    places = {*placement.layers, *placement.experts, placement.output}
    return placement.kv_offload and len(places) == 1


@lru_cache(maxsize=1024)
def _shortened(
    model: ModelSpec, mix: str, placement: Placement, pinned: bool, is_whole: bool
) -> tuple[ModelShape, Places]:
    """Leave out layers that repeat, unless ``is_whole``: the buffer does not grow with them."""
    shape, cpu = model_shape(model), placement.num_cards
    layers, experts = placement.layers, placement.experts
    on_host = placement.op_offload and cpu > 0 and cpu in (*layers, *experts)
    on_host = on_host or (shape.arch in EXACT_EXPERT_ARCHS and cpu > 0)
    matrices = _matrices_on_host(model, mix, placement) if on_host else ((),) * len(layers)
    keys = list(zip(shape.layers, layers, experts, matrices, strict=True))
    repeats, turn = REPEATS_OVER_PLACES, TURN_OVER_PLACES
    if _is_one_place(placement):
        has_states = any(layer.state is not None for layer in shape.layers)
        repeats, turn = REPEATS_WITH_STATES if has_states else REPEATS_ON_ONE_PLACE, TURN_ON_ONE_PLACE
    kept = list(range(len(layers)))
    if not is_whole:
        built = [layer for run in runs_of(keys, lambda _: repeats, turn) for layer in run.layers_built]
        kept = built if (len(kept) - len(built)) * LEAST_SAVED >= len(kept) else kept
    head = cpu if shape.arch in HEAD_STAYS_ARCHS else placement.output
    short = replace(shape, layers=tuple(shape.layers[index] for index in kept))
    places = Places(
        cpu,
        tuple(layers[index] for index in kept),
        tuple(experts[index] for index in kept),
        placement.output,
        head,
        placement.kv_offload,
        pinned and placement.all_on_cards,
        tuple(matrices[index] for index in kept),
        output_bytes(model, mix) if head == cpu else None,
    )
    return short, places


def _matrices_on_host(model: ModelSpec, mix: str, placement: Placement) -> tuple[Matrices, ...]:
    """Return each layer's matrices that lie in system memory, by name, in bytes as a card holds them."""
    cpu, layers, experts = placement.num_cards, placement.layers, placement.experts
    found: tuple[dict[str, int], ...] = tuple({} for _ in layers)
    # Where the CPU multiplies by experts that lie on cards, they are copied to it.
    exact_experts = llama_cpp_arch(model) in EXACT_EXPERT_ARCHS
    for (layer, name), num_bytes in matrix_bytes(model, mix).items():
        crosses = name == "ffn_down_exps" and exact_experts
        if crosses or (experts[layer] == cpu and (layers[layer] == cpu or name.endswith("exps"))):
            found[layer][name] = num_bytes
    return tuple(tuple(each.items()) for each in found)
