"""vLLM's KV cache planner: layers of one model become groups that share one pool of blocks.

vLLM 0.33 v1/core/kv_cache_planning.py and platforms/interface.py, checked against runs of that
planner. Layers of the whole model are grouped; a pipeline stage holds its part of every group. A
block serves one group at a time.
"""

from collections.abc import Collection, Sequence
from math import lcm

from kvplan.engines.vllm.pages import LayerSpec
from kvplan.engines.vllm.pool import Group, PoolLayout, stage_bytes
from kvplan.frozen import dataclass, replace
from kvplan.units import ceil_div

DEFAULT_BLOCK_SIZE = 16
MLA_HYBRID_BLOCK_SIZE = 128
# Groups of nearly equal kinds are made as large as the larger kind, others as the smallest.
NEARLY_EQUAL = 1.5
# Kinds that one block table can serve together: all need the same tokens.
FULL_KINDS = frozenset(("full", "mla"))
LOCAL_KINDS = frozenset(("sliding", "sliding_mla", "chunked"))

Counted = tuple[LayerSpec, int]


@dataclass(frozen=True, slots=True)
class PoolRules:
    """What shapes the pool beside the layers.

    ``block_size`` is the attention block in tokens before hybrids align it. ``mamba_mode`` is
    ``align`` (prefix caching) or ``none``, where a state's block spans ``max_model_len``.
    ``unify_windows`` is what ``--disable-hybrid-kv-cache-manager`` does: windows and chunks are kept
    in full. ``dcp`` ranks share the tokens of full attention. ``num_checkpoints`` state blocks are held
    for what a kernel hands out while it works on a prompt, at multiples of ``checkpoint_alignment`` tokens.
    """

    block_size: int = DEFAULT_BLOCK_SIZE
    mamba_mode: str = "align"
    num_speculative: int = 0
    max_model_len: int = 0
    unify_windows: bool = False
    dcp: int = 1
    num_checkpoints: int = 0
    checkpoint_alignment: int = 1


def num_slots(rules: PoolRules) -> int:
    """Return the state blocks of a request: two with prefix caching (``align``), one without.

    More where a kernel hands states out while a prompt is worked on.
    """
    if rules.mamba_mode != "align":
        return 1 + rules.num_speculative
    return 2 + rules.num_speculative + rules.num_checkpoints


def hybrid_block_size(specs: Collection[LayerSpec], block_size: int, checkpoint_alignment: int = 1) -> int:
    """Return the attention block size that holds a whole recurrent state.

    ``_align_hybrid_block_size``: the smallest multiple of the kernel's block, and of the offsets where
    states can be handed out, whose attention page is at least the state's. Hybrids with latent attention
    align to 128.
    """
    states = [spec.state_bytes for spec in specs if spec.kind == "mamba"]
    attention = [spec for spec in specs if spec.bytes_per_token and spec.kind != "cross"]
    if not states or not attention:
        return block_size
    floor = MLA_HYBRID_BLOCK_SIZE if any(spec.kind == "mla" for spec in attention) else DEFAULT_BLOCK_SIZE
    unit = lcm(max(block_size, floor), checkpoint_alignment)
    per_token = max(spec.bytes_per_token for spec in attention)
    return max(block_size, unit * ceil_div(max(states), unit * per_token))


def pool_layout(
    stages: Sequence[Sequence[Counted]], rules: PoolRules, drafting: Sequence[Counted] = ()
) -> PoolLayout:
    """Plan the pool from each pipeline stage's specs in layer order, with how many layers have each.

    ``drafting`` are the layers of a draft model on the last stage: planned with the others, but the
    blocks of a hybrid are aligned by the served model's config alone. Stages without any cache give a
    pool without groups (encoder layers only).
    """
    own = [spec for stage in stages for spec, count in stage if count]
    if drafting:
        stages = [*stages[:-1], [*stages[-1], *drafting]]
    promotes = rules.unify_windows and _promotes({spec for stage in stages for spec, count in stage if count})
    layers = [
        [(_as_full(spec) if promotes else spec, count) for spec, count in stage if count] for stage in stages
    ]
    merged: dict[LayerSpec, int] = {}
    for stage in layers:
        for spec, count in stage:
            merged[spec] = merged.get(spec, 0) + count
    slots = num_slots(rules)
    if not merged:
        return PoolLayout((), (0,) * len(layers), rules.block_size, 0, rules.dcp)
    block = hybrid_block_size(own, rules.block_size, rules.checkpoint_alignment)
    sized = {spec: replace(spec, block_size=spec.block_size or block) for spec in merged}
    kinds = {_family(spec) for spec in sized.values()}
    groups: tuple[Group, ...]
    if len(kinds) == 1:
        groups = (_whole(merged, sized, layers),)
    elif any(spec.tokens_per_row > 1 for spec in merged):
        # Backends of compressed rows ask for a layout with the layers inside the block.
        from kvplan.engines.vllm.packed import packed_groups

        groups = packed_groups(merged, sized, layers)
    else:
        mamba_block = rules.max_model_len if rules.mamba_mode == "none" else block
        groups = _split(merged, _unified(sized, mamba_block), layers)
    return PoolLayout(groups, stage_bytes(groups, len(layers)), block, slots, rules.dcp)


