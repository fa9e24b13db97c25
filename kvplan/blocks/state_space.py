"""State-space mixers: Mamba-1 and Mamba-2, as the layers of many families hold them."""

from kvplan.layers import Mamba2State
from kvplan.tensors import Tensor, linear, norm


def _state(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, "recurrent", split="out")


def mamba1_mixer(
    hidden: int, inner: int, state: int, rank: int, kernel: int, *, name: str, bias: bool, conv_bias: bool
) -> tuple[Tensor, ...]:
    """Return Mamba-1's mixer (arXiv 2312.00752): in, convolution, x and dt projections, A, D, out."""
    return (
        *linear(f"{name}.in_proj", 2 * inner, hidden, "recurrent", bias=bias, split="out"),
        _state(f"{name}.conv1d.weight", inner, 1, kernel),
        *((_state(f"{name}.conv1d.bias", inner),) if conv_bias else ()),
        *linear(f"{name}.x_proj", rank + 2 * state, inner, "recurrent", split="in"),
        *linear(f"{name}.dt_proj", inner, rank, "recurrent", bias=True, split="out"),
        _state(f"{name}.A_log", inner, state),
        _state(f"{name}.D", inner),
        *linear(f"{name}.out_proj", hidden, inner, "recurrent", bias=bias, split="in"),
    )


def mamba2_mixer(
    hidden: int,
    cache: Mamba2State,
    *,
    name: str,
    bias: bool,
    conv_bias: bool,
    gated_norm: bool = True,
    out_bias: bool | None = None,
) -> tuple[Tensor, ...]:
    """Return Mamba-2's mixer (arXiv 2405.21060): one input projection for z, x, B, C and dt.

    ``out_bias`` is the output projection's where it has a switch of its own (Falcon-H1).
    """
    inner = cache.num_heads * cache.head_dim
    channels = inner + 2 * cache.n_groups * cache.state_size
    return (
        *linear(
            f"{name}.in_proj", inner + channels + cache.num_heads, hidden, "recurrent", bias=bias, split="out"
        ),
        _state(f"{name}.conv1d.weight", channels, 1, cache.conv_kernel),
        *((_state(f"{name}.conv1d.bias", channels),) if conv_bias else ()),
        _state(f"{name}.dt_bias", cache.num_heads),
        _state(f"{name}.A_log", cache.num_heads),
        _state(f"{name}.D", cache.num_heads),
        *(norm(f"{name}.norm", inner) if gated_norm else ()),
        *linear(
            f"{name}.out_proj",
            hidden,
            inner,
            "recurrent",
            bias=bias if out_bias is None else out_bias,
            split="in",
        ),
    )
