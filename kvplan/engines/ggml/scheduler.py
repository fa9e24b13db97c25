"""Which backend runs each node of a graph, and what has to be copied between them.

ggml/src/ggml-backend.cpp ggml_backend_sched_split_graph: nodes go where their weights or caches lie,
their neighbours join them (graphics cards before the CPU), and every operand that lies elsewhere is
copied at the start of a split. Backends are numbered: cards first, the CPU last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvplan.engines.ggml.allocator import allocate
from kvplan.engines.ggml.fusion import kept_until
from kvplan.engines.ggml.tensor import VIEWS, Graph, Tensor

# ggml-cuda.cu get_op_batch_size: an operation on host weights moves to the card from this batch on.
OFFLOAD_MIN_BATCH = 32
NUM_PIPELINE_COPIES = 4


@dataclass(frozen=True, slots=True)
class Backends:
    """``num_cards`` cards and the CPU, with each one's buffer alignment.

    ``runs`` tells whether a backend has a node's operation. ``op_offload`` moves operations on host
    weights to a card; ``pipeline`` keeps copies of all inputs for batches in flight.
    """

    num_cards: int
    alignments: tuple[int, ...]
    runs: Callable[[int, Tensor], bool]
    op_offload: bool = True
    pipeline: bool = False


@dataclass(slots=True)
class _Split:
    backend: int
    nodes: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)


def buffer_sizes(graph: Graph, backends: Backends) -> tuple[int, ...]:
    """Return the bytes of each backend's compute buffer, cards first, the CPU last."""
    where = _assign(graph, backends)
    copies = NUM_PIPELINE_COPIES if backends.pipeline else 1
    splits, copied = _split(graph, where, copies)
    nodes: list[tuple[Tensor, int]] = []
    for split in splits:
        for source in split.inputs:
            copy = copied[id(source), split.backend][0]
            nodes.append((Tensor("none", source.ne, (source,), type=source.type, view_src=source),
                          where[id(source)]))  # fmt: skip
            nodes.append((copy, split.backend))
        kept = kept_until(split.nodes, graph.uses) if split.backend < backends.num_cards else {}
        for node in split.nodes:
            nodes.append((node, where[id(node)]))
            held = kept.get(id(node))
            if held:
                nodes += [
                    (Tensor("none", held[0].ne, held[start : start + 10], view_src=held[0]), split.backend)
                    for start in range(0, len(held), 10)
                ]
    leaves = [(leaf, where[id(leaf)]) for leaf in graph.leaves if id(leaf) in where]
    if copies > 1:
        leaves = [*_pipeline_leaves(graph, where, splits, copied, copies), *leaves]
    return allocate(nodes, leaves, backends.alignments)


def _pipeline_leaves(
    graph: Graph,
    where: dict[int, int],
    splits: Sequence[_Split],
    copied: dict[tuple[int, int], list[Tensor]],
    copies: int,
) -> list[tuple[Tensor, int]]:
    """Return all copies of the caller's inputs and of what crosses between splits; they stay."""
    made: list[tuple[Tensor, int]] = []
    for leaf in graph.leaves:
        if leaf.is_input:
            leaf.is_output = True
            backend = where[id(leaf)]
            others = [_copy_of(leaf) for _ in range(copies - 1)]
            for other in others:
                other.is_input = other.is_output = True
            made += [(each, backend) for each in (leaf, *others)]
    for split in splits:
        for source in split.inputs:
            made += [(copy, split.backend) for copy in copied[id(source), split.backend]]
    return made


def _copy_of(tensor: Tensor) -> Tensor:
    return Tensor("none", tensor.ne, type=tensor.type, nb=tensor.nb)


def _assign(graph: Graph, backends: Backends) -> dict[int, int]:
    """Return each tensor's backend by the identity of the tensor (passes 1 to 4)."""
    cpu = backends.num_cards
    where: dict[int, int] = {}
    for tensor in (*graph.leaves, *graph.nodes):
        place = tensor.backend if tensor.backend is not None else _from_what_it_has(tensor, backends)
        if place is not None:
            where[id(tensor)] = place
    working = [node for node in graph.nodes if node.op not in VIEWS]
    for order in (working, working[::-1]):
        _spread(order, where, backends, skip=cpu)
    for order in (working, working[::-1]):
        _spread(order, where, backends, skip=None)
    for node in graph.nodes:
        if id(node) not in where and node.op not in VIEWS:
            where[id(node)] = _most_supported(node, where, backends)
        if node.view_src is not None and id(node) not in where and id(node.view_src) in where:
            where[id(node)] = where[id(node.view_src)]
        for operand in node.src:
            if id(operand) not in where:
                root = operand.view_src
                place = where.get(id(root)) if root is not None else where.get(id(node))
                where[id(operand)] = cpu if place is None else place
        where.setdefault(id(node), 0)
    return where


def _from_what_it_has(tensor: Tensor, backends: Backends) -> int | None:
    if tensor.place is not None:
        return tensor.place
    cpu = backends.num_cards
    if tensor.is_input:
        return cpu
    if tensor.op in ("rope", "flash_attn"):
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
        case "mul_mat_id" | "rope":
            return tensor.ne[2]
    return tensor.ne[1] * tensor.ne[2] * tensor.ne[3]


def _spread(order: Sequence[Tensor], where: dict[int, int], backends: Backends, skip: int | None) -> None:
    current: int | None = None
    for node in order:
        place = where.get(id(node))
        if place is not None:
            current = None if place == skip else place
        elif current is not None and backends.runs(current, node):
            where[id(node)] = current


def _most_supported(node: Tensor, where: dict[int, int], backends: Backends) -> int:
    best, most = 0, -1
    for backend in range(backends.num_cards + 1):
        if not backends.runs(backend, node):
            continue
        count = sum(where.get(id(operand)) == backend for operand in node.src)
        if count > most:
            best, most = backend, count
    return best


def _split(
    graph: Graph, where: dict[int, int], copies: int
) -> tuple[list[_Split], dict[tuple[int, int], list[Tensor]]]:
    """Cut the graph where the backend changes and put copies in the place of far operands (pass 5)."""
    copied: dict[tuple[int, int], list[Tensor]] = {}
    first = next((node for node in graph.nodes if node.op not in VIEWS), None)
    split = _Split(where[id(first)] if first is not None else 0)
    splits = [split]
    for node in graph.nodes:
        if node.op in VIEWS:
            split.nodes.append(node)
            continue
        backend = where[id(node)]
        # A weight from elsewhere begins a split of its own, so that the last one's copy can be freed.
        far_weight = (
            backend == split.backend
            and split.inputs
            and any(operand.is_weight and where[id(operand)] != backend for operand in node.src)
        )
        if backend != split.backend or far_weight:
            split = _Split(backend)
            splits.append(split)
        split.nodes.append(node)
        for index, operand in enumerate(node.src):
            if where[id(operand)] == backend:
                continue
            key = (id(operand), backend)
            if key not in copied:
                copied[key] = [_copy_of(operand) for _ in range(copies)]
                for copy in copied[key]:
                    copy.num_bytes = operand.num_bytes
                    copy.is_input = copy.is_output = copies > 1
                    where[id(copy)] = backend
                split.inputs.append(operand)
            node.src[index] = copied[key][0]
    return splits, copied
