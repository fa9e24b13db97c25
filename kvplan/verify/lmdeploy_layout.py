"""LMDeploy's tensors: blocks of keys, values, and their scales and zero points, layer by layer.

PyTorch backend: LMDeploy 0.18 pytorch/engine/cache_engine/schema.py (``[block, heads, head_size]`` for
keys and values, ``[block, heads, 2]`` scales and zero points in the model's type; latents without
values) and layout.py (every tensor of a block rounded up to 256 B). TurboMind: src/turbomind/kernels/
attention/block.h (data and a 16-bit scale and zero point for each row). The block that is kept for
padding, and the state slots beside those of the load, are not part of the plan's cache.
"""

from kvplan.engines.base import Plan
from kvplan.errors import CannotTell
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    FullAttention,
    GatedDeltaState,
    LatentAttention,
    SlidingWindow,
    kind_name,
)
from kvplan.model import cache_kinds
from kvplan.units import ceil_div, round_up
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup
from kvplan.verify.storage import TensorShape, rows

ALIGNMENT = 256
# Values' types by quant_policy: (keys, values, numbers beside each row of keys, of values).
POLICIES: dict[int, tuple[str, str, int, int]] = {
    4: ("4 bits", "4 bits", 2, 2),
    8: ("int8", "int8", 2, 2),
    16: ("fp8", "fp8", 0, 0),
    17: ("fp8", "fp8", 0, 0),
    42: ("4 bits", "2 bits", 2, 1),
}
PACKED = {"4 bits": 2, "2 bits": 4}


def layout(plan: Plan) -> CacheLayout:
    """Return the blocks and state slots of the asked load, one rank with every head and layer on it.

    Raises CannotTell for what the chosen backend refuses to keep and for kinds that it was not read for.
    """
    refused = next((one for one in plan.refusals if one.code == "kv-format-refused"), None)
    if refused is not None:
        raise CannotTell(
            "LMDeploy keeps no such cache", why=refused.message, hint=f"write it like {refused.fix}"
        )
    options = dict(plan.engine_options)
    turbomind = options["backend"] == "turbomind"
    policy = options["quant_policy"]
    formats = POLICIES.get(policy if isinstance(policy, int) else 0, (plan.kv_dtype_k, plan.kv_dtype_k, 0, 0))
    size = plan.cache.block_size or 1
    blocks = ceil_div(plan.context_tokens, size) * plan.num_sequences
    groups = [
        LayoutGroup(
            kind_name(cache),
            count,
            _blocks(cache, formats, (blocks, size), plan, turbomind=turbomind),
            detail=f"{blocks:,} blocks of {size} tokens",
        )
        for cache, count in cache_kinds(plan.model)
        if not isinstance(cache, GatedDeltaState)
    ]
    kinds = cache_kinds(plan.model)
    states = [(cache, count) for cache, count in kinds if isinstance(cache, GatedDeltaState)]
    if states:
        groups.append(_slots(states, plan.num_sequences))
    return CacheLayout(tuple(groups))


def _blocks(
    cache: Cache,
    formats: tuple[str, str, int, int],
    lead: tuple[int, int],
    plan: Plan,
    *,
    turbomind: bool,
) -> tuple[TensorShape, ...]:
    """Return one layer's tensors for ``lead`` = (blocks, tokens a block)."""
    own = plan.model.dtype if plan.model.dtype in ("float16", "bfloat16") else "bfloat16"
    key_format, value_format, key_numbers, value_numbers = formats
    values = True
    index: tuple[TensorShape, ...] = ()
    match cache:
        case LatentAttention() if plan.model.model_type == "minicpm3":
            heads, width = cache.num_attention_heads, cache.qk_nope_head_dim + cache.qk_rope_head_dim
        case LatentAttention():
            heads, width, values = 1, cache.kv_lora_rank + cache.qk_rope_head_dim, False
            index = _index_keys(cache, lead)
            if index and key_format == "fp8":
                raise CannotTell(
                    "LMDeploy's packed sparse rows are not laid out here",
                    why="their order in a block was not read",
                    hint="leave out --kv",
                )
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            heads, width = cache.num_key_value_heads, cache.head_dim
        case _:
            raise CannotTell(
                f"{kind_name(cache)} is not modelled under LMDeploy",
                why="there is no exact figure to hold against",
                hint="add --engine transformers",
            )
    sides = [("keys", key_format, key_numbers)]
    if values:
        sides.append(("values", value_format, value_numbers))
    tensors: list[TensorShape] = []
    for name, format_name, numbers in sides:
        tensors += _values(name, format_name, (*lead, heads), width)
        if numbers:
            tensors.append(TensorShape(f"{name} scales and zeros", own, (*lead, heads, numbers)))
    if turbomind:
        return tuple(tensors)
    if not values and value_numbers:
        # The scales are shaped after values of no width (schema.py).
        tensors.append(TensorShape("values scales and zeros", own, (*lead, heads, value_numbers)))
    return tuple(part for tensor in tensors for part in _aligned(tensor)) + index


def _values(name: str, format_name: str, lead: tuple[int, ...], width: int) -> tuple[TensorShape, ...]:
    if format_name in PACKED:
        return (TensorShape(f"{name} values", "uint8", (*lead, width // PACKED[format_name])),)
    if format_name == "int8":
        return (TensorShape(f"{name} values", "int8", (*lead, width)),)
    return rows(name, format_name, lead, width)


def _index_keys(cache: LatentAttention, lead: tuple[int, int]) -> tuple[TensorShape, ...]:
    if not cache.index_head_dim:
        return ()
    # One fp32 scale a row, whatever its width (consts.py).
    return (
        TensorShape("index keys", "float8_e4m3fn", (*lead, cache.index_head_dim)),
        TensorShape("index scales", "float32", (*lead, 1)),
    )


def _aligned(tensor: TensorShape) -> tuple[TensorShape, ...]:
    """Return a tensor with what rounds its part of each block up to 256 bytes."""
    blocks = tensor.shape[0]
    each = tensor.num_bytes // blocks
    pad = round_up(each, ALIGNMENT) - each
    return (tensor, TensorShape(f"{tensor.name} padding", "uint8", (blocks, pad))) if pad else (tensor,)


def _slots(states: list[tuple[GatedDeltaState, int]], num_sequences: int) -> LayoutGroup:
    """Return the sequences' state slots: all layers' convolutions one tensor, all matrices another.

    pytorch/configurations/qwen3_next.py: both in 16 bits, convolutions with every column.
    """
    convolutions, matrices = (
        sum(count * _elements(cache)[index] for cache, count in states) for index in (0, 1)
    )
    tensors = [
        part
        for name, elements in (("conv states", convolutions), ("delta states", matrices))
        for part in _aligned(TensorShape(name, "bfloat16", (num_sequences, elements)))
    ]
    return LayoutGroup("gated_delta_net", 1, tuple(tensors), detail=f"{num_sequences:,} slots", unit="pool")


def _elements(cache: GatedDeltaState) -> tuple[int, int]:
    channels = 2 * cache.num_k_heads * cache.head_k_dim + cache.num_v_heads * cache.head_v_dim
    return channels * cache.conv_kernel, cache.num_v_heads * cache.head_v_dim * cache.head_k_dim
