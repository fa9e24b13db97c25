"""SGLang's tensors: a K and a V of token slots a layer, window slots beside them, slots of states.

SGLang 0.5.23 srt/mem_cache/memory_pool.py: MHATokenToKVPool (``[slots, heads, head_dim]``),
MHATokenToKVPoolFP4 and MXFP8, MLATokenToKVPool (``[slots, 1, kv_cache_dim]``), DSATokenToKVPool with
index_key_cache.py (fp8 keys and an fp32 scale per 128), MiniMaxSparseKVPool (index keys alone),
MambaPool (``[layers, slots + 1, ...]``), ReqToTokenPool (``[requests + 1, columns]`` int32);
swa_memory_pool.py (a pool for windows beside the full one). Every pool has a page more than its
tokens, every pool of states a slot more: they lie beside what the plan counts as the cache.
"""

from dataclasses import replace

from kvplan.engines.base import Plan
from kvplan.engines.sglang.asked import AskedTokens, asked_tokens
from kvplan.engines.sglang.cache_use import Kind, WholeModel, whole_model
from kvplan.engines.sglang.cells import (
    FP4_BLOCK,
    fp4_scale_layouts,
    fp4_workspace,
    is_window,
    packs_scales,
    sparse_index_bytes,
)
from kvplan.engines.sglang.kernels import FP4_NAMES
from kvplan.engines.sglang.pools import EXTRA_COLUMNS, req_to_token_bytes
from kvplan.engines.sglang.settings import Layout, Settings, settings_of
from kvplan.errors import CannotTell
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
)
from kvplan.model import cache_kinds
from kvplan.verify import sglang_compressed_layout
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup
from kvplan.verify.state_tensors import StateTypes, state_tensors
from kvplan.verify.storage import TensorShape, rows

HeadCache = FullAttention | SlidingWindow | ChunkedAttention | CrossAttention


def layout(plan: Plan) -> CacheLayout:
    """Return the pools that hold the asked load, one rank with every head and layer on it.

    Raises CannotTell for pools that SGLang sizes otherwise than it fills them: 4-bit windows, and
    draft layers that are charged as the average of layers that differ.
    """
    device = plan.devices[0].device if plan.devices else None
    parallel = plan.parallel
    settings = settings_of(plan.model, plan.workload, device, parallel.tensor, parallel.pipeline)
    settings = replace(settings, layout=replace(settings.layout, attention_tensor=1, dcp=1))
    whole = whole_model(plan.model, settings.layout)
    if whole.compressed is not None:
        groups = sglang_compressed_layout.groups_of(plan, whole, settings)
    else:
        groups = _groups(plan, whole, settings)
    if plan.devices:
        groups = (*groups, _positions(plan, settings))
    planned = [group.planned_bytes or 0 for group in groups if not group.beside]
    if sum(planned) != plan.cache.total.expected:
        # Rounded once over all layers together (mxfp8's exponents): only the whole is planned.
        groups = tuple(group if group.beside else replace(group, planned_bytes=None) for group in groups)
    return CacheLayout(groups)


