"""vLLM: groups where a block holds pages of several sizes side by side (DeepSeek-V4).

vLLM 0.33 v1/core/kv_cache_planning.py ``_get_packed_kv_cache_groups`` for layouts with the layers
inside the block: layers of one kind form a bucket; buckets that repeat a pattern of page sizes are
cut into groups of the same number of repeats, so that every group fills a block alike.
"""

from collections.abc import Sequence

from kvplan.engines.vllm.pages import LayerSpec
from kvplan.engines.vllm.pool import Group
from kvplan.units import ceil_div

Bucket = tuple[LayerSpec, ...]


def packed_groups(
    merged: dict[LayerSpec, int],
    sized: dict[LayerSpec, LayerSpec],
    layers: Sequence[Sequence[tuple[LayerSpec, int]]],
) -> tuple[Group, ...]:
    """Return the groups of a packed pool; ``sized`` has every spec with its block size filled in."""
    pages = {spec: given.page_size_bytes(given.block_size) for spec, given in sized.items()}
    buckets = _buckets(sized)
    repeats = _repeats_per_group(buckets, merged, pages)
    anchor = max(
        _widest(bucket, merged, pages, _least_groups(bucket, merged, pages, repeats)) for bucket in buckets
    )
    groups: list[Group] = []
    for bucket in buckets:
        num_groups = _num_groups(bucket, merged, pages, repeats)
        if _holds_states(bucket[0], repeats):
            per_block = max(anchor // pages[bucket[0]], 1)
            num_groups = max(num_groups, ceil_div(sum(merged[spec] for spec in bucket), per_block))
        groups += _cut(bucket, num_groups, sized, pages, layers)
    return tuple(groups)


def _buckets(sized: dict[LayerSpec, LayerSpec]) -> list[Bucket]:
    found: dict[tuple[str, int, int], list[LayerSpec]] = {}
    for spec, given in sized.items():
        kind = "full" if spec.kind in ("full", "mla") else spec.kind
        key = (kind, given.block_size, spec.state_bytes if kind == "mamba" else spec.window)
        found.setdefault(key, []).append(spec)
    return [tuple(specs) for specs in found.values()]


def _layers_by_page(bucket: Bucket, merged: dict[LayerSpec, int], pages: dict[LayerSpec, int]) -> list[int]:
    counts: dict[int, int] = {}
    for spec in bucket:
        counts[pages[spec]] = counts.get(pages[spec], 0) + merged[spec]
    return list(counts.values())


def _repeats_per_group(
    buckets: list[Bucket], merged: dict[LayerSpec, int], pages: dict[LayerSpec, int]
) -> int:
    """Return how often a group repeats the pattern, 0 where nothing needs packing."""
    balanced = [
        counts
        for counts in (_layers_by_page(bucket, merged, pages) for bucket in buckets)
        if len(set(counts)) == 1
    ]
    least = max((counts[0] for counts in balanced if len(counts) > 1), default=0)
    return _approximate_gcd([counts[0] for counts in balanced], least) if least else 0


def _approximate_gcd(values: list[int], least: int) -> int:
    """Return the size from ``least`` on that pads ``values`` up the least, the larger of equals."""
    best, best_padding = least, -1
    for size in range(least, max(values) + 1):
        padding = sum(-value % size for value in values)
        if best_padding < 0 or padding <= best_padding:
            best, best_padding = size, padding
    return best


def _num_groups(
    bucket: Bucket, merged: dict[LayerSpec, int], pages: dict[LayerSpec, int], repeats: int
) -> int:
    counts = _layers_by_page(bucket, merged, pages)
    return ceil_div(max(counts), repeats) if repeats and len(set(counts)) == 1 else 1


def _holds_states(spec: LayerSpec, repeats: int) -> bool:
    return spec.kind == "mamba" or (not repeats and spec.kind in ("sliding", "sliding_mla"))


def _least_groups(
    bucket: Bucket, merged: dict[LayerSpec, int], pages: dict[LayerSpec, int], repeats: int
) -> int:
    if _holds_states(bucket[0], repeats):
        return sum(merged[spec] for spec in bucket)
    return _num_groups(bucket, merged, pages, repeats)


def _widest(
    bucket: Bucket, merged: dict[LayerSpec, int], pages: dict[LayerSpec, int], num_groups: int
) -> int:
    """Return the page bytes of the largest of ``num_groups`` groups of a bucket."""
    counts: dict[int, int] = {}
    for spec in bucket:
        counts[pages[spec]] = counts.get(pages[spec], 0) + merged[spec]
    return sum(ceil_div(count, num_groups) * page for page, count in counts.items())


def _cut(
    bucket: Bucket,
    num_groups: int,
    sized: dict[LayerSpec, LayerSpec],
    pages: dict[LayerSpec, int],
    layers: Sequence[Sequence[tuple[LayerSpec, int]]],
) -> list[Group]:
    """Deal the layers of each page size out to ``num_groups`` groups in turn."""
    held = [[0] * len(layers) for _ in range(num_groups)]
    counts = [0] * num_groups
    position: dict[int, int] = {}
    for stage, specs in enumerate(layers):
        for spec, count in specs:
            if spec not in bucket:
                continue
            page = pages[spec]
            for _ in range(count):
                index = position.get(page, 0)
                position[page] = index + 1
                held[index % num_groups][stage] += page
                counts[index % num_groups] += 1
    first = sized[bucket[0]]
    return [
        Group(first.kind, counts[index], first.block_size, sum(by_stage), first.window, tuple(by_stage))
        for index, by_stage in enumerate(held)
    ]
