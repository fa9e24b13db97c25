"""vLLM: the bytes of a recurrent layer's state on one rank.

vLLM 0.33 model_executor/layers/mamba/mamba_utils.py MambaStateShapeCalculator and the state dtypes
there. Convolutions keep ``conv_kernel - 1`` columns, one more per speculative token.
"""

from kvplan.dtypes import DTYPE_BYTES
from kvplan.frozen import dataclass
from kvplan.layers import (
    Cache,
    GatedDeltaState,
    KimiDeltaState,
    LightningState,
    Mamba1State,
    Mamba2State,
    ShortConvState,
)


@dataclass(frozen=True, slots=True)
class StateDtypes:
    """What the states are kept in: convolutions, recurrent states, linear attention's states.

    ``ssm`` "auto" is the convolution's type, but fp32 for KDA.
    """

    conv: str
    ssm: str = "auto"
    linear: str = "float32"


def state_bytes(cache: Cache, tensor: int, dtypes: StateDtypes, num_speculative: int) -> int | None:
    """Return the state's bytes on one of ``tensor`` ranks, None for a kind vLLM lacks."""
    conv = DTYPE_BYTES[dtypes.conv]
    ssm = conv if dtypes.ssm == "auto" else DTYPE_BYTES[dtypes.ssm]
    match cache:
        case Mamba1State():
            inner = cache.intermediate_size // tensor
            return inner * (cache.conv_kernel - 1) * conv + inner * cache.state_size * ssm
        case Mamba2State():
            # Groups are padded so that every rank has whole ones.
            groups = cache.n_groups if cache.n_groups % tensor == 0 else tensor
            channels = (cache.num_heads * cache.head_dim + 2 * groups * cache.state_size) // tensor
            columns = cache.conv_kernel - 1 + num_speculative
            state = cache.num_heads // tensor * cache.head_dim * cache.state_size
            return channels * columns * conv + state * ssm
        case GatedDeltaState():
            channels = 2 * cache.num_k_heads * cache.head_k_dim + cache.num_v_heads * cache.head_v_dim
            columns = cache.conv_kernel - 1 + num_speculative
            state = cache.num_v_heads // tensor * cache.head_v_dim * cache.head_k_dim
            return channels // tensor * columns * conv + state * ssm
        case KimiDeltaState():
            columns = cache.conv_kernel - 1 + num_speculative
            channels = 3 * cache.num_heads * cache.head_dim // tensor
            delta = 4 if dtypes.ssm == "auto" else DTYPE_BYTES[dtypes.ssm]
            return channels * columns * conv + cache.num_heads // tensor * cache.head_dim**2 * delta
        case LightningState():
            return cache.num_heads // tensor * cache.head_dim**2 * DTYPE_BYTES[dtypes.linear]
        case ShortConvState():
            columns = cache.conv_kernel - 1 + num_speculative
            return cache.hidden_size // tensor * columns * conv
    return None
