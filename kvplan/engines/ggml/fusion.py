"""What CUDA's fused operations keep alive: operands of a group live until the group has run.

ggml/src/ggml-cuda/ggml-cuda.cu ggml_backend_cuda_graph_optimize: choosing experts (top-k MoE) and
adding their weighted results up.
"""

from collections import Counter
from collections.abc import Sequence

from kvplan.engines.ggml.tensor import Tensor

MAX_WEIGHTED_EXPERTS = 15
# topk-moe.cu: expert counts with a kernel, besides powers of two up to 512.
ODD_EXPERT_COUNTS = (288, 576)
STARTS_OF_A_CHOICE = frozenset(("unary", "soft_max"))


def kept_until(nodes: Sequence[Tensor], following: Tensor | None) -> dict[Tensor, list[Tensor]]:
    """Return by node the tensors that must outlive it, for one split's nodes.

    ``following`` is the next split's first node: a group that ends its split lives until that one.
    """
    kept: dict[Tensor, list[Tensor]] = {}
    index = 0
    while index < len(nodes):
        if nodes[index].op == "mul":
            reduction = _weighted_reduction(nodes, index)
            if reduction is not None:
                held, length = reduction
                _keep(kept, nodes[index + length - 1], held)
                index += length - 1
        if nodes[index].op in STARTS_OF_A_CHOICE:
            length = _choice_of_experts(nodes, index)
            end = index + length
            until = nodes[end] if end < len(nodes) else following
            if length and until is not None:
                group = nodes[index:end]
                _keep(kept, until, [each for node in group for each in (node, *node.src)])
                index += length - 1
        index += 1
    return kept


def _keep(kept: dict[Tensor, list[Tensor]], until: Tensor, held: Sequence[Tensor]) -> None:
    kept[until] = list(dict.fromkeys((*kept.get(until, ()), *held)))


def _weighted_reduction(nodes: Sequence[Tensor], index: int) -> tuple[tuple[Tensor, ...], int] | None:
    """Match experts x weights, a view of each expert's rows, and the chain of sums."""
    product = nodes[index]
    experts, weights = product.src
    num_used = product.ne[1]
    if (
        experts.ne != product.ne
        or weights.ne != (1, *product.ne[1:])
        or not experts.is_contiguous
        or not weights.is_contiguous
        or not 2 <= num_used <= MAX_WEIGHTED_EXPERTS
    ):
        return None
    length = 2 * num_used
    group = nodes[index : index + length]
    views, sums = group[1 : num_used + 1], group[num_used + 1 :]
    if len(sums) != num_used - 1 or product.num_uses != num_used:
        return None
    if any(part.op != "view" or part.view_src is not product for part in views):
        return None
    previous = views[0]
    for part, total in zip(views[1:], sums, strict=True):
        if total.op != "add" or total.src[0] is not previous or total.src[1] is not part:
            return None
        previous = total
    return (experts, weights), length


def _choice_of_experts(nodes: Sequence[Tensor], index: int) -> int:
    """Return how many nodes the fused choice of experts has, 0 where it cannot be fused."""
    start = nodes[index]

    def op(offset: int) -> str:
        return nodes[index + offset].op if index + offset < len(nodes) else ""

    def follows(offset: int) -> bool:
        return nodes[index + offset].src[0] is nodes[index + offset - 1]

    if start.op == "soft_max" and len(start.src) > 1:
        return 0
    if op(1) != "reshape" or nodes[index + 1].src[0] is not start:
        return 0
    offset = 2
    scores = start
    if op(offset) == "add" and nodes[index + offset].src[0] is start:
        scores = nodes[index + offset]
        offset += 1
    if op(offset) != "argsort" or nodes[index + offset].src[0] is not scores:
        return 0
    num_experts = nodes[index + offset].ne[0]
    if op(offset + 1) != "view" or not follows(offset + 1):
        return 0
    if op(offset + 2) != "get_rows" or nodes[index + offset + 2].src[0] is not nodes[index + 1]:
        return 0
    ids = offset + 1
    offset += 3
    norm = ("reshape", "sum_rows", "clamp", "div", "reshape")
    if (
        tuple(op(offset + step) for step in range(5)) == norm
        and all(follows(offset + step) for step in (0, 1, 2, 4))
        and nodes[index + offset + 3].src == [nodes[index + offset], nodes[index + offset + 2]]
    ):
        offset += 5
    if op(offset) == "scale" and follows(offset):
        offset += 1
    if num_experts not in ODD_EXPERT_COUNTS and (num_experts & (num_experts - 1) or num_experts > 512):
        return 0
    return offset if _inside(nodes, index, offset, ids) else 0


def _inside(nodes: Sequence[Tensor], index: int, length: int, ids: int) -> bool:
    """Tell whether no node outside reads the group's inner results (ggml_can_fuse_subgraph)."""
    group = nodes[index : index + length]
    within = Counter(operand for node in group for operand in node.src)
    return all(
        within[node] == node.num_uses for offset, node in enumerate(group) if offset not in (ids, length - 1)
    )
