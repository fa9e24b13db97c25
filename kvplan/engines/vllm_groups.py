"""vLLM's KV cache planner: groups of layers, block sizes, blocks a request needs.

vLLM 0.33 v1/core/kv_cache_planning.py and platforms/interface.py, checked against 82 runs of that
planner. All layers of one rank share one pool of blocks; layers are cut into groups of equal size,
and a block serves one group at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.engines.vllm_pages import LayerSpec
from kvplan.units import ceil_div

DEFAULT_BLOCK_SIZE = 16
MLA_HYBRID_BLOCK_SIZE = 128
# Groups of nearly equal kinds are made as large as the larger kind, others as the smallest.
NEARLY_EQUAL = 1.5


@dataclass(frozen=True, slots=True)
class Group:
    """Layers of one kind that share block tables.

    ``num_layers`` of them really exist, the group is padded to the largest; ``block_size`` is in
    tokens; ``page_size_bytes`` of one layer's block (for one mixed group: of all of them).
    """

    kind: str
    num_layers: int
    block_size: int
    page_size_bytes: int
    window: int = 0


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """One rank's pool: its groups, what a block costs, and how a request is counted.

    ``num_slots`` are the state blocks a request takes in each recurrent group.
    """

    groups: tuple[Group, ...]
    bytes_per_block: int
    block_size: int
    num_slots: int
    dcp: int = 1

    def blocks_per_request(self, num_tokens: int, in_flight: int, encoder_tokens: int = 0) -> int:
        """Return the blocks that one request of ``num_tokens`` needs, summed over groups.

        ``in_flight`` are the tokens scheduled but not yet finished, which windows must keep.
        """
        blocks = 0
        for group in self.groups:
            size = group.block_size
            match group.kind:
                case "full" | "mla":
                    blocks += ceil_div(ceil_div(num_tokens, self.dcp), size)
                case "sliding":
                    held = min(group.window - 1 + in_flight, num_tokens)
                    blocks += -(-held // size) + 1
                case "chunked":
                    blocks += -(-min(group.window + in_flight, num_tokens) // size)
                case "mamba":
                    blocks += self.num_slots
                case "cross":
                    blocks += -(-(group.window or encoder_tokens) // size)
        return blocks


def num_slots(mode: str, num_speculative: int) -> int:
    """Return the state blocks of a request: two with prefix caching (``align``), one without."""
    return (2 if mode == "align" else 1) + num_speculative


def hybrid_block_size(specs: Sequence[LayerSpec], block_size: int) -> int:
    """Return the attention block size that holds a whole recurrent state.

    ``_align_hybrid_block_size``: the smallest multiple of the kernel's block whose attention page is
    at least the state's. Hybrids with latent attention align to 128.
    """
    states = [spec.state_bytes for spec in specs if spec.kind == "mamba"]
    attention = [spec for spec in specs if spec.kind in ("full", "mla", "sliding", "chunked")]
    if not states or not attention:
        return block_size
    unit = max(block_size, MLA_HYBRID_BLOCK_SIZE if any(s.kind == "mla" for s in attention) else 16)
    per_token = max(spec.bytes_per_token for spec in attention)
    return unit * ceil_div(max(states), unit * per_token)


def pool_layout(
    counted: Sequence[tuple[LayerSpec, int]],
    *,
    block_size: int,
    mamba_mode: str = "align",
    num_speculative: int = 0,
    max_model_len: int = 0,
    unify_windows: bool = False,
    dcp: int = 1,
) -> PoolLayout:
    """Plan one rank's pool from its specs and how many layers have each.

    ``unify_windows`` is what ``--disable-hybrid-kv-cache-manager`` does: windows and chunks are kept
    in full. An empty list gives a pool without groups (a rank of encoder layers only).
    """
    specs = [(_as_full(spec) if unify_windows else spec, count) for spec, count in counted if count]
    merged: dict[LayerSpec, int] = {}
    for spec, count in specs:
        merged[spec] = merged.get(spec, 0) + count
    if not merged:
        return PoolLayout((), 0, block_size, 0, dcp)
    block = hybrid_block_size(list(merged), block_size)
    slots = num_slots(mamba_mode, num_speculative)
    groups = _groups(merged, block, max_model_len if mamba_mode == "none" else block)
    bytes_per_block = _bytes_per_block(groups)
    return PoolLayout(groups, bytes_per_block, block, slots, dcp)


def _as_full(spec: LayerSpec) -> LayerSpec:
    return LayerSpec("full", spec.bytes_per_token) if spec.kind in ("sliding", "chunked") else spec


def _groups(merged: dict[LayerSpec, int], block: int, mamba_block: int) -> tuple[Group, ...]:
    kinds = {spec.kind for spec in merged}
    if kinds in ({"full"}, {"mla"}):
        # One kind, whatever the sizes: one group whose page is the sum over its layers.
        if len(merged) == 1:
            spec, count = next(iter(merged.items()))
            return (Group(spec.kind, count, block, spec.bytes_per_token * block),)
        page = sum(spec.bytes_per_token * block * count for spec, count in merged.items())
        return (Group(next(iter(kinds)), 1, block, page),)
    return _split(merged, _unified(merged, block, mamba_block))


def _unified(merged: dict[LayerSpec, int], block: int, mamba_block: int) -> dict[LayerSpec, tuple[int, int]]:
    """Return (block size, page) of each spec with all pages made equal.

    A smaller page whose size divides the largest gets a larger block; any other is padded.
    """
    pages = {
        spec: (spec.state_bytes if spec.kind == "mamba" else spec.bytes_per_token * block) for spec in merged
    }
    largest = max(pages.values())
    unified: dict[LayerSpec, tuple[int, int]] = {}
    for spec, page in pages.items():
        if spec.kind == "mamba":
            unified[spec] = (mamba_block, largest)
        elif page and largest % page == 0:
            unified[spec] = (block * (largest // page), largest)
        else:
            unified[spec] = (block, largest)
    return unified


def _split(merged: dict[LayerSpec, int], unified: dict[LayerSpec, tuple[int, int]]) -> tuple[Group, ...]:
    by_type: dict[tuple[str, int, int, int], int] = {}
    for spec, count in merged.items():
        size, page = unified[spec]
        # Recurrent layers of different sizes are one type once their pages are equal.
        window = 0 if spec.kind == "mamba" else spec.window
        key = (spec.kind, size, page, window)
        by_type[key] = by_type.get(key, 0) + count
    smallest, largest = min(by_type.values()), max(by_type.values())
    group_size = largest if largest < NEARLY_EQUAL * smallest else smallest
    groups: list[Group] = []
    for (kind, size, page, window), count in by_type.items():
        num_groups = ceil_div(count, group_size)
        for index in range(num_groups):
            num_layers = count // num_groups + (1 if index < count % num_groups else 0)
            groups.append(Group(kind, num_layers, size, page, window))
    return tuple(groups)


def _bytes_per_block(groups: tuple[Group, ...]) -> int:
    return max(group.num_layers * group.page_size_bytes for group in groups)
