"""vLLM's tensors: a pool of blocks, each a page of some layer's keys, values, latents or states.

vLLM 0.33 v1/core/kv_cache_planning.py makes one tensor for every slot of a group and lets the groups
share it; v1/worker/gpu/attn_utils.py views it as ``[num_blocks, block_size, heads, head_dim]``. Here
the blocks of the asked load are allocated group by group in the typed shapes of their layers, each
page padded to the largest, which is computed from those shapes and not taken from the planner.
"""

from dataclasses import replace

from kvplan.engines.base import Plan
from kvplan.engines.vllm_budget import behaviour
from kvplan.engines.vllm_groups import Group, PoolLayout, pool_layout
from kvplan.engines.vllm_pages import LayerSpec, specs_of
from kvplan.engines.vllm_settings import Settings, settings_of
from kvplan.errors import CannotTell
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SlidingWindow,
    kind_name,
)
from kvplan.model import cache_kinds
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup
from kvplan.verify.state_tensors import StateTypes, state_tensors
from kvplan.verify.storage import TensorShape, rows

# One spec of one kind of cache: the planner's view, and the shapes of a block of so many tokens.
Member = tuple[LayerSpec, Cache, int]
LATENT_DTYPES = ("float32", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2")


def layout(plan: Plan) -> CacheLayout:
    """Return the blocks of the asked load, one rank with every layer on it."""
    settings = _settings(plan)
    members = _members(plan, settings)
    if not members:
        return CacheLayout(())
    pool = pool_layout(
        [(spec, count) for spec, _, count in members],
        block_size=plan.cache.block_size or 0,
        mamba_mode=settings.mamba_mode,
        num_speculative=settings.num_speculative,
        max_model_len=settings.max_model_len,
        unify_windows=settings.unify_windows,
        dcp=settings.dcp,
    )
    if len(pool.groups) == 1 and len({spec for spec, _, _ in members}) > 1:
        return CacheLayout(_one_table(plan, settings, members, pool))
    return CacheLayout(_shared_pool(plan, settings, members, pool))


def _settings(plan: Plan) -> Settings:
    major, minor = plan.engine_version.split(".")[:2]
    device = plan.devices[0].device if plan.devices else None
    return settings_of(plan.model, plan.workload, device, behaviour((int(major), int(minor))))


def _members(plan: Plan, settings: Settings) -> list[Member]:
    members: list[Member] = []
    for cache, count in cache_kinds(plan.model):
        specs = specs_of(
            cache, 1, plan.kv_dtype_k, settings.conv_dtype, settings.ssm_dtype, settings.num_speculative
        )
        if specs is None:
            raise CannotTell(
                f"{kind_name(cache)} is not modelled under vLLM",
                why="there is no exact figure to hold against",
                hint="add --engine transformers",
            )
        members += [(spec, cache, count) for spec in specs]
    return members


def _num_blocks(plan: Plan, settings: Settings, pool: PoolLayout, group: Group) -> int:
    alone = replace(pool, groups=(group,))
    one = alone.blocks_per_request(
        plan.context_tokens, settings.in_flight_tokens, plan.workload.encoder_tokens
    )
    return one * plan.num_sequences


def _one_table(
    plan: Plan, settings: Settings, members: list[Member], pool: PoolLayout
) -> tuple[LayoutGroup, ...]:
    """Every layer has its own tensor and all follow one block table (latents beside index keys)."""
    group = pool.groups[0]
    blocks = _num_blocks(plan, settings, pool, group)
    return tuple(
        LayoutGroup(
            kind_name(cache),
            count,
            _page(spec, cache, plan, settings, (blocks, group.block_size)),
            spec.bytes_per_token * group.block_size * blocks * count,
            f"{blocks:,} blocks of {group.block_size} tokens",
        )
        for spec, cache, count in members
    )


def _shared_pool(
    plan: Plan, settings: Settings, members: list[Member], pool: PoolLayout
) -> tuple[LayoutGroup, ...]:
    """Groups share slots: a block is a page of every slot, whichever group holds it."""
    chosen = [(_member(group, members), group) for group in pool.groups]
    page = max(_page_bytes(spec, cache, plan, settings, group) for (spec, cache, _), group in chosen)
    slots = max(group.num_layers for group in pool.groups)
    groups: list[LayoutGroup] = []
    for (spec, cache, _), group in chosen:
        blocks = _num_blocks(plan, settings, pool, group)
        own = _page_bytes(spec, cache, plan, settings, group)
        tensors = _page(spec, cache, plan, settings, (blocks, group.block_size))
        if own < page:
            tensors = (*tensors, TensorShape("page padding", "uint8", (blocks, page - own)))
        detail = f"{blocks:,} blocks of {group.block_size:,} tokens"
        if spec.kind == "mamba":
            detail = f"{blocks:,} states"
        if group.num_layers < slots:
            detail += f", {slots - group.num_layers} padding layers"
        groups.append(LayoutGroup(kind_name(cache), slots, tensors, blocks * pool.bytes_per_block, detail))
    return tuple(groups)


def _member(group: Group, members: list[Member]) -> Member:
    """Return the kind of cache that a group holds: the widest whose page fits it."""
    fitting = [
        member
        for member in members
        if _kind(member[0], group) == group.kind and _spec_page(member[0], group) <= group.page_size_bytes
    ]
    if not fitting:
        raise CannotTell(
            f"no layer fits vLLM's group of {group.kind} layers",
            why=f"its page is {group.page_size_bytes:,} bytes",
            hint="this is a bug in kvplan: please report the command",
        )
    return max(fitting, key=lambda member: (member[0].window == group.window, _spec_page(member[0], group)))


def _kind(spec: LayerSpec, group: Group) -> str:
    # Windows kept in full (--disable-hybrid-kv-cache-manager) are groups of full layers.
    return "full" if group.kind == "full" and spec.kind in ("sliding", "chunked") else spec.kind


def _spec_page(spec: LayerSpec, group: Group) -> int:
    return spec.state_bytes if spec.kind == "mamba" else spec.bytes_per_token * group.block_size


def _page_bytes(spec: LayerSpec, cache: Cache, plan: Plan, settings: Settings, group: Group) -> int:
    return sum(tensor.num_bytes for tensor in _page(spec, cache, plan, settings, (1, group.block_size)))


def _page(
    spec: LayerSpec, cache: Cache, plan: Plan, settings: Settings, lead: tuple[int, int]
) -> tuple[TensorShape, ...]:
    """Return one layer's tensors for ``lead`` = (blocks, tokens a block)."""
    dtype = plan.kv_dtype_k
    match cache:
        case FullAttention() | SlidingWindow() | ChunkedAttention() | CrossAttention():
            key, value = _formats(dtype)
            heads = (*lead, cache.num_key_value_heads)
            return (
                *rows("keys", key, heads, cache.head_dim),
                *rows("values", value, heads, cache.v_head_dim),
            )
        case LatentAttention():
            width = cache.kv_lora_rank + cache.qk_rope_head_dim
            if cache.index_head_dim and spec.bytes_per_token == _index_bytes(cache.index_head_dim):
                return rows("index keys", "indexer", lead, cache.index_head_dim)
            if dtype == "nvfp4_ds_mla":
                return (TensorShape("packed latents", "uint8", (*lead, spec.bytes_per_token)),)
            if dtype == "fp8_ds_mla":
                # FlashMLA's sparse row: an fp8 latent with an fp32 scale per 128, the rope part in bf16.
                return (
                    *rows("latents", "indexer", lead, cache.kv_lora_rank),
                    TensorShape("rope keys", "bfloat16", (*lead, cache.qk_rope_head_dim)),
                )
            if dtype not in LATENT_DTYPES:
                raise CannotTell(
                    f"how vLLM would keep latents in {dtype} is not known",
                    why=f"MLA's kernels take {', '.join(LATENT_DTYPES)} and the packed *_ds_mla rows",
                    hint="write it like --kv fp8",
                )
            return rows("latents", dtype, lead, width)
    types = StateTypes(
        settings.conv_dtype, settings.ssm_dtype, "float32", "float32", extra_columns=settings.num_speculative
    )
    return state_tensors(cache, lead[0], types)


def _index_bytes(index_head_dim: int) -> int:
    return sum(tensor.num_bytes for tensor in rows("index keys", "indexer", (1,), index_head_dim))


def _formats(dtype: str) -> tuple[str, str]:
    if not dtype.startswith("turboquant_"):
        return dtype, dtype
    bits = {"k8v4": ("fp8", "4bit"), "4bit_nc": ("4bit", "4bit"), "k3v4_nc": ("3bit", "4bit")}
    key, value = bits.get(dtype.removeprefix("turboquant_"), ("3bit", "3bit"))
    return key if key == "fp8" else f"turboquant_{key}_key", f"turboquant_{value}_value"
