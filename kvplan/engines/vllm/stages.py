"""vLLM: the pipeline stages of a model: the caches of each, and the pool they share."""

from dataclasses import replace
from functools import lru_cache

from kvplan.dtypes import DTYPE_BYTES
from kvplan.engines.base import Notice
from kvplan.engines.vllm.groups import DEFAULT_BLOCK_SIZE, PoolRules, pool_layout
from kvplan.engines.vllm.kv_dtypes import TURBOQUANT, TURBOQUANT_BOUNDARY_LAYERS
from kvplan.engines.vllm.pages import LayerSpec, specs_of
from kvplan.engines.vllm.pool import PoolLayout
from kvplan.engines.vllm.speculative import UNKNOWN_TOKEN_BYTES, WITHOUT_CACHE, Speculation, draft_layers
from kvplan.engines.vllm.states import StateDtypes
from kvplan.frozen import dataclass
from kvplan.kv_formats import KV_FORMATS
from kvplan.layers import RECURRENT_STATES, Cache, LayerGroup, SlidingWindow, kind_name
from kvplan.model import ModelSpec, cache_kinds, num_layers
from kvplan.sharding import pipeline_split, stage_groups
from kvplan.textbook import cache_bytes

UNMODELLED_SAMPLE_TOKENS = 4096
# Earlier versions give every layer the block that was asked for.
WIDE_LAYERS_ALIGNED_SINCE = (0, 28)


@dataclass(frozen=True, slots=True)
class Layout:
    """A model's caches spread over its pipeline stages: one pool.

    ``unmodelled_low_bytes`` and ``unmodelled_high_bytes`` are bytes a token, on each stage, between
    which layers lie whose cache this policy does not model; zero for a model it knows.
    """

    pool: PoolLayout
    unmodelled_low_bytes: tuple[int, ...]
    unmodelled_high_bytes: tuple[int, ...]

    @property
    def is_modelled(self) -> bool:
        """Tell whether every layer's cache is known."""
        return not any(self.unmodelled_high_bytes)


@lru_cache(maxsize=2048)
def layout_of(
    model: ModelSpec,
    dtype: str,
    ranks: tuple[int, int],
    rules: PoolRules,
    states: StateDtypes,
    speculation: Speculation,
) -> Layout:
    """Spread a model over ``ranks``: tensor and pipeline."""
    tensor, pipeline = ranks
    total = num_layers(model.structure)
    boundary = _boundary(model, dtype, total)
    stages: list[list[tuple[LayerSpec, int]]] = []
    lows: list[int] = []
    highs: list[int] = []
    drafts: list[tuple[LayerSpec, int]] = []
    start = 0
    for stage, size in enumerate(pipeline_split(total, pipeline)):
        counted: list[tuple[LayerSpec, int]] = []
        low = high = 0
        for groups, layer_dtype in _runs(model, start, size, dtype, boundary):
            specs, more_low, more_high = _specs(groups, model, tensor, layer_dtype, states, rules)
            counted, low, high = counted + specs, low + more_low, high + more_high
        if stage == pipeline - 1:
            drafts, more_low, more_high = _specs(
                draft_layers(model, speculation), model, tensor, dtype, states, rules
            )
            low, high = low + more_low, high + more_high
            if speculation.is_unknown and speculation.method not in WITHOUT_CACHE:
                low += UNKNOWN_TOKEN_BYTES[0]
                high += UNKNOWN_TOKEN_BYTES[1]
        stages.append(counted)
        lows.append(low)
        highs.append(high)
        start += size
    return Layout(pool_layout(stages, rules, drafts), tuple(lows), tuple(highs))


def with_wide_layers(
    layout: Layout, model: ModelSpec, dtype: str, tensor: int, states: StateDtypes, skipped: tuple[str, ...]
) -> Layout:
    """Return the layout where ``--kv-cache-dtype-skip-layers`` keeps layers in the model's own type.

    By index, or all of a kind (``sliding_window``). How their pages are padded is not modelled: what they
    take more is between nothing and full attention of all that are named.
    """
    own = _own_dtype(model)
    more = 0
    for cache, count in cache_kinds(model):
        narrow, wide = (
            sum(spec.bytes_per_token for spec in specs_of(cache, tensor, name, states, 0) or ())
            for name in (dtype, own)
        )
        is_named = "sliding_window" in skipped and isinstance(cache, SlidingWindow)
        named = count if is_named else min(count, sum(name.isdigit() for name in skipped))
        more += max(0, wide - narrow) * named
    highs = tuple(high + more for high in layout.unmodelled_high_bytes)
    return replace(layout, unmodelled_high_bytes=highs)


