"""vLLM's tensors: a pool of blocks, each a page of some layer's keys, values, latents or states.

vLLM 0.33 v1/core/kv_cache_planning.py makes one tensor for every slot of a group and lets the groups
share it; v1/worker/gpu/attn_utils.py views it as ``[num_blocks, block_size, heads, head_dim]``. Here
the blocks of the asked load are allocated group by group in the typed shapes of their layers, each
page padded to the largest, which is computed from those shapes and not taken from the planner.
"""

from dataclasses import replace

from kvplan.engines.base import Plan
from kvplan.engines.vllm.kv_dtypes import TURBOQUANT, TURBOQUANT_BOUNDARY_LAYERS
from kvplan.engines.vllm.pages import LayerSpec, specs_of
from kvplan.engines.vllm.pool import Group, PoolLayout
from kvplan.engines.vllm.server import Server, server_of
from kvplan.engines.vllm.speculative import draft_layers
from kvplan.engines.vllm.stages import has_states
from kvplan.errors import CannotTell
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    Mamba1State,
    SlidingWindow,
    expand,
    kind_name,
)
from kvplan.model import cache_kinds, expand_layers
from kvplan.verify import vllm_packed_layout
from kvplan.verify.cache_layout import CacheLayout, LayoutGroup
from kvplan.verify.state_tensors import StateTypes, state_tensors
from kvplan.verify.storage import TensorShape, rows

