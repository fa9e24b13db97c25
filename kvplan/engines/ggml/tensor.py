"""A graph of tensors by shape and stride alone, in the order ggml would run it.

The operations are those that llama.cpp's graphs use, with the shapes that ggml.c gives their results.
A view shares the bytes of the tensor it looks at (``view_src``, always the root of a chain of views);
everything else is a place to allocate. Dimensions and strides count the innermost first, as in ggml.
"""

from collections.abc import Sequence

Dims = tuple[int, int, int, int]
# A layer's number and the name of one of its matrices.
Matrix = tuple[int, str]

# Types by name: elements a block and bytes a block. Others are registered by ``row_bytes`` callers.
F32, F16, I32, I64 = "f32", "f16", "i32", "i64"
_SIZES = {F32: 4, F16: 2, "bf16": 2, I32: 4, I64: 8}

VIEWS = frozenset(("view", "reshape", "permute", "transpose"))
# ggml-alloc.c ggml_op_can_inplace: results that may take the place of an operand.
IN_PLACE = frozenset(
    ("fill", "scale", "add", "add_id", "sub", "mul", "div", "sqr", "sqrt", "unary", "rope", "rms_norm",
     "clamp", "soft_max")
)  # fmt: skip


class Tensor:
    """One tensor.

    ``buffer`` is the backend that already holds it (a weight, a cache), None where it is computed;
    ``backend`` the one it was pinned to, or that the scheduler gave it. ``num_bytes`` is what it
    occupies on its own, ``scratch_bytes`` what CUDA allocates behind it; ``matrix`` is the layer's matrix
    that it is or copies, whose bytes differ from layer to layer. ``num_uses`` counts the nodes of its
    graph that read it; ``num_readers``, ``num_views`` and ``slot`` are the allocator's.
    """

    __slots__ = (
        "backend",
        "buffer",
        "is_input",
        "is_output",
        "is_weight",
        "matrix",
        "nb",
        "ne",
        "num_bytes",
        "num_readers",
        "num_uses",
        "num_views",
        "op",
        "scratch_bytes",
        "seen",
        "slot",
        "src",
        "type",
        "view_src",
    )

    def __init__(
        self,
        op: str,
        ne: Dims,
        src: Sequence["Tensor"] = (),
        *,
        type: str = F32,  # noqa: A002 - ggml's name
        nb: Dims | None = None,
        view_src: "Tensor | None" = None,
    ) -> None:
        # By the thousand in a graph: a plain body, without calls.
        size = _SIZES.get(type, 1)
        self.op = op
        self.ne = ne
        self.type = type
        self.src = list(src)
        if nb is None:
            second = size * ne[0]
            third = second * ne[1]
            fourth = third * ne[2]
            self.nb = (size, second, third, fourth)
            self.num_bytes = fourth * ne[3]
        else:
            self.nb = nb
            self.num_bytes = _occupied(ne, nb, size)
        self.view_src: Tensor | None = None if view_src is None else view_src.view_src or view_src
        self.buffer: int | None = None
        self.backend: int | None = None
        self.slot: int | None = None
        self.matrix: Matrix | None = None
        self.is_weight = self.is_input = self.is_output = self.seen = False
        self.scratch_bytes = self.num_uses = self.num_readers = self.num_views = 0

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie one behind the other."""
        return self.nb == contiguous(self.ne, _SIZES.get(self.type, 1))

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        ne = self.ne
        return ne[0] * ne[1] * ne[2] * ne[3]

    @property
    def place(self) -> int | None:
        """The backend that holds its bytes already, or those it views."""
        return self.buffer if self.view_src is None else self.view_src.buffer

    def __repr__(self) -> str:
        return f"{self.op}{list(self.ne)}"


def contiguous(ne: Dims, size: int) -> Dims:
    """Return the strides of a tensor without gaps."""
    second = size * ne[0]
    third = second * ne[1]
    return (size, second, third, third * ne[2])


def _occupied(ne: Dims, nb: Dims, size: int) -> int:
    # ggml.c ggml_nbytes: from the first element to the last.
    if 0 in ne:
        return 0
    return size + (ne[0] - 1) * nb[0] + (ne[1] - 1) * nb[1] + (ne[2] - 1) * nb[2] + (ne[3] - 1) * nb[3]


class Graph:
    """Nodes and leaves in ggml's order: operands before results, from the first operand to the last.

    ``starts`` are the numbers of nodes that were there when each layer was begun.
    """

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.starts: list[int] = []

    def expand(self, tensor: Tensor) -> Tensor:
        """Add a tensor and what it needs (ggml.c ggml_visit_parents)."""
        if tensor.seen:
            return tensor
        tensor.seen = True
        for operand in tensor.src:
            if not operand.seen:
                self.expand(operand)
            operand.num_uses += 1
        (self.leaves if tensor.op == "none" else self.nodes).append(tensor)
        return tensor


def weight(ne: Sequence[int], buffer: int, num_bytes: int | None = None) -> Tensor:
    """Return a weight that ``buffer``'s backend holds; ``num_bytes`` where it is quantized."""
    tensor = Tensor("none", dims(ne))
    tensor.buffer, tensor.is_weight = buffer, True
    if num_bytes is not None:
        tensor.num_bytes = num_bytes
    return tensor


