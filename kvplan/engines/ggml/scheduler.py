"""Which backend runs each node of a graph, and what has to be copied between them.

ggml/src/ggml-backend.cpp ggml_backend_sched_split_graph: nodes go where their weights or caches lie,
their neighbours join them (graphics cards before the CPU), and every operand that lies elsewhere is
copied at the start of a split. Backends are numbered: cards first, the CPU last.
"""

from collections.abc import Callable, Sequence
from dataclasses import field
from itertools import zip_longest

from kvplan.dtypes import GGML_TYPES
from kvplan.engines.ggml.allocator import Lifetimes, lifetimes
from kvplan.engines.ggml.flash_attention import half_precision_bytes
from kvplan.engines.ggml.fusion import kept_until
from kvplan.engines.ggml.tensor import VIEWS, Graph, Tensor
from kvplan.frozen import dataclass

# ggml-cuda.cu get_op_batch_size: an operation on host weights moves to the card from this batch on.
OFFLOAD_MIN_BATCH = 32
NUM_PIPELINE_COPIES = 4
MAX_OPERANDS = 10
# ggml-cuda.cu ggml_backend_cuda_buffer_type_get_alloc_size: the last quantized row is padded to this.
CARD_ROW_ELEMENTS = 512
# Operations that do not follow a weight among their operands.
WEIGHTLESS = frozenset(("rope", "flash_attn"))


@dataclass(frozen=True, slots=True)
class Backends:
    """``num_cards`` cards and the CPU.

    ``runs`` tells whether a backend has a node's operation. ``op_offload`` moves operations on host
    weights to a card; ``pipeline`` keeps copies of all inputs for batches in flight.
    """

    num_cards: int
    runs: Callable[[int, Tensor], bool]
    op_offload: bool = True
    pipeline: bool = False


@dataclass(slots=True)
class _Split:
    backend: int
    nodes: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)


_Copies = dict[tuple[int, int], list[Tensor]]


def scheduled(graph: Graph, backends: Backends) -> Lifetimes:
    """Split a graph over its backends and say when each tensor of it is alive, copies included.

    The graph is used up: its operands are exchanged for copies.
    """
    _assign(graph, backends)
    copies = NUM_PIPELINE_COPIES if backends.pipeline else 1
    splits, copied = _split(graph, copies, backends.num_cards)
    nodes: list[tuple[Tensor, int]] = []
    positions: list[int] = []
    kept: dict[Tensor, list[Tensor]] = {}
    for split, after in zip_longest(splits, splits[1:]):
        for source in split.inputs:
            # The source stays until it was copied.
            waiting = Tensor("none", source.ne, (source,), view_src=source)
            nodes.append((waiting, _backend_of(source)))
            nodes.append((copied[id(source), split.backend][0], split.backend))
        on_card = split.backend < backends.num_cards
        if on_card:
            kept |= kept_until(split.nodes, after.nodes[0] if after is not None else None)
        for node in split.nodes:
            if on_card and node.op == "flash_attn":
                # The CPU's kernels read quantized caches as they are.
                node.scratch_bytes = half_precision_bytes(node)
            positions.append(len(nodes))
            nodes.append((node, _backend_of(node)))
            held = kept.get(node, ())
            for start in range(0, len(held), MAX_OPERANDS):
                part = held[start : start + MAX_OPERANDS]
                nodes.append((Tensor("none", part[0].ne, part, view_src=part[0]), split.backend))
    leaves = [(leaf, leaf.backend) for leaf in graph.leaves if leaf.backend is not None]
    if copies > 1:
        leaves = [*_pipeline_leaves(graph, splits, copied, copies), *leaves]
    return lifetimes(nodes, leaves, [positions[start] for start in graph.starts])


def _backend_of(tensor: Tensor) -> int:
    assert tensor.backend is not None, "every tensor has a backend after _assign"
    return tensor.backend


def _pipeline_leaves(
    graph: Graph, splits: Sequence[_Split], copied: _Copies, copies: int
) -> list[tuple[Tensor, int]]:
    """Return all copies of the caller's inputs and of what crosses between splits; they stay."""
    made: list[tuple[Tensor, int]] = []
    for leaf in graph.leaves:
        if leaf.is_input:
            leaf.is_output = True
            others = [_copy_of(leaf, _backend_of(leaf), stays=True) for _ in range(copies - 1)]
            made += [(each, _backend_of(leaf)) for each in (leaf, *others)]
    for split in splits:
        for source in split.inputs:
            made += [(copy, split.backend) for copy in copied[id(source), split.backend]]
    return made


