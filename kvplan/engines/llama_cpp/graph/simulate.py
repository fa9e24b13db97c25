"""The size of llama.cpp's compute buffers: build the worst micro-batch's graph and allocate it.

src/llama-context.cpp sched_reserve: the prompt graph of ``n_ubatch`` tokens in as many equal parts as
there are sequences, over caches that are full.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from kvplan.engines.ggml.allocator import Lifetimes
from kvplan.engines.ggml.packing import GrowingBuffers, packed_sizes
from kvplan.engines.ggml.scheduler import Backends, scheduled
from kvplan.engines.ggml.tensor import Tensor
from kvplan.engines.llama_cpp.graph.builder import EXACT_EXPERT_ARCHS, Builder
from kvplan.engines.llama_cpp.graph.cuda import ALIGNMENT, CELL_STRIDE, HOST_ALIGNMENT, has_kernel
from kvplan.engines.llama_cpp.graph.matrices import matrix_bytes, output_bytes
from kvplan.engines.llama_cpp.graph.parts import Batch, Places
from kvplan.engines.llama_cpp.graph.shapes import ModelShape, model_shape
from kvplan.engines.llama_cpp.graph.transformer import RULES, Rules, transformer
from kvplan.frozen import dataclass
from kvplan.gguf.names import llama_cpp_arch
from kvplan.model import ModelSpec

# How often a pattern of layers that repeats is built (the last time included): by then the buffer has
# settled, on one card soon, but for layers with states. Patterns of up to MAX_PERIOD layers are looked for.
REPEATS_ON_ONE_PLACE = 3
REPEATS_WITH_STATES = REPEATS_OVER_PLACES = 5
MAX_PERIOD = 8
# Buffers change places from layer to layer: two in turn on one card, two or three over several places.
TURN_ON_ONE_PLACE, TURN_OVER_PLACES = 2, 6
# Every layer reads what the first one made (RWKV 7), and the buffer settles late.
WHOLE_ARCHS = frozenset(("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"))
# Graphs that project with the embedding where it lies, in system memory (src/models/bitnet.cpp).
HEAD_STAYS_ARCHS = frozenset(("bitnet",))
# Two lengths of the context that graphs are built for; unlike any other size in a model.
MEASURED_CELLS = (256 * 1009, 256 * 2003)


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
        return self.num_cards not in (*self.layers, self.output)

    @property
    def is_pipeline(self) -> bool:
        """Whether batches run one behind the other over several cards (llama-context.cpp)."""
        return self.num_cards > 1 and self.all_on_cards and self.kv_offload and not self.has_overrides


def is_modelled(arch: str) -> bool:
    """Tell whether the architecture's graph is known and was compared with llama.cpp's own.

    Others are taken to be like Llama's.
    """
    if arch in RULES or arch in ("arctic", "gemma3n", "gemma4", "plamo2"):
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
    if cpu and cpu in (*placement.layers, *placement.experts):
        return packed_sizes(_lived(model, mix, placement, batch, pinned), _alignments(cpu))
    follows = batch.window == batch.full
    # The matrices' types decide only about those that lie in system memory.
    arch = llama_cpp_arch(model)
    reads_types = placement.output == cpu or arch in EXACT_EXPERT_ARCHS or arch in HEAD_STAYS_ARCHS
    of_mix = mix if reads_types else ""
    anywhere = replace(batch, full=0, window=0 if follows else batch.window)
    return _by_length(model, of_mix, placement, anywhere, follows, pinned).at(batch.full)


def _alignments(num_cards: int) -> tuple[int, ...]:
    return (ALIGNMENT,) * num_cards + (HOST_ALIGNMENT,)


class _ByLength:
    """The buffers of one graph by the length of its caches; a window may be as long as they are.

    One length is built as it is. Whoever asks for a second will ask for more: one other is built then,
    unlike any other size in a model, and all the rest only packed. Where the first length is like some
    size in the model, so that tensors live otherwise, two others are built.
    """

    def __init__(self, build: Callable[[int], Lifetimes], alignments: tuple[int, ...]) -> None:
        self._build, self._alignments = build, alignments
        self._first: tuple[int, Lifetimes, tuple[int, ...]] | None = None
        self._all: GrowingBuffers | None = None

    def at(self, num_cells: int) -> tuple[int, ...]:
        """Return the bytes of each card's buffer and, last, the CPU's."""
        if self._first is None:
            lived = self._build(num_cells)
            self._first = num_cells, lived, packed_sizes(lived, self._alignments)
        first_cells, lived, sizes = self._first
        if num_cells == first_cells:
            return sizes
        if self._all is None:
            self._all = self._growing(first_cells, lived)
        return self._all.at(num_cells // CELL_STRIDE)

    def _growing(self, first_cells: int, lived: Lifetimes) -> GrowingBuffers:
        near_cells, far_cells = MEASURED_CELLS
        far = self._build(far_cells)
        steps = (far_cells - first_cells) // CELL_STRIDE
        is_alike = (
            first_cells % CELL_STRIDE == 0
            and steps
            and (lived.events, lived.backends) == (far.events, far.backends)
            and not any((large - size) % steps for size, large in zip(lived.sizes, far.sizes, strict=True))
        )
        if not is_alike:
            first_cells, lived = near_cells, self._build(near_cells)
        first, last = first_cells // CELL_STRIDE, far_cells // CELL_STRIDE
        return GrowingBuffers(lived, far, first, last, self._alignments)


@lru_cache(maxsize=1024)
def _by_length(
    model: ModelSpec, mix: str, placement: Placement, batch: Batch, window_follows: bool, pinned: bool
) -> _ByLength:
    def build(num_cells: int) -> Lifetimes:
        window = num_cells if window_follows else batch.window
        return _lived(model, mix, placement, replace(batch, full=num_cells, window=window), pinned)

    return _ByLength(build, _alignments(placement.num_cards))


def _is_one_place(placement: Placement) -> bool:
    places = {*placement.layers, *placement.experts, placement.output}
    return placement.kv_offload and len(places) == 1


@lru_cache(maxsize=1024)
def _lived(model: ModelSpec, mix: str, placement: Placement, batch: Batch, pinned: bool) -> Lifetimes:
    builder = _built(model, mix, placement, batch, pinned=pinned)
    if placement.is_pipeline and not all(map(has_kernel, builder.graph.nodes)):
        # The CPU works in every layer, and all that goes there and back is kept for each batch in flight.
        builder = _built(model, mix, placement, batch, pinned=pinned, is_whole=True)
    # Operations without an operand on another card, and with a kernel.
    cards, cpu = range(placement.num_cards), placement.num_cards

    def runs(backend: int, tensor: Tensor) -> bool:
        if backend == cpu:
            return True
        if len(cards) > 1:
            for each in tensor.src:
                if each.buffer is not None and backend != each.buffer < cpu:
                    return False
        return has_kernel(tensor)

    backends = Backends(placement.num_cards, runs, placement.op_offload, placement.is_pipeline)
    return scheduled(builder.graph, backends)


def _built(
    model: ModelSpec,
    mix: str,
    placement: Placement,
    batch: Batch,
    *,
    pinned: bool,
    is_whole: bool = False,
) -> Builder:
    shape, places = _shortened(model_shape(model), placement, model, mix, pinned=pinned, is_whole=is_whole)
    builder = Builder(shape, batch, places)
    _build(builder)
    return builder


def _build(builder: Builder) -> None:
    """Build the whole graph as the architecture does; one that is not known as a Llama's."""
    arch = builder.shape.arch
    if arch in RULES:
        transformer(builder, RULES[arch])
        return
    if arch == "gemma3n":
        from kvplan.engines.llama_cpp.graph.gemma3n import Gemma3n

        Gemma3n(builder).build()
        return
    if arch == "arctic":
        from kvplan.engines.llama_cpp.graph.arctic import arctic

        arctic(builder)
        return
    if arch == "plamo2":
        from kvplan.engines.llama_cpp.graph.plamo2 import plamo2

        plamo2(builder)
        return
    if arch == "gemma4":
        from kvplan.engines.llama_cpp.graph.gemma4 import gemma4

        gemma4(builder)
        return
    from kvplan.engines.llama_cpp.graph.bert import BERTS, bert
    from kvplan.engines.llama_cpp.graph.hybrid import HYBRIDS, hybrid
    from kvplan.engines.llama_cpp.graph.rwkv import RWKVS, rwkv

    if arch in HYBRIDS:
        hybrid(builder, HYBRIDS[arch])
    elif arch in BERTS:
        bert(builder)
    elif arch in RWKVS:
        rwkv(builder)
    else:
        transformer(builder, Rules(gating="own"))