def stored(ne: Sequence[int], type: str, buffer: int) -> Tensor:  # noqa: A002
    """Return a cache tensor that ``buffer``'s backend holds."""
    tensor = Tensor("none", dims(ne), type=type)
    tensor.buffer = buffer
    return tensor


def given(ne: Sequence[int], type: str = F32) -> Tensor:  # noqa: A002
    """Return an input that the caller fills for each batch."""
    tensor = Tensor("none", dims(ne), type=type)
    tensor.is_input = True
    return tensor


def dims(ne: Sequence[int]) -> Dims:
    """Return four dimensions, those not given being 1."""
    match ne:
        case (first, second):
            return (first, second, 1, 1)
        case (first, second, third):
            return (first, second, third, 1)
        case (first,):
            return (first, 1, 1, 1)
    first, second, third, fourth = ne
    return (first, second, third, fourth)


def like(op: str, *operands: Tensor) -> Tensor:
    """Return an elementwise result with the first operand's shape (``add``, ``silu``, ``rope`` …).

    In ggml these are duplicates of the first operand: without its gaps.
    """
    return Tensor(op, operands[0].ne, operands, type=operands[0].type)


def mul_mat(matrix: Tensor, other: Tensor) -> Tensor:
    """Return [matrix rows, other's rows …]."""
    return Tensor("mul_mat", (matrix.ne[1], *other.ne[1:]), (matrix, other))


def mul_mat_id(matrices: Tensor, other: Tensor, ids: Tensor) -> Tensor:
    """Return each token through its experts: [rows, experts used, tokens]."""
    return Tensor("mul_mat_id", (matrices.ne[1], ids.ne[0], other.ne[2], 1), (matrices, other, ids))


def get_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Return the rows of ``table`` that ``ids`` names."""
    return Tensor("get_rows", (table.ne[0], ids.ne[0], ids.ne[1], ids.ne[2]), (table, ids))


def glu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """Return a gated activation: of two tensors, or of the halves of one."""
    if up is None:
        return Tensor("glu", (gate.ne[0] // 2, *gate.ne[1:]), (gate,))
    return Tensor("glu", gate.ne, (gate, up))


def sum_rows(tensor: Tensor) -> Tensor:
    """Return the sum of each row."""
    return Tensor("sum_rows", (1, *tensor.ne[1:]), (tensor,))


def concat(first: Tensor, second: Tensor, axis: int) -> Tensor:
    """Return two tensors joined along ``axis``."""
    ne = list(first.ne)
    ne[axis] += second.ne[axis]
    return Tensor("concat", dims(ne), (first, second))


def repeat(tensor: Tensor, ne: Sequence[int]) -> Tensor:
    """Return a tensor repeated to a shape."""
    return Tensor("repeat", dims(ne), (tensor,), type=tensor.type)


def cont(tensor: Tensor, ne: Sequence[int] | None = None) -> Tensor:
    """Return a copy without gaps, in another shape if asked."""
    return Tensor("cont", dims(ne) if ne is not None else tensor.ne, (tensor,), type=tensor.type)


def cast(tensor: Tensor, type: str) -> Tensor:  # noqa: A002
    """Return a copy in another type."""
    return Tensor("cpy", tensor.ne, (tensor,), type=type)


def argsort_top_k(tensor: Tensor, count: int) -> Tensor:
    """Return the places of the ``count`` largest of each row: a view of all places sorted."""
    order = Tensor("argsort", tensor.ne, (tensor,), type=I32)
    return view(order, (count, *tensor.ne[1:]), order.nb)


def view(tensor: Tensor, ne: Sequence[int], nb: Dims | None = None) -> Tensor:
    """Return a part of a tensor, without gaps or with given strides."""
    return Tensor("view", dims(ne), (tensor,), type=tensor.type, nb=nb, view_src=tensor)


def reshape(tensor: Tensor, ne: Sequence[int]) -> Tensor:
    """Return the same elements in another shape."""
    return Tensor("reshape", dims(ne), (tensor,), type=tensor.type, view_src=tensor)


def permute(tensor: Tensor, axes: tuple[int, int, int, int]) -> Tensor:
    """Return a view whose axis ``axes[i]`` is the tensor's axis ``i``."""
    ne, nb = [1] * 4, [0] * 4
    for index, axis in enumerate(axes):
        ne[axis], nb[axis] = tensor.ne[index], tensor.nb[index]
    result = Tensor(
        "permute", dims(ne), (tensor,), type=tensor.type, nb=(nb[0], nb[1], nb[2], nb[3]), view_src=tensor
    )
    result.num_bytes = tensor.num_bytes
    return result


def transpose(tensor: Tensor) -> Tensor:
    """Return a view with the first two axes exchanged."""
    ne, nb = tensor.ne, tensor.nb
    return Tensor(
        "transpose",
        (ne[1], ne[0], ne[2], ne[3]),
        (tensor,),
        type=tensor.type,
        nb=(nb[1], nb[0], nb[2], nb[3]),
        view_src=tensor,
    )


def set_rows(table: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Return ``table`` after ``rows`` were written to it: a view."""
    return Tensor("set_rows", table.ne, (rows, ids, table), type=table.type, nb=table.nb, view_src=table)


def copy_to(tensor: Tensor, target: Tensor) -> Tensor:
    """Return ``target`` after ``tensor`` was copied to it: a view."""
    return Tensor("cpy", target.ne, (tensor, target), type=target.type, nb=target.nb, view_src=target)