def _copy_of(tensor: Tensor, backend: int, *, stays: bool, on_card: bool = False) -> Tensor:
    copy = Tensor("none", tensor.ne, type=tensor.type, nb=tensor.nb)
    copy.num_bytes, copy.matrix = tensor.num_bytes, tensor.matrix
    block = GGML_TYPES.get(tensor.type)
    if on_card and block is not None and block.block_size > 1 and tensor.ne[0] % CARD_ROW_ELEMENTS:
        copy.num_bytes += block.row_bytes(CARD_ROW_ELEMENTS - tensor.ne[0] % CARD_ROW_ELEMENTS)
    copy.backend = backend
    copy.is_input = copy.is_output = stays
    return copy


def _assign(graph: Graph, backends: Backends) -> None:
    """Give each tensor its backend (passes 1 to 4)."""
    cpu = backends.num_cards
    for tensor in (*graph.leaves, *graph.nodes):
        if tensor.backend is None:
            tensor.backend = _from_what_it_has(tensor, backends)
    working = [node for node in graph.nodes if node.op not in VIEWS]
    if any(node.backend is None for node in working):
        for skip in (cpu, None):
            for order in (working, working[::-1]):
                _spread(order, backends, skip)
    for node in graph.nodes:
        if node.backend is None and node.op not in VIEWS:
            node.backend = _most_supported(node, backends)
        if node.view_src is not None and node.backend is None:
            node.backend = node.view_src.backend
        for operand in node.src:
            if operand.backend is None:
                root = operand.view_src
                place = node.backend if root is None else root.backend
                operand.backend = cpu if place is None else place
        if node.backend is None:
            node.backend = 0


def _from_what_it_has(tensor: Tensor, backends: Backends) -> int | None:
    held = tensor.buffer if tensor.view_src is None else tensor.view_src.buffer
    if held is not None:
        return held
    cpu = backends.num_cards
    if tensor.is_input:
        return cpu
    if tensor.op in WEIGHTLESS:
        return None
    for operand in tensor.src:
        if operand.is_weight and operand.buffer is not None:
            place = operand.buffer
            if place < cpu and not backends.runs(place, tensor):
                return cpu
            if place == cpu and backends.op_offload and _batch_of(tensor) >= OFFLOAD_MIN_BATCH:
                for card in range(cpu):
                    if backends.runs(card, tensor):
                        return card
            return place
    return None


def _batch_of(tensor: Tensor) -> int:
    match tensor.op:
        case "get_rows":
            return 0
        case "mul_mat":
            return tensor.ne[1]
        case "mul_mat_id" | "mul_mat_id_f32" | "rope":
            return tensor.ne[2]
    return tensor.ne[1] * tensor.ne[2] * tensor.ne[3]


def _spread(order: Sequence[Tensor], backends: Backends, skip: int | None) -> None:
    current: int | None = None
    for node in order:
        place = node.backend
        if place is not None:
            current = None if place == skip else place
        elif current is not None and backends.runs(current, node):
            node.backend = current


def _most_supported(node: Tensor, backends: Backends) -> int:
    best, most = 0, -1
    for backend in range(backends.num_cards + 1):
        if not backends.runs(backend, node):
            continue
        count = sum(operand.backend == backend for operand in node.src)
        if count > most:
            best, most = backend, count
    return best


def _split(graph: Graph, copies: int, num_cards: int) -> tuple[list[_Split], _Copies]:
    """Cut the graph where the backend changes and put copies in the place of far operands (pass 5)."""
    copied: _Copies = {}
    first = next((node for node in graph.nodes if node.op not in VIEWS), None)
    split = _Split(0 if first is None else _backend_of(first))
    splits = [split]
    for node in graph.nodes:
        if node.op in VIEWS:
            split.nodes.append(node)
            continue
        backend = _backend_of(node)
        far = [index for index, operand in enumerate(node.src) if operand.backend != backend]
        # A weight from elsewhere begins a split of its own, so that the last one's copy can be freed.
        if backend != split.backend or (
            far and split.inputs and any(node.src[index].is_weight for index in far)
        ):
            split = _Split(backend)
            splits.append(split)
        split.nodes.append(node)
        for index in far:
            operand = node.src[index]
            key = (id(operand), backend)
            if key not in copied:
                on_card = backend < num_cards
                copied[key] = [
                    _copy_of(operand, backend, stays=copies > 1, on_card=on_card) for _ in range(copies)
                ]
                split.inputs.append(operand)
            node.src[index] = copied[key][0]
    return splits, copied