def _promotes(specs: Collection[LayerSpec]) -> bool:
    """Tell whether windows and chunks become full attention: only beside layers that are full already.

    ``_promote_local_kv_cache_specs``.
    """
    kinds = {spec.kind for spec in specs}
    return bool(kinds & FULL_KINDS) and bool(kinds & LOCAL_KINDS)


def _as_full(spec: LayerSpec) -> LayerSpec:
    if spec.kind in ("sliding", "chunked"):
        return LayerSpec("full", spec.bytes_per_token)
    return replace(spec, kind="mla", window=0) if spec.kind == "sliding_mla" else spec


def _family(spec: LayerSpec) -> tuple[str, int, int]:
    """Return what layers must share to live in one group whatever their sizes.

    ``UniformTypeKVCacheSpecs.is_uniform_type``: the same block size and kind, for windows the same
    window, for states the same size.
    """
    kind = "full" if spec.kind in FULL_KINDS else spec.kind
    return kind, spec.block_size, spec.state_bytes if kind == "mamba" else spec.window


def _whole(
    merged: dict[LayerSpec, int], sized: dict[LayerSpec, LayerSpec], layers: Sequence[Sequence[Counted]]
) -> Group:
    """One group of everything; where sizes differ its page is the sum over its layers."""
    bytes_by_stage = tuple(
        sum(sized[spec].page_size_bytes(sized[spec].block_size) * count for spec, count in stage)
        for stage in layers
    )
    first = next(iter(sized.values()))
    if len(merged) == 1:
        page = first.page_size_bytes(first.block_size)
        return Group(first.kind, sum(merged.values()), first.block_size, page, first.window, bytes_by_stage)
    return Group(
        first.kind, sum(merged.values()), first.block_size, sum(bytes_by_stage), first.window, bytes_by_stage
    )


def _unified(sized: dict[LayerSpec, LayerSpec], mamba_block: int) -> dict[LayerSpec, tuple[int, int]]:
    """Return (block size, page) of each spec with all pages made equal.

    ``unify_kv_cache_spec_page_size``: a smaller page whose size divides the largest gets a larger
    block; any other is padded.
    """
    pages = {spec: given.page_size_bytes(given.block_size) for spec, given in sized.items()}
    largest = max(pages.values())
    unified: dict[LayerSpec, tuple[int, int]] = {}
    for spec, page in pages.items():
        size = sized[spec].block_size
        if spec.kind == "mamba":
            unified[spec] = (mamba_block, largest)
        elif page and largest % page == 0:
            unified[spec] = (size * (largest // page), largest)
        else:
            unified[spec] = (size, largest)
    return unified


def _split(
    merged: dict[LayerSpec, int],
    unified: dict[LayerSpec, tuple[int, int]],
    layers: Sequence[Sequence[Counted]],
) -> tuple[Group, ...]:
    """Cut every kind into groups of one size; layer ``i`` of a kind goes to its group ``i mod n``."""
    smallest, largest = min(merged.values()), max(merged.values())
    group_size = largest if largest < NEARLY_EQUAL * smallest else smallest
    groups: list[Group] = []
    for spec, count in merged.items():
        size, page = unified[spec]
        num_groups = ceil_div(count, group_size)
        per_stage = [sum(n for other, n in stage if other == spec) for stage in layers]
        for index in range(num_groups):
            held: list[int] = []
            start = 0
            for number in per_stage:
                held.append(_in_class(start, number, index, num_groups))
                start += number
            bytes_by_stage = tuple(page * number for number in held)
            groups.append(Group(spec.kind, sum(held), size, page, spec.window, bytes_by_stage))
    return tuple(groups)


def _in_class(start: int, count: int, residue: int, modulus: int) -> int:
    """Count the numbers in ``start .. start + count`` that leave ``residue`` modulo ``modulus``."""

    def below(end: int) -> int:
        return ceil_div(end - residue, modulus) if end > residue else 0

    return below(start + count) - below(start)
