"""LoRA adapters loaded beside a model: a pair of matrices of ``rank`` on each adapted projection.

LoRA (arXiv 2106.09685): a [num_out, num_in] projection gets [rank, num_in] and [num_out, rank]. Which
projections are adapted is the adapter's own choice, so the bounds are the queries and values alone in 16
bits (PEFT's default targets for most models) and everything linear in 32 bits (PEFT keeps adapters in
fp32 beside a 16-bit model; llama.cpp's convert_lora_to_gguf.py writes f32 unless told otherwise).
"""

from functools import lru_cache

from kvplan.model import ModelSpec
from kvplan.quantity import ZERO, Quantity, total

LINEAR_ROLES = frozenset(("attention", "mlp", "shared_expert", "recurrent"))
QUERY_AND_VALUE = ("q_proj.weight", "v_proj.weight", "qkv_proj.weight", "query_key_value.weight")


# Bytes of an element at least, usually, at most; ranks of adapters that nobody read.
WIDTHS = (2, 4, 4)
UNREAD_RANKS = (8, 32, 128)


def adapters_bytes(
    model: ModelSpec, ranks: tuple[int, ...], widths: tuple[int, int, int] = WIDTHS
) -> Quantity:
    """Return the bytes of adapters of these ranks, all loaded at once, elements of these ``widths``."""
    least, usual, most = (width * each for width, each in zip(widths, _elements_a_rank(model), strict=True))
    why = "LoRA: queries and values in 16 bits, to every projection in 32"
    each = (Quantity(rank * least, rank * usual, rank * most, "assumed", why) for rank in ranks)
    return total((ZERO, *each))


def unread_adapters_bytes(model: ModelSpec, count: int) -> Quantity:
    """Return the bytes of ``count`` adapters in 16 bits whose files were not read."""
    least, usual, most = (
        2 * rank * each for rank, each in zip(UNREAD_RANKS, _elements_a_rank(model), strict=True)
    )
    if not count:
        return ZERO
    return Quantity(count * least, count * usual, count * most, "assumed", "LoRA: ranks of 8 to 128")


def divided_adapters_bytes(
    model: ModelSpec, ranks: tuple[int, ...], num_unread: int, num_devices: int, why: str
) -> Quantity:
    """Return one device's part of adapters in 16 bits: of these ranks, else of ``num_unread`` unread ones.

    The lower bound is divided over ``num_devices``: which projections can be is the adapter's choice.
    """
    found = adapters_bytes(model, ranks, (2, 2, 2)) if ranks else unread_adapters_bytes(model, num_unread)
    if not found.high:
        return ZERO
    return Quantity(found.low // num_devices, found.expected, found.high, "assumed", why)


@lru_cache(maxsize=256)
def _elements_a_rank(model: ModelSpec) -> tuple[int, int, int]:
    """Return the elements of one rank over queries and values, all dense projections, experts too."""
    least = usual = experts = 0
    for group in model.layers:
        for tensor in group.layer.tensors:
            if len(tensor.shape) != 2 or "conv" in tensor.name:
                continue
            pair = sum(tensor.shape) * group.count
            if tensor.role in LINEAR_ROLES:
                usual += pair
                least += pair * tensor.name.endswith(QUERY_AND_VALUE)
            elif tensor.role == "expert":
                experts += pair * tensor.count
    return least, usual, usual + experts
