"""What a model stores: tensors by name, shape, role and count.

Names are the checkpoint's own (Hugging Face spelling), relative to their layer. A role says what
the tensor is for, which decides whether a format quantizes it; ``split`` says how tensor
parallelism divides it.
"""

from collections.abc import Iterable
from math import prod
from typing import Literal

from kvplan.frozen import dataclass, replace

Role = Literal[
    "embedding",
    "position_embedding",
    "lm_head",
    "attention",
    "indexer",
    "mlp",
    "expert",
    "shared_expert",
    "router",
    "norm",
    "recurrent",
    "encoder",
    "vision",
    "audio",
    "projector",
    "mtp",
    "other",
]

Split = Literal["none", "out", "in", "kv", "vocab"]
"""How tensor parallelism divides a tensor.

``out`` by rows of the matrix (the layer's outputs), ``in`` by its columns (the inputs), ``kv`` by
key-value heads (replicated when there are fewer heads than ranks), ``vocab`` by vocabulary rows,
``none`` a full copy on every rank.
"""


@dataclass(frozen=True, slots=True)
class Tensor:
    """``count`` identical tensors of ``shape``; a token uses ``num_active`` of them.

    ``dtype`` is set only where the checkpoint keeps the tensor in that type whatever the weights
    format (``float32`` for Mamba's ``A_log``). ``num_heads`` is the number of units that a ``kv``
    split can divide.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    count: int = 1
    num_active: int | None = None
    split: Split = "none"
    num_heads: int = 0
    dtype: str | None = None

    @property
    def num_elements(self) -> int:
        """Number of elements of all copies."""
        return prod(self.shape) * self.count

    @property
    def num_active_elements(self) -> int:
        """Number of elements that one token's forward pass uses."""
        copies = self.count if self.num_active is None else self.num_active
        return prod(self.shape) * copies


def linear(
    name: str,
    num_out: int,
    num_in: int,
    role: Role,
    *,
    bias: bool = False,
    split: Split = "none",
    num_heads: int = 0,
    count: int = 1,
    num_active: int | None = None,
) -> tuple[Tensor, ...]:
    """Return a linear layer: a [num_out, num_in] weight and, with ``bias``, a [num_out] vector."""
    weight = Tensor(f"{name}.weight", (num_out, num_in), role, count, num_active, split, num_heads)
    if not bias:
        return (weight,)
    # A row-parallel layer adds its bias once, after the reduction: every rank keeps it whole.
    bias_split: Split = "none" if split == "in" else split
    return (
        weight,
        Tensor(f"{name}.bias", (num_out,), role, count, num_active, bias_split, num_heads),
    )


def norm(name: str, size: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    """Return a normalization's weight (and bias) of ``size`` elements."""
    weight = Tensor(f"{name}.weight", (size,), "norm")
    return (weight, Tensor(f"{name}.bias", (size,), "norm")) if bias else (weight,)


def norms_of(size: int, *names: str, bias: bool = False) -> tuple[Tensor, ...]:
    """Return one normalization of ``size`` elements for each of ``names``."""
    return tuple(tensor for name in names for tensor in norm(name, size, bias=bias))


def embedding(name: str, num_rows: int, size: int) -> Tensor:
    """Return a [num_rows, size] token embedding."""
    return Tensor(f"{name}.weight", (num_rows, size), "embedding", split="vocab")


def lm_head(num_rows: int, size: int, *, bias: bool = False, name: str = "lm_head") -> tuple[Tensor, ...]:
    """Return the untied output projection [num_rows, size]."""
    return linear(name, num_rows, size, "lm_head", bias=bias, split="vocab")


def repeat(tensors: Iterable[Tensor], times: int) -> tuple[Tensor, ...]:
    """Return the same tensors ``times`` over, for stacks that are not decoder layers."""
    return tuple(
        replace(
            tensor,
            count=tensor.count * times,
            num_active=None if tensor.num_active is None else tensor.num_active * times,
        )
        for tensor in tensors
    )


def with_role(tensors: Iterable[Tensor], role: Role) -> tuple[Tensor, ...]:
    """Return the tensors counted under another role (a vision tower's attention is ``vision``)."""
    return tuple(replace(tensor, role=role) for tensor in tensors)


def num_elements(tensors: Iterable[Tensor]) -> int:
    """Add up the elements of ``tensors``."""
    return sum(tensor.num_elements for tensor in tensors)