@lru_cache(maxsize=512)
def has_states(model: ModelSpec) -> bool:
    """Tell whether any layer keeps a recurrent state."""
    return any(isinstance(cache, RECURRENT_STATES) for cache, _ in cache_kinds(model))


def _boundary(model: ModelSpec, dtype: str, total: int) -> int:
    """Return the layers at each end that TurboQuant leaves in the model's own type; hybrids none."""
    if dtype not in TURBOQUANT or has_states(model):
        return 0
    return min(TURBOQUANT_BOUNDARY_LAYERS, total // 2)


def least_block_size(model: ModelSpec, dtype: str, version: tuple[int, int]) -> int:
    """Return the smallest block where layers of two formats share the pool, 0 where they do not.

    platforms/interface.py ``_align_heterogeneous_kv_block_size``: a block of the narrow format, taken as
    a byte an element, must hold the kernel's smallest block of the model's own type.
    """
    if version < WIDE_LAYERS_ALIGNED_SINCE or not _boundary(model, dtype, num_layers(model.structure)):
        return 0
    return DEFAULT_BLOCK_SIZE * DTYPE_BYTES[_own_dtype(model)]


def _own_dtype(model: ModelSpec) -> str:
    return model.dtype if model.dtype in ("float16", "float32") else "bfloat16"


def _runs(
    model: ModelSpec, start: int, size: int, dtype: str, boundary: int
) -> list[tuple[tuple[LayerGroup, ...], str]]:
    """Return a stage's layers as runs of one cache dtype."""
    if not boundary:
        return [(stage_groups(model.layers, start, size), dtype)]
    total = num_layers(model.structure)
    own = _own_dtype(model)
    runs = []
    for first, last, run_dtype in (
        (0, boundary, own),
        (boundary, total - boundary, dtype),
        (total - boundary, total, own),
    ):
        begin, end = max(first, start), min(last, start + size)
        if begin < end:
            runs.append((stage_groups(model.layers, begin, end - begin), run_dtype))
    return runs


def _specs(
    groups: tuple[LayerGroup, ...],
    model: ModelSpec,
    tensor: int,
    dtype: str,
    states: StateDtypes,
    rules: PoolRules,
) -> tuple[list[tuple[LayerSpec, int]], int, int]:
    """Return the planner's specs and, for kinds it does not model, bytes a token between two bounds."""
    counted: list[tuple[LayerSpec, int]] = []
    low = high = 0
    for group in groups:
        for cache in group.layer.caches:
            specs = specs_of(cache, tensor, dtype, states, rules.num_speculative)
            if specs is None:
                wide = KV_FORMATS["bf16"]
                sample = UNMODELLED_SAMPLE_TOKENS
                low += group.count * cache_bytes(cache, sample, wide, wide) // sample
                high += group.count * _all_full_bytes(cache, model)
                continue
            counted += [(spec, group.count) for spec in specs]
    return counted, low, high


def _all_full_bytes(cache: Cache, model: ModelSpec) -> int:
    """Return an upper bound a token: full attention of the cache's heads, else of the hidden size."""
    head_dim = getattr(cache, "head_dim", 0)
    kv_heads = getattr(cache, "num_key_value_heads", 1)
    index = getattr(cache, "index_head_dim", 0)
    if head_dim:
        return 2 * int(kv_heads * 2 * head_dim + index)
    return 4 * model.structure.hidden_size


def unmodelled_notices(model: ModelSpec) -> tuple[Notice, ...]:
    """Say which kinds of the model's cache are between bounds only; nothing where all are known."""
    states = StateDtypes("bfloat16")
    kinds = sorted(
        {
            kind_name(cache)
            for cache, _ in cache_kinds(model)
            if specs_of(cache, 1, "bfloat16", states, 0) is None
        }
    )
    if not kinds:
        return ()
    text = (
        f"{', '.join(kinds).replace('_', ' ')} is not modelled under vLLM yet: "
        "between the textbook figure and full attention"
    )
    return (Notice("layer-not-modelled", text),)
