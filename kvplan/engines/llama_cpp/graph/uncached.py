"""Attention without a cache: embedding models and diffusion models see a whole batch at once.

src/llama-graph.cpp build_attn_inp_no_cache; windows by load_swa_pattern in src/models/modern-bert.cpp
and gemma-embedding.cpp. Such layers cache nothing, so their heads are read from their matrices.
"""

from collections.abc import Mapping, Sequence

from kvplan.engines.llama_cpp.graph.shapes import Attention
from kvplan.frozen import dataclass
from kvplan.layers import Layer
from kvplan.tensors import Tensor

# Of every so many layers one attends to the whole batch: the first or the last.
WINDOW_PERIODS = {"modern-bert": (3, True), "gemma-embedding": (6, False)}
_WINDOW_NAMES = ("sliding_window", "local_attention")
_PERIOD_NAMES = ("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")
_KEYS = (".k_proj.weight", "attention.self.key.weight")
_JOINT = (".qkv_proj.weight", ".query_key_value.weight", ".Wqkv.weight", ".qkv.weight")
_OUTPUTS = (".o_proj.weight", ".Wo.weight", ".out_proj.weight", "attention.output.dense.weight")
_SECOND_NORM = "attn_norm_2.weight"


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads and, where the file says it, the size of each."""

    num_heads: int
    head_dim: int


def attention_of(layer: Layer, heads: Heads, *, windowed: bool) -> Attention | None:
    """Return a layer's attention by the shapes of its matrices, None where it has none."""
    tensors = [tensor for tensor in layer.tensors if tensor.role == "attention"]
    output = _ending(tensors, _OUTPUTS)
    if output is None or not heads.num_heads:
        return None
    head_dim = heads.head_dim or output.shape[-1] // heads.num_heads
    joint, key = _ending(tensors, _JOINT), _ending(tensors, _KEYS)
    if joint is not None:
        num_kv_heads = (joint.shape[0] // head_dim - heads.num_heads) // 2
    else:
        num_kv_heads = key.shape[0] // head_dim if key is not None else heads.num_heads
    biases = {tensor.name for tensor in tensors if tensor.name.endswith(".bias")}
    of_output = output.name.removesuffix("weight") + "bias"
    return Attention(
        heads.num_heads,
        num_kv_heads,
        head_dim,
        output.shape[-1] // heads.num_heads,
        windowed=windowed,
        stores=False,
        fused_qkv=joint is not None,
        qkv_bias=bool(biases - {of_output}),
        out_bias=of_output in biases,
        sinks=False,
        qk_normed=any("q_norm" in tensor.name for tensor in layer.tensors),
    )


def windows_of(arch: str, says: Mapping[str, object], num_layers: int) -> tuple[bool, ...]:
    """Return which layers see a window only."""
    rule = WINDOW_PERIODS.get(arch)
    if rule is None or not _number(says, arch, _WINDOW_NAMES):
        return (False,) * num_layers
    period, dense_first = rule
    period = _number(says, arch, _PERIOD_NAMES) or period
    full = 0 if dense_first else period - 1
    return tuple(index % period != full for index in range(num_layers))


def is_odd(layer: Layer, arch: str) -> bool:
    """Tell whether a layer has two norms behind its attention (Jina) or none before it (ModernBERT)."""
    if arch == "modern-bert":
        return not any("attn_norm" in tensor.name for tensor in layer.tensors)
    return any(tensor.name.endswith(_SECOND_NORM) for tensor in layer.tensors)


def _ending(tensors: Sequence[Tensor], names: tuple[str, ...]) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name.endswith(names)), None)


def _number(says: Mapping[str, object], arch: str, names: Sequence[str]) -> int:
    for name in names:
        value = says.get(f"{arch}.attention.{name}", says.get(name))
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0