# One spec of one kind of cache: the planner's view, the cache, its dtype, and how many layers have it.
Member = tuple[LayerSpec, Cache, str, int]
LATENT_DTYPES = ("float32", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2")


def layout(plan: Plan) -> CacheLayout:
    """Return the blocks of the asked load, one rank with every layer on it.

    Layers that draft (``--speculative-config``) are in the same pool, after the model's own.
    """
    server = _server(plan)
    pool = server.whole.pool
    if any(isinstance(cache, CompressedAttention) for cache, _ in cache_kinds(plan.model)):
        return vllm_packed_layout.layout(plan, server)
    members = _members(plan, server)
    if not members:
        return CacheLayout(())
    if len(pool.groups) == 1 and len({spec for spec, _, _, _ in members}) > 1:
        return CacheLayout(_one_table(plan, server, members))
    return CacheLayout(_shared_pool(plan, server, members))


def _server(plan: Plan) -> Server:
    major, minor = plan.engine_version.split(".")[:2]
    devices = tuple(device.device for device in plan.devices)
    return server_of((int(major), int(minor)), plan.model, plan.workload, devices, plan.context_tokens)


def _members(plan: Plan, server: Server) -> list[Member]:
    """Return every distinct cache with its dtype: TurboQuant leaves layers at both ends in the model's."""
    settings = server.settings
    layers = expand_layers(plan.model)
    own = plan.model.dtype if plan.model.dtype in ("float16", "float32") else "bfloat16"
    ends = TURBOQUANT_BOUNDARY_LAYERS if server.dtype in TURBOQUANT and not has_states(plan.model) else 0
    ends = min(ends, len(layers) // 2)
    drafts = expand(draft_layers(plan.model, settings.speculation))
    counts: dict[tuple[LayerSpec, Cache, str], int] = {}
    for index, layer in enumerate((*layers, *drafts)):
        at_an_end = index < ends or len(layers) - ends <= index < len(layers)
        dtype = own if at_an_end else server.dtype
        for cache in layer.caches:
            specs = specs_of(cache, 1, dtype, settings.states, settings.pool.num_speculative)
            if specs is None:
                raise CannotTell(
                    f"{kind_name(cache)} is not modelled under vLLM",
                    why="there is no exact figure to hold against",
                    hint="add --engine transformers",
                )
            for spec in specs:
                counts[spec, cache, dtype] = counts.get((spec, cache, dtype), 0) + 1
    return [(*key, count) for key, count in counts.items()]


def _num_blocks(plan: Plan, server: Server, pool: PoolLayout, group: Group) -> int:
    settings = server.settings
    alone = replace(pool, groups=(group,))
    one = alone.blocks_per_request(plan.context_tokens, settings.in_flight_tokens, settings.encoder_tokens)
    return one * plan.num_sequences


def _one_table(plan: Plan, server: Server, members: list[Member]) -> tuple[LayoutGroup, ...]:
    """Every layer has its own tensor and all follow one block table (latents beside index keys)."""
    pool = server.whole.pool
    group = pool.groups[0]
    blocks = _num_blocks(plan, server, pool, group)
    return tuple(
        LayoutGroup(
            kind_name(cache),
            count,
            _page(spec, cache, dtype, server, (blocks, group.block_size)),
            spec.page_size_bytes(group.block_size) * blocks * count,
            f"{blocks:,} blocks of {group.block_size} tokens",
        )
        for spec, cache, dtype, count in members
    )


def _shared_pool(plan: Plan, server: Server, members: list[Member]) -> tuple[LayoutGroup, ...]:
    """Groups share slots: a block is a page of every slot, whichever group holds it."""
    pool = server.whole.pool
    chosen = [(_member(group, members), group) for group in pool.groups]
    sizes = [
        sum(tensor.num_bytes for tensor in _page(spec, cache, dtype, server, (1, group.block_size)))
        for (spec, cache, dtype, _), group in chosen
    ]
    page = max(sizes)
    slots = max(group.num_layers for group in pool.groups)
    groups: list[LayoutGroup] = []
    for ((spec, cache, dtype, _), group), own in zip(chosen, sizes, strict=True):
        blocks = _num_blocks(plan, server, pool, group)
        tensors = _page(spec, cache, dtype, server, (blocks, group.block_size))
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
        if _kind(member[0], group) == group.kind
        and member[0].page_size_bytes(group.block_size) <= group.page_size_bytes
    ]
    if not fitting:
        raise CannotTell(
            f"no layer fits vLLM's group of {group.kind} layers",
            why=f"its page is {group.page_size_bytes:,} bytes",
            hint="this is a bug in kvplan: please report the command",
        )
    return max(
        fitting,
        key=lambda member: (member[0].window == group.window, member[0].page_size_bytes(group.block_size)),
    )


def _kind(spec: LayerSpec, group: Group) -> str:
    # Windows kept in full (--disable-hybrid-kv-cache-manager) are groups of full layers.
    return "full" if group.kind == "full" and spec.kind in ("sliding", "chunked") else spec.kind


def _page(
    spec: LayerSpec, cache: Cache, dtype: str, server: Server, lead: tuple[int, int]
) -> tuple[TensorShape, ...]:
    """Return one layer's tensors for ``lead`` = (blocks, tokens a block)."""
    match cache:
        case FullAttention() if spec.kind == "mla":
            return (TensorShape("index keys", "bfloat16", (*lead, cache.index_head_dim)),)
        case FullAttention() | SlidingWindow() | ChunkedAttention() | CrossAttention():
            key, value = _formats(dtype)
            heads = (*lead, cache.num_key_value_heads)
            return (
                *rows("keys", key, heads, cache.head_dim),
                *rows("values", value, heads, cache.v_head_dim),
            )
        case LatentAttention():
            return _latent(spec, cache, dtype, lead)
    states = server.settings.states
    automatic = states.ssm == "auto"
    types = StateTypes(
        conv=states.conv,
        state=states.conv if automatic else states.ssm,
        delta="float32" if automatic else states.ssm,
        linear=states.linear,
        # Mamba-1's convolutions keep no columns for drafted tokens (mamba1_state_shape).
        extra_columns=0 if isinstance(cache, Mamba1State) else server.settings.pool.num_speculative,
    )
    return state_tensors(cache, lead[0], types)


def _latent(
    spec: LayerSpec, cache: LatentAttention, dtype: str, lead: tuple[int, int]
) -> tuple[TensorShape, ...]:
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


def _index_bytes(index_head_dim: int) -> int:
    return sum(tensor.num_bytes for tensor in rows("index keys", "indexer", (1,), index_head_dim))


def _formats(dtype: str) -> tuple[str, str]:
    if not dtype.startswith("turboquant_"):
        return dtype, dtype
    bits = {"k8v4": ("fp8", "4bit"), "4bit_nc": ("4bit", "4bit"), "k3v4_nc": ("3bit", "4bit")}
    key, value = bits.get(dtype.removeprefix("turboquant_"), ("3bit", "3bit"))
    return key if key == "fp8" else f"turboquant_{key}_key", f"turboquant_{value}_value"