def _groups(plan: Plan, whole: WholeModel, settings: Settings) -> tuple[LayoutGroup, ...]:
    pools = settings.layout
    caches = cache_kinds(plan.model)
    if pools.hybrid_windows and pools.kv_dtype in FP4_NAMES:
        raise CannotTell(
            f"how large SGLang's window pools are in {pools.kv_dtype} is not known",
            why="it charges them a byte a value, whatever they hold",
            hint="write it like --kv fp8_e4m3",
        )
    tokens = asked_tokens(
        settings, plan.context_tokens, plan.num_sequences, has_windows=bool(whole.cells.window_bytes)
    )
    groups = [
        _kind_group(cache, kind, tokens, settings, plan.num_sequences)
        for (cache, _), kind in zip(caches, whole.kinds, strict=True)
    ]
    page = settings.page_size
    padding = [
        tensor
        for cache, count in caches
        if not isinstance(cache, RECURRENT_STATES)
        for tensor in _slots(cache, pools, (count, page))
    ]
    workspace = max((fp4_workspace(cache, pools) for cache, _ in caches), default=0)
    if workspace:
        # Prefill unpacks 4-bit rows into it, one for all layers.
        shape = (tokens.full, 2, workspace // 2)
        groups.append(
            LayoutGroup(
                "workspace",
                1,
                (TensorShape("unpacked rows", "float8_e4m3fn", shape),),
                workspace * tokens.full,
            )
        )
        padding.append(TensorShape("unpacked rows", "float8_e4m3fn", (page, 2, workspace // 2)))
    if pools.draft_layers:
        groups += _drafts(plan, whole, settings, tokens)
    if padding:
        amount = (whole.cells.full_bytes + whole.cells.window_bytes) * page
        detail = f"a page of {page:,} in each layer for padded batches"
        groups.append(LayoutGroup("padding_pages", 1, tuple(padding), amount, detail, beside=True))
    if whole.cells.state_bytes:
        spare = tuple(
            tensor
            for cache, count in caches
            if isinstance(cache, RECURRENT_STATES)
            for tensor in _states(cache, pools, count)
        )
        groups.append(LayoutGroup("spare_state", 1, spare, whole.cells.state_bytes, "", beside=True))
    return tuple(groups)


def _kind_group(
    cache: Cache, kind: Kind, tokens: AskedTokens, settings: Settings, num_sequences: int
) -> LayoutGroup:
    if isinstance(cache, RECURRENT_STATES):
        slots = num_sequences * settings.slots_per_request
        return LayoutGroup(
            kind.name,
            kind.num_layers,
            _states(cache, settings.layout, slots),
            kind.state_bytes * slots,
            f"{slots:,} slots",
        )
    held = tokens.window if kind.in_window_pool else tokens.full
    return LayoutGroup(
        kind.name,
        kind.num_layers,
        _slots(cache, settings.layout, (held,)),
        kind.row_bytes * held,
        f"{held:,} slots" + (" of the window pool" if kind.in_window_pool else ""),
    )


def _states(cache: Cache, pools: Layout, slots: int) -> tuple[TensorShape, ...]:
    # Convolutions stay in bf16 (SGLANG_MAMBA_CONV_DTYPE), one column less than the kernel.
    ssm = pools.ssm_dtype
    return state_tensors(cache, slots, StateTypes("bfloat16", ssm, ssm, ssm))


def _slots(cache: Cache, pools: Layout, lead: tuple[int, ...]) -> tuple[TensorShape, ...]:
    """Return one layer's tensors for ``lead`` token slots."""
    match cache:
        case SharedCache():
            # Layers that read another's cache have slots of their own here.
            return _slots(cache.owner, pools, lead)
        case LatentAttention():
            index = rows("index keys", "indexer", lead, cache.index_head_dim)
            return (*_latents(cache, pools, lead), *index)
        case FullAttention():
            index_type = "fp8" if sparse_index_bytes(pools) == 1 else "bf16"
            index = rows("index keys", index_type, lead, cache.index_head_dim)
            return (*_heads(cache, pools, lead), *index)
        case SlidingWindow() | ChunkedAttention() | CrossAttention():
            return _heads(cache, pools, lead)
    raise CannotTell(
        "this kind of layer has no slots under SGLang",
        why="it is laid out elsewhere",
        hint="see: kvplan show",
    )


def _heads(cache: HeadCache, pools: Layout, lead: tuple[int, ...]) -> tuple[TensorShape, ...]:
    heads = cache.num_key_value_heads
    if pools.kv_dtype not in FP4_NAMES:
        each = (*lead, heads)
        return (
            *rows("keys", pools.kv_dtype, each, cache.head_dim),
            *rows("values", pools.kv_dtype, each, cache.v_head_dim),
        )
    # Values are taken to be as wide as keys; scales of all heads lie in one row.
    copies = fp4_scale_layouts(pools)
    return tuple(
        tensor
        for name in ("keys", "values")
        for tensor in (
            TensorShape(f"{name} values", "uint8", (*lead, heads, cache.head_dim // 2)),
            *(
                TensorShape(f"{name} scales", "uint8", (*lead, heads * (cache.head_dim // FP4_BLOCK)))
                for _ in range(copies)
            ),
        )
    )


def _latents(cache: LatentAttention, pools: Layout, lead: tuple[int, ...]) -> tuple[TensorShape, ...]:
    width = cache.kv_lora_rank + cache.qk_rope_head_dim
    if pools.kv_dtype in FP4_NAMES:
        return (
            TensorShape("latents values", "uint8", (*lead, 1, width // 2)),
            TensorShape("latents scales", "uint8", (*lead, width // FP4_BLOCK)),
        )
    if pools.kv_dtype == "fp8_e4m3" and packs_scales(pools):
        # FlashMLA's sparse row: an fp8 latent with an fp32 scale per 128, the rope part in bf16.
        return (
            *rows("latents", "indexer", (*lead, 1), cache.kv_lora_rank),
            TensorShape("rope keys", "bfloat16", (*lead, 1, cache.qk_rope_head_dim)),
        )
    return rows("latents", pools.kv_dtype, (*lead, 1), width)


def _drafts(
    plan: Plan, whole: WholeModel, settings: Settings, tokens: AskedTokens
) -> tuple[LayoutGroup, ...]:
    """Return the draft head's layers: the checkpoint's prediction layers, else the target's own shape."""
    pools, cells = settings.layout, whole.cells
    in_windows = bool(cells.draft_window_bytes)
    planned = cells.draft_full_bytes * tokens.full + cells.draft_window_bytes * tokens.window
    if not planned:
        return ()
    caches = [
        cache
        for cache, _ in cache_kinds(plan.model)
        if not isinstance(cache, RECURRENT_STATES)
        and (pools.hybrid_windows and is_window(cache)) == in_windows
    ]
    if len({_without_index(cache) for cache in caches}) > 1:
        raise CannotTell(
            "the draft's layers are charged as the average of layers that differ",
            why="what the draft itself keeps is not in the model's config",
            hint="leave out --speculative-algorithm",
        )
    ranked = [cache for cache in caches if isinstance(cache, LatentAttention) and cache.index_head_dim]
    held = tokens.window if in_windows else tokens.full
    tensors = _slots((ranked or caches)[-1], pools, (held,))
    return (LayoutGroup("draft_layers", pools.draft_layers, tensors, planned, f"{held:,} slots"),)


def _without_index(cache: Cache) -> Cache:
    if isinstance(cache, SharedCache):
        return cache.owner
    return replace(cache, index_head_dim=0) if isinstance(cache, LatentAttention) else cache


def _positions(plan: Plan, settings: Settings) -> LayoutGroup:
    """Return req_to_token: where each request's tokens lie, with a spare row for padded batches."""
    requests = (plan.sequence_limit or 1) // max(1, plan.parallel.data)
    columns = settings.context_length + EXTRA_COLUMNS + settings.draft_tokens
    return LayoutGroup(
        "req_to_token",
        1,
        (TensorShape("positions", "int32", (requests + 1, columns)),),
        req_to_token_bytes(settings, requests),
        f"{requests:,} requests",
        beside=True,
    )
