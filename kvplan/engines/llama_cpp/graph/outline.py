"""The graph of a model over its places, built for one micro-batch; of layers that repeat only a few."""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.engines.ggml.allocator import Lifetimes
from kvplan.engines.ggml.repeating import lengthened, periods_needed, with_matrices
from kvplan.engines.ggml.scheduler import Backends, scheduled
from kvplan.engines.ggml.tensor import Tensor
from kvplan.engines.llama_cpp.graph.builder import Builder
from kvplan.engines.llama_cpp.graph.cuda import CELL_STRIDE, has_kernel
from kvplan.engines.llama_cpp.graph.lengths import Built, Ends, Graph
from kvplan.engines.llama_cpp.graph.parts import Batch, Places
from kvplan.engines.llama_cpp.graph.repeats import Run, runs_of
from kvplan.engines.llama_cpp.graph.rules import RULES, Rules
from kvplan.engines.llama_cpp.graph.shapes import ModelShape
from kvplan.engines.llama_cpp.graph.sparse import SPARSE_ARCHS, sparse_latent
from kvplan.engines.llama_cpp.graph.transformer import transformer
from kvplan.frozen import dataclass, replace


@dataclass(frozen=True, slots=True)
class Outline:
    """All that a graph follows from but the length of its caches; ``window_follows`` it or is ``batch``'s.

    Models and placements whose layers repeat alike have one in common.
    """

    shape: ModelShape
    places: Places
    batch: Batch
    window_follows: bool
    op_offload: bool
    is_pipeline: bool


def graph_of(outline: Outline) -> Graph:
    """Return a graph: from a shorter one whose layers repeat like its own, where there is one."""
    shape, places = outline.shape, outline.places
    names = tuple(tuple((name, 0) for name, _ in matrices) for matrices in places.host_bytes)
    keys = list(zip(shape.layers, places.layers, places.experts, names, strict=True))
    runs = runs_of(keys, periods_needed)
    longer = tuple(run for run in runs if run.repeats > run.num_built)
    # Batches in flight keep copies of all that crosses between layers, from the start, and indexers a table
    # for each.
    if not longer or outline.is_pipeline or shape.arch in SPARSE_ARCHS:
        return _built(outline)
    kept = [keys[layer] for run in runs for layer in run.layers_built]
    layers, on, experts, matrices = zip(*kept, strict=True)
    shorter = replace(
        outline,
        shape=replace(shape, layers=layers),
        places=replace(places, layers=on, experts=experts, host_bytes=matrices),
    )
    return Lengthened(outline, shorter, longer)


class Lengthened:
    """A graph that differs from a shorter one in how often its layers repeat, and in their matrices."""

    def __init__(self, outline: Outline, shorter: Outline, runs: Sequence[Run]) -> None:
        self._outline, self._shorter, self._runs = outline, _built(shorter), runs
        self._matrices = tuple(dict(matrices) for matrices in outline.places.host_bytes)

    def at(self, num_cells: int) -> Lifetimes:
        """Return the lifetimes at a length of the caches."""
        lived = self._longer(self._shorter.at(num_cells))
        return _built(self._outline).at(num_cells) if lived is None else lived

    def ends(self) -> Ends:
        """Return the lifetimes at two lengths."""
        ends = self._shorter.ends()
        short, long = self._longer(ends.short), self._longer(ends.long)
        if short is None or long is None:
            return _built(self._outline).ends()
        return Ends(ends.first, short, ends.last, long)

    def _longer(self, lived: Lifetimes) -> Lifetimes | None:
        longer: Lifetimes | None = lived
        for run in self._runs:
            if longer is None:
                return None
            longer = lengthened(longer, run.start, run.period, run.repeats - run.num_built)
        if longer is None:
            return None
        return with_matrices(longer, lambda matrix: self._matrices[matrix[0]][matrix[1]])


@lru_cache(maxsize=1024)
def _built(outline: Outline) -> Built:
    def build(num_cells: int) -> Lifetimes:
        window = num_cells if outline.window_follows else outline.batch.window
        batch = replace(outline.batch, full=num_cells, window=window)
        return _lived(outline, batch)

    return Built(build)


def runs_on_cards(outline: Outline) -> bool:
    """Tell whether cards have a kernel for every operation, of one layer of each kind."""
    batch = outline.batch
    window = CELL_STRIDE if outline.window_follows else batch.window
    shape = replace(outline.shape, layers=tuple(dict.fromkeys(outline.shape.layers)))
    return _runs_on_cards(shape, replace(batch, full=CELL_STRIDE, window=window))


@lru_cache(maxsize=256)
def _runs_on_cards(shape: ModelShape, batch: Batch) -> bool:
    on_card = (0,) * len(shape.layers)
    places = Places(
        1, on_card, on_card, 0, 0, caches_follow=True, pinned=False,
        host_bytes=((),) * len(on_card), output_bytes=None,
    )  # fmt: skip
    builder = Builder(shape, batch, places)
    _build(builder)
    return all(map(has_kernel, builder.graph.nodes))


def _lived(outline: Outline, batch: Batch) -> Lifetimes:
    places = outline.places
    builder = Builder(outline.shape, batch, places)
    _build(builder)
    # Operations without an operand on another card, and with a kernel.
    cards = range(places.cpu)

    def runs(backend: int, tensor: Tensor) -> bool:
        if backend == places.cpu:
            return True
        if len(cards) > 1:
            for each in tensor.src:
                if each.buffer is not None and backend != each.buffer < places.cpu:
                    return False
        return has_kernel(tensor)

    backends = Backends(places.cpu, runs, outline.op_offload, outline.is_pipeline)
    return scheduled(builder.graph, backends)


def _build(builder: Builder) -> None:
    """Build the whole graph as the architecture does; one that is not known as a Llama's."""
    arch = builder.shape.arch
    if arch in RULES:
        transformer(builder, RULES[arch])
        return
    if arch in SPARSE_ARCHS:
        sparse_latent(builder)
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
