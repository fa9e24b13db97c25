"""The tensors of a recurrent layer's state, in the shapes that papers and engines give them.

Convolutions keep a column a channel for each of ``columns`` steps, states are matrices. Engines
differ in the columns (transformers keeps ``conv_kernel``, others one less) and in the types.
"""

from kvplan.errors import CannotTell
from kvplan.frozen import dataclass
from kvplan.layers import (
    Cache,
    GatedDeltaState,
    KimiDeltaState,
    LightningState,
    Mamba1State,
    Mamba2State,
    RgLruState,
    RwkvState,
    ShortConvState,
    XlstmState,
    kind_name,
)
from kvplan.verify.storage import TensorShape


@dataclass(frozen=True, slots=True)
class StateTypes:
    """An engine's choices: types of convolutions, states, linear attention, and extra columns.

    ``extra_columns`` is added to ``conv_kernel - 1``; ``gated`` is the type of Griffin's row.
    """

    conv: str
    state: str
    delta: str
    linear: str
    extra_columns: int = 0
    rg_lru_extra_columns: int = 0


def state_tensors(cache: Cache, num_sequences: int, types: StateTypes) -> tuple[TensorShape, ...]:
    """Return one layer's state tensors for ``num_sequences``. Raises CannotTell for attention."""
    batch = num_sequences
    match cache:
        case Mamba1State():
            columns = cache.conv_kernel - 1 + types.extra_columns
            return (
                TensorShape("conv state", types.conv, (batch, cache.intermediate_size, columns)),
                TensorShape("ssm state", types.state, (batch, cache.intermediate_size, cache.state_size)),
            )
        case Mamba2State():
            columns = cache.conv_kernel - 1 + types.extra_columns
            channels = cache.num_heads * cache.head_dim + 2 * cache.n_groups * cache.state_size
            state = (batch, cache.num_heads, cache.head_dim, cache.state_size)
            return (
                TensorShape("conv state", types.conv, (batch, channels, columns)),
                TensorShape("ssm state", types.state, state),
            )
        case GatedDeltaState():
            columns = cache.conv_kernel - 1 + types.extra_columns
            channels = 2 * cache.num_k_heads * cache.head_k_dim + cache.num_v_heads * cache.head_v_dim
            state = (batch, cache.num_v_heads, cache.head_k_dim, cache.head_v_dim)
            return (
                TensorShape("conv state", types.conv, (batch, channels, columns)),
                TensorShape("delta state", types.state, state),
            )
        case KimiDeltaState():
            columns = cache.conv_kernel - 1 + types.extra_columns
            inner = cache.num_heads * cache.head_dim
            return (
                *(
                    TensorShape(f"{name} conv state", types.conv, (batch, inner, columns))
                    for name in ("query", "key", "value")
                ),
                TensorShape(
                    "delta state", types.delta, (batch, cache.num_heads, cache.head_dim, cache.head_dim)
                ),
            )
        case LightningState():
            return (
                TensorShape(
                    "linear state", types.linear, (batch, cache.num_heads, cache.head_dim, cache.head_dim)
                ),
            )
        case ShortConvState():
            columns = cache.conv_kernel - 1 + types.extra_columns
            return (TensorShape("conv state", types.conv, (batch, cache.hidden_size, columns)),)
        case RgLruState():
            columns = cache.conv_kernel - 1 + types.rg_lru_extra_columns
            return (
                TensorShape("recurrent state", "float32", (batch, cache.lru_width)),
                TensorShape("conv state", types.conv, (batch, cache.lru_width, columns)),
            )
        case RwkvState():
            return (
                TensorShape("shift rows", types.conv, (batch, cache.num_model_dtype_rows, cache.hidden_size)),
                TensorShape("wkv state", "float32", (batch, cache.num_float32_elements)),
            )
        case XlstmState():
            return (
                TensorShape(
                    "matrix memory",
                    types.conv,
                    (batch, cache.num_heads, cache.qk_head_dim, cache.v_head_dim),
                ),
                TensorShape("key row", types.conv, (batch, cache.num_heads, cache.qk_head_dim)),
                TensorShape("scalar", types.conv, (batch, cache.num_heads, 1)),
            )
    raise CannotTell(
        f"{kind_name(cache)} is no recurrent state", why="it has keys and values", hint="see: kvplan show"
    )