def _shortened(
    shape: ModelShape, placement: Placement, model: ModelSpec, mix: str, *, pinned: bool, is_whole: bool
) -> tuple[ModelShape, Places]:
    """Leave out layers that repeat, unless ``is_whole``: the buffer does not grow with them."""
    cpu = placement.num_cards
    layers, experts = placement.layers, placement.experts
    on_host = placement.op_offload and cpu > 0 and cpu in (*layers, *experts)
    on_host = on_host or (shape.arch in EXACT_EXPERT_ARCHS and cpu > 0)
    matrices = _matrices_on_host(model, mix, placement) if on_host else ({},) * len(layers)
    keys = [
        (shape.layers[index], layers[index], experts[index], tuple(matrices[index].items()))
        for index in range(len(layers))
    ]
    repeats, turn = REPEATS_OVER_PLACES, TURN_OVER_PLACES
    if _is_one_place(placement):
        has_states = any(layer.state is not None for layer in shape.layers)
        repeats, turn = REPEATS_WITH_STATES if has_states else REPEATS_ON_ONE_PLACE, TURN_ON_ONE_PLACE
    if is_whole or shape.arch in WHOLE_ARCHS:
        repeats = len(layers)
    kept = _kept_layers(keys, repeats, turn)
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


def _matrices_on_host(model: ModelSpec, mix: str, placement: Placement) -> tuple[dict[str, int], ...]:
    """Return each layer's matrices that lie in system memory, by name, in bytes as a card holds them."""
    cpu, layers, experts = placement.num_cards, placement.layers, placement.experts
    found: tuple[dict[str, int], ...] = tuple({} for _ in layers)
    # Where the CPU multiplies by experts that lie on cards, they are copied to it.
    exact_experts = llama_cpp_arch(model) in EXACT_EXPERT_ARCHS
    for (layer, name), num_bytes in matrix_bytes(model, mix).items():
        crosses = name == "ffn_down_exps" and exact_experts
        if crosses or (experts[layer] == cpu and (layers[layer] == cpu or name.endswith("_exps"))):
            found[layer][name] = num_bytes
    return found


def _kept_layers(keys: Sequence[object], most: int, turn: int) -> list[int]:
    """Return the layers to build: of a pattern that repeats, the first ones and the last.

    A multiple of ``turn`` repeats is left out: buffers that change places come out as they would.
    """
    kept: list[int] = []
    index = 0
    while index < len(keys):
        period, repeats = max(
            ((period, _repeats(keys, index, period)) for period in range(1, MAX_PERIOD + 1)),
            key=lambda found: found[0] * (found[1] - most),
        )
        built = most + (repeats - most) % turn
        if repeats <= built:
            kept.append(index)
            index += 1
            continue
        end = index + period * repeats
        kept += [*range(index, index + period * (built - 1)), *range(end - period, end)]
        index = end
    return kept


def _repeats(keys: Sequence[object], start: int, period: int) -> int:
    pattern = keys[start : start + period]
    end = start + period
    while keys[end : end + period] == pattern:
        end += period
    return (end - start) // period
