"""What llama.cpp's cache costs as a whole: totals, the next token, groups of layers."""

from functools import lru_cache

from kvplan.engines.base import CacheGroup, CacheUse
from kvplan.engines.llama_cpp.cache import (
    CELL_PADDING,
    Cells,
    cells_of,
    layer_cache,
    value_width_of,
    window_of,
)
from kvplan.engines.llama_cpp.settings import Settings, settings_of
from kvplan.frozen import replace
from kvplan.gguf.names import llama_cpp_arch
from kvplan.kv_formats import KV_FORMATS
from kvplan.layers import kind_name
from kvplan.model import ModelSpec, cache_kinds
from kvplan.quantity import Quantity, exact
from kvplan.textbook import cache_bytes
from kvplan.units import ceil_div
from kvplan.workload import Workload


def cells_for(model: ModelSpec, settings: Settings) -> Cells:
    """Return the cells that the settings give a model's cache."""
    return cells_of(
        settings.n_ctx,
        settings.n_parallel,
        settings.n_ubatch,
        window_of(cache_kinds(model), llama_cpp_arch(model)),
        kv_unified=settings.kv_unified,
        swa_full=settings.swa_full,
    )


def cache_use(model: ModelSpec, workload: Workload, settings: Settings, context_tokens: int) -> CacheUse:
    """Return the cache of all slots: exact, or between the textbook and full attention where no rule is."""
    kv, states, groups, low, high = _sizes(model, settings)
    longer = settings_of(workload, context_tokens + CELL_PADDING, settings.type_k, settings.type_v)
    longer = replace(longer, kv_offload=settings.kv_offload)
    per_token = max(0, (_sizes(model, longer)[0] - kv) // (CELL_PADDING * settings.n_parallel))
    whole = kv + states
    total = exact(whole) if not high else Quantity(states + low, whole, states + high, "assumed")
    return CacheUse(
        bytes_per_token=per_token,
        bytes_per_sequence=ceil_div(whole, settings.n_parallel),
        state_bytes_per_sequence=states // settings.n_parallel,
        total=total,
        peak_bytes=whole,
        groups=groups,
        block_size=CELL_PADDING,
    )


@lru_cache(maxsize=8192)
def _sizes(model: ModelSpec, settings: Settings) -> tuple[int, int, tuple[CacheGroup, ...], int, int]:
    """Return (cache, states, groups, lower and upper bound of the cache; 0, 0 where it is exact)."""
    cells = cells_for(model, settings)
    honours = window_of(cache_kinds(model), llama_cpp_arch(model)) > 0
    value_width = value_width_of(cache_kinds(model), flash_attn=settings.flash_attn)
    wide = KV_FORMATS["fp16"]
    kv = states = low = high = 0
    is_assumed = False
    groups: list[CacheGroup] = []
    for cache, count in cache_kinds(model):
        part = layer_cache(
            cache,
            cells,
            settings.type_k,
            settings.type_v,
            honours_window=honours,
            cuda=settings.kv_offload,
            value_width=value_width,
        )
        if part is None:
            textbook = cache_bytes(cache, cells.full, wide, wide) * cells.num_streams * count
            # A short context takes less than the other sequence that cross attention keeps.
            full = max(textbook, 4 * model.structure.hidden_size * cells.full * cells.num_streams * count)
            is_assumed = True
            kv += (textbook + full) // 2
            low, high = low + textbook, high + full
            groups.append(CacheGroup(kind_name(cache), count, 0, textbook // settings.n_parallel))
            continue
        amount = (part.key_bytes + part.value_bytes) * count
        kv += amount
        low, high = low + amount, high + amount
        states += part.state_bytes * count
        each = ceil_div(amount + part.state_bytes * count, settings.n_parallel)
        rows = max(1, cells.full * cells.num_streams)
        groups.append(CacheGroup(kind_name(cache), count, amount // rows, each))
    return kv, states, tuple(groups), low if is_assumed else 0, high if is_assumed else 0
