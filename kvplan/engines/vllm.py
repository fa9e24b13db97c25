"""vLLM: a share of the card for everything, the rest of that share a pool of blocks.

vLLM 0.33 v1/worker/gpu_worker.py: the budget is ``ceil(total x gpu_memory_utilization)`` of what CUDA
shows; weights, activation peak, non-torch memory and (since 0.21) captured graphs come off, the
remainder is the KV pool. Three tests must hold: ``budget`` (one request of the asked load inside the
share), ``free_at_start`` (as much free memory as is requested) and ``outside_pool`` (what lives
beside the share). Every rank is planned; the one with the least room binds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kvplan.device import Device
from kvplan.dtypes import KV_FORMATS, weight_format
from kvplan.engines.base import (
    CacheGroup,
    CacheUse,
    Check,
    Component,
    DevicePlan,
    Engine,
    Notice,
    Parallel,
    Plan,
    Refusal,
    context_or_limit,
)
from kvplan.engines.vllm_budget import (
    NO_GRAPHS,
    Behaviour,
    activations,
    before_snapshot,
    behaviour,
    cuda_graphs,
    non_torch,
    sampler_logits,
)
from kvplan.engines.vllm_groups import DEFAULT_BLOCK_SIZE, PoolLayout, pool_layout
from kvplan.engines.vllm_pages import LayerSpec, specs_of, state_bytes
from kvplan.engines.vllm_settings import (
    KV_NAMES,
    Settings,
    engine_options,
    kv_dtype_of,
    settings_of,
)
from kvplan.errors import InvalidValue, OptionClash, UnknownFormat
from kvplan.layers import LayerGroup, kind_name
from kvplan.model import ModelSpec, cache_kinds, num_layers
from kvplan.quantity import Quantity, exact, total
from kvplan.sharding import VOCAB_PADDING, pipeline_split, stage_groups, stage_weight_bytes
from kvplan.textbook import cache_bytes
from kvplan.units import ceil_div, round_up
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

VERSIONS = ("0.10", "0.16", "0.17", "0.18", "0.19", "0.21", "0.23", "0.26", "0.33")
NEWEST = "0.33"


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage's rank: its weights and its pool."""

    weight_bytes: int
    layout: PoolLayout
    unmodelled_low_bytes: int
    unmodelled_high_bytes: int


class VllmEngine(Engine):
    """vLLM at one version."""

    name = "vllm"
    versions = VERSIONS
    kv_formats = KV_NAMES
    weight_families = ("plain", "fp8", "int8", "int4", "bnb", "fp4")
    about = "a share of the card; windows, latents and states in one pool of blocks"

    def __init__(self, version: str = NEWEST) -> None:
        self.version = version
        parts = version.split(".")
        self._behaviour: Behaviour = behaviour((int(parts[0]), int(parts[1])))

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price every rank. Raises UnknownFormat for formats vLLM does not take."""
        format_name = format_name_of(model, workload.weights_format)
        _check_weights(format_name)
        dtype, notices = kv_dtype_of(model, workload)
        data = max(1, _int(workload.option("data_parallel_size"), 1))
        parallel, refusals = _parallel(model, workload, max(1, len(devices)), data)
        device = devices[0] if devices else None
        settings = settings_of(model, workload, device, self._behaviour)
        context_tokens, _ = context_or_limit(model, workload)
        capped = min(workload.num_sequences, settings.max_num_seqs * data)
        if capped < workload.num_sequences:
            notices += (
                Notice(
                    "batch-capped",
                    f"{workload.num_sequences:,} sequences asked, {capped:,} run at once (max_num_seqs)",
                ),
            )
        stages = _stages(
            model,
            format_name,
            dtype,
            parallel.tensor,
            parallel.pipeline,
            parallel.expert,
            settings.layout_key(),
        )
        if any(stage.unmodelled_high_bytes for stage in stages):
            notices += (_unmodelled_notice(model),)
        cache = _cache_use(model, workload, settings, dtype, context_tokens, capped)
        device_plans = _device_plans(
            model, workload, settings, self._behaviour, stages, devices, context_tokens, capped, parallel
        )
        tokens, concurrency, blocks = _capacity(
            settings, self._behaviour, stages, device_plans, context_tokens, workload
        )
        if blocks is not None:
            cache = _with_blocks(cache, blocks)
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=engine_options(settings, context_tokens, dtype, parallel),
            parallel=parallel,
            weights_format=format_name,
            weights=weight_bytes(model, format_name),
            kv_dtype_k=dtype,
            kv_dtype_v=dtype,
            context_tokens=context_tokens,
            num_sequences=capped,
            devices=device_plans,
            cache=cache,
            sequence_limit=settings.max_num_seqs * data,
            sequence_limit_name="max_num_seqs",
            kv_cache_tokens=tokens,
            max_concurrency=concurrency,
            refusals=refusals,
            warnings=notices,
        )


def engine(version: str | None) -> VllmEngine:
    """Return the policy of a version; between known versions the nearest older one's rules hold."""
    if version is None:
        return VllmEngine(NEWEST)
    parts = version.removeprefix("v").split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise InvalidValue(
            f"'vllm@{version}' is not a version",
            why=f"known are {', '.join(VERSIONS)}",
            hint="write it like --engine vllm@0.19",
        )
    return VllmEngine(f"{parts[0]}.{parts[1]}")


def _int(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _check_weights(format_name: str) -> None:
    family = weight_format(format_name).family
    if family in ("mlx", "exl"):
        raise UnknownFormat(
            f"vLLM does not load {format_name} weights",
            why="it takes 16-bit, fp8, int8, AWQ, GPTQ, bitsandbytes, MXFP4 and NVFP4 (GGUF experimentally)",
            hint="name such a format, or the engine that loads these weights",
        )


def _parallel(
    model: ModelSpec, workload: Workload, num_devices: int, data: int
) -> tuple[Parallel, tuple[Refusal, ...]]:
    """Return the layout: what was asked, else TP over all GPUs if the model divides, else PP."""
    per_replica = max(1, num_devices // data)
    if num_devices % data:
        raise OptionClash(
            f"--data-parallel-size {data} does not divide {num_devices} GPUs",
            why="every replica takes the same number of GPUs",
            hint=f"name a multiple of {data} GPUs",
        )
    tensor, pipeline = workload.tensor_parallel, workload.pipeline_parallel
    if not tensor and not pipeline:
        tensor, pipeline = (per_replica, 1) if _divides(model, per_replica) else (1, per_replica)
    elif not tensor:
        tensor = max(1, per_replica // pipeline)
    elif not pipeline:
        pipeline = max(1, per_replica // tensor)
    refusals: list[Refusal] = []
    heads = model.structure.num_attention_heads
    if heads % tensor:
        works = max(n for n in range(1, tensor + 1) if heads % n == 0)
        refusals.append(
            Refusal(
                "heads-not-divisible",
                f"Total number of attention heads ({heads}) must be divisible by "
                f"tensor parallel size ({tensor}).",
                f"--tp {works}",
            )
        )
    elif round_up(model.structure.vocab_size, VOCAB_PADDING) % tensor:
        rows = round_up(model.structure.vocab_size, VOCAB_PADDING)
        refusals.append(Refusal("vocabulary-not-divisible", f"{rows} is not divisible by {tensor}", "--tp 4"))
    if pipeline > num_layers(model.structure):
        refusals.append(
            Refusal(
                "too-few-layers",
                f"{num_layers(model.structure)} layers cannot be split over {pipeline} pipeline ranks",
                f"--pp {num_layers(model.structure)}",
            )
        )
        pipeline = num_layers(model.structure)
    expert = tensor * data if workload.option("enable_expert_parallel") else 1
    return Parallel(tensor, pipeline, data, expert), tuple(refusals)


def _divides(model: ModelSpec, ranks: int) -> bool:
    structure = model.structure
    rows = round_up(structure.vocab_size, VOCAB_PADDING)
    return structure.num_attention_heads % ranks == 0 and rows % ranks == 0


@lru_cache(maxsize=2048)
def _stages(
    model: ModelSpec,
    format_name: str,
    dtype: str,
    tensor: int,
    pipeline: int,
    expert: int,
    key: tuple[object, ...],
) -> tuple[Stage, ...]:
    settings = Settings.from_layout_key(key)
    sizes = pipeline_split(num_layers(model.structure), pipeline)
    stages: list[Stage] = []
    start = 0
    for stage, size in enumerate(sizes):
        groups = stage_groups(model.layers, start, size)
        if stage == pipeline - 1 and settings.num_speculative and settings.uses_mtp:
            groups = (*groups, *model.structure.mtp_layers)
        weights = stage_weight_bytes(model, format_name, tensor, pipeline, expert, stage)
        counted, low, high = _specs(groups, model, tensor, dtype, settings)
        layout = pool_layout(
            counted,
            block_size=settings.block_size or _default_block_size(model),
            mamba_mode=settings.mamba_mode,
            num_speculative=settings.num_speculative,
            max_model_len=settings.max_model_len,
            unify_windows=settings.unify_windows,
            dcp=settings.dcp,
        )
        stages.append(Stage(weights, layout, low, high))
        start += size
    return tuple(stages)


def _default_block_size(model: ModelSpec) -> int:
    """Return the block the backends agree on: 16, 64 where MLA's kernels ask for it.

    vLLM 0.33 v1/attention/backends/mla: FlashMLA and the sparse kernels take 64; models with few
    heads run on FlashAttention's MLA, which takes 16.
    """
    for cache, _ in cache_kinds(model):
        if kind_name(cache) == "latent_attention":
            indexed = getattr(cache, "index_head_dim", 0)
            heads = getattr(cache, "num_attention_heads", 0)
            has_states = any(kind_name(other) not in ("latent_attention",) for other, _ in cache_kinds(model))
            if has_states:
                return DEFAULT_BLOCK_SIZE
            return 64 if indexed or heads >= 64 else DEFAULT_BLOCK_SIZE
    return DEFAULT_BLOCK_SIZE


def _specs(
    groups: tuple[LayerGroup, ...], model: ModelSpec, tensor: int, dtype: str, settings: Settings
) -> tuple[list[tuple[LayerSpec, int]], int, int]:
    """Return the planner's specs and, for kinds it does not model, bytes a token between two bounds."""
    counted: list[tuple[LayerSpec, int]] = []
    low = high = 0
    for group in groups:
        for cache in group.layer.caches:
            specs = specs_of(
                cache, tensor, dtype, settings.conv_dtype, settings.ssm_dtype, settings.num_speculative
            )
            if specs is None:
                wide = KV_FORMATS["bf16"]
                low += group.count * cache_bytes(cache, 4096, wide, wide) // 4096
                high += group.count * _all_full_bytes(cache, model)
                continue
            counted += [(spec, group.count) for spec in specs]
    return counted, low, high


def _all_full_bytes(cache: object, model: ModelSpec) -> int:
    head_dim = getattr(cache, "head_dim", 0)
    kv_heads = getattr(cache, "num_key_value_heads", 1)
    index = getattr(cache, "index_head_dim", 0)
    if head_dim:
        return 2 * int(kv_heads * 2 * head_dim + index)
    return 4 * model.structure.hidden_size


def _unmodelled_notice(model: ModelSpec) -> Notice:
    kinds = sorted(
        {
            kind_name(cache)
            for cache, _ in cache_kinds(model)
            if specs_of(cache, 1, "bfloat16", "bfloat16", "float32", 0) is None
        }
    )
    return Notice(
        "layer-not-modelled",
        f"{', '.join(kinds).replace('_', ' ')} is not modelled under vLLM yet: "
        "between the textbook figure and full attention",
    )


def _request_bytes(
    stage: Stage, settings: Settings, context_tokens: int, encoder_tokens: int
) -> tuple[int, int, int]:
    blocks = stage.layout.blocks_per_request(context_tokens, settings.in_flight_tokens, encoder_tokens)
    amount = blocks * stage.layout.bytes_per_block
    return amount, stage.unmodelled_low_bytes * context_tokens, stage.unmodelled_high_bytes * context_tokens


def _device_plans(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    rules: Behaviour,
    stages: tuple[Stage, ...],
    devices: Sequence[Device],
    context_tokens: int,
    num_sequences: int,
    parallel: Parallel,
) -> tuple[DevicePlan, ...]:
    plans: list[DevicePlan] = []
    made: dict[tuple[Device, int], DevicePlan] = {}
    per_stage = parallel.tensor
    per_replica = per_stage * parallel.pipeline
    each = ceil_div(num_sequences, parallel.data)
    for index, device in enumerate(devices):
        number = min((index % per_replica) // per_stage, len(stages) - 1)
        key = (device, number)
        if key not in made:
            made[key] = _rank_plan(
                model,
                workload,
                settings,
                rules,
                stages[number],
                number,
                device,
                context_tokens,
                each,
                parallel,
            )
        plans.append(made[key])
    return tuple(plans)


def _rank_plan(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    rules: Behaviour,
    stage: Stage,
    number: int,
    device: Device,
    context_tokens: int,
    num_sequences: int,
    parallel: Parallel,
) -> DevicePlan:
    usable = device.usable_bytes
    is_last = number == parallel.pipeline - 1
    budget = settings.requested_bytes(usable)
    weights = exact(stage.weight_bytes)
    seqs = settings.max_num_seqs if is_last else 1
    activation = activations(model, seqs, settings.max_num_batched_tokens, parallel.tensor, rules.version)
    ranks = parallel.tensor * parallel.pipeline
    runtime = non_torch(ranks, device.architecture, stage.weight_bytes, rules.version)
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    graphs = NO_GRAPHS if settings.enforce_eager else cuda_graphs(model, parallel.tensor, rules.version)
    amount, low, high = _request_bytes(stage, settings, context_tokens, workload.encoder_tokens)
    kv = Quantity(
        (amount + low) * num_sequences,
        (amount + (low + high) // 2) * num_sequences,
        (amount + high) * num_sequences,
        "assumed" if high else "exact",
    )
    if rules.keeps_null_block and amount:
        # One block is never handed out, so an exact fit is refused.
        null = stage.layout.bytes_per_block
        kv = Quantity(kv.low + null, kv.expected + null, kv.high + null, kv.basis, kv.why)
    parts = [Component("weights", weights), Component("kv_cache", kv, "blocks of the asked load")]
    parts.append(Component("activations", activation))
    if rules.graphs_inside and graphs.high:
        parts.append(Component("cuda_graphs", graphs))
    parts.append(Component("runtime", runtime))
    components = tuple(parts)
    required = total(part.bytes for part in components)
    context = before_snapshot(ranks, device.architecture)
    reserved = workload.reserve_bytes + device.used_bytes
    free = Quantity(
        budget + context.low + reserved,
        budget + context.expected + reserved,
        budget + context.high + reserved,
        "calibrated",
        context.why,
    )
    outside_parts = [context, exact(reserved), sampler_logits(model, seqs)]
    if not rules.graphs_inside:
        outside_parts.append(graphs)
    outside = total(outside_parts)
    checks: tuple[Check, ...] = (
        Check("budget", required, budget, "weights, overhead and cache exceed the share"),
        Check("free_at_start", free, usable, "less memory is free at start than is requested"),
        Check(
            "outside_pool", outside, max(0, usable - budget), "what lives beside the share exceeds the rest"
        ),
    )
    if settings.kv_cache_memory_bytes:
        checks = (checks[0],)
    rank = f"pp {number}" if parallel.pipeline > 1 else ""
    return DevicePlan(device, budget, components, checks, rank)


def _capacity(
    settings: Settings,
    rules: Behaviour,
    stages: tuple[Stage, ...],
    plans: tuple[DevicePlan, ...],
    context_tokens: int,
    workload: Workload,
) -> tuple[int | None, float | None, int | None]:
    """Return what the start-up log prints: tokens, concurrency, and the blocks of the smallest rank."""
    if not stages or not stages[0].layout.bytes_per_block:
        return None, None, None
    if any(stage.unmodelled_high_bytes for stage in stages):
        return None, None, None
    if settings.kv_cache_memory_bytes:
        available = [settings.kv_cache_memory_bytes] * len(stages)
    elif plans:
        available = []
        for number in range(len(stages)):
            rooms = [
                plan.budget_bytes
                - sum(part.bytes.expected for part in plan.components if part.name != "kv_cache")
                for plan in plans
                if plan.rank in ("", f"pp {number}")
            ]
            available.append(min(rooms, default=0))
    else:
        return None, None, None
    blocks = min(
        max(0, room) // stage.layout.bytes_per_block
        for room, stage in zip(available, stages, strict=True)
        if stage.layout.bytes_per_block
    )
    layout = stages[0].layout
    return *tokens_and_concurrency(
        layout, blocks, context_tokens, settings.in_flight_tokens, workload.encoder_tokens, rules
    ), blocks


def tokens_and_concurrency(
    layout: PoolLayout,
    num_blocks: int,
    max_model_len: int,
    in_flight_tokens: int,
    encoder_tokens: int,
    rules: Behaviour,
) -> tuple[int, float]:
    """Return ``GPU KV cache size`` in tokens and ``Maximum concurrency`` as vLLM prints them.

    Since 0.23 the tokens are concurrency x length; before, blocks per group times the block size.
    """
    per_request = layout.blocks_per_request(max_model_len, in_flight_tokens, encoder_tokens)
    concurrency = num_blocks / per_request if per_request else 0.0
    if rules.counts_requests:
        return int(concurrency * max_model_len), concurrency
    smallest = min((group.block_size for group in layout.groups if group.kind != "mamba"), default=0)
    smallest = smallest or min((group.block_size for group in layout.groups), default=0)
    return num_blocks // max(1, len(layout.groups)) * smallest * layout.dcp, concurrency


def estimated_max_model_len(
    layout: PoolLayout, available_bytes: int, max_model_len: int, in_flight_tokens: int, *, null_block: bool
) -> int:
    """Return the length vLLM suggests when a request of ``max_model_len`` does not fit; 0 if none does."""
    room = available_bytes - (layout.bytes_per_block if null_block else 0)

    def fits(length: int) -> bool:
        return layout.blocks_per_request(length, in_flight_tokens) * layout.bytes_per_block <= room

    if not fits(1):
        return 0
    low, high = 1, max_model_len
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _cache_use(
    model: ModelSpec,
    workload: Workload,
    settings: Settings,
    dtype: str,
    context_tokens: int,
    num_sequences: int,
) -> CacheUse:
    """Price the cache of the whole model, ranks counted once: the layout of one rank with TP 1."""
    whole = _stages(
        model, format_name_of(model, workload.weights_format), dtype, 1, 1, 1, settings.layout_key()
    )[0]
    layout = whole.layout
    block = max((group.block_size for group in layout.groups if group.kind != "mamba"), default=0) or 1
    encoder_tokens = workload.encoder_tokens

    def at(tokens: int) -> int:
        blocks = layout.blocks_per_request(tokens, settings.in_flight_tokens, encoder_tokens)
        return blocks * layout.bytes_per_block

    now = at(context_tokens)
    unit = layout.block_size or block
    per_token = (at(context_tokens + unit) - now) // unit if layout.groups else 0
    low, high = whole.unmodelled_low_bytes, whole.unmodelled_high_bytes
    middle = (low + high) // 2
    per_sequence = now + middle * context_tokens
    states = sum(
        (state_bytes(cache, 1, settings.conv_dtype, settings.ssm_dtype, settings.num_speculative) or 0)
        * count
        for cache, count in cache_kinds(model)
    )
    every = per_sequence * num_sequences
    basis_total = exact(every)
    if high:
        basis_total = Quantity(
            (now + low * context_tokens) * num_sequences,
            every,
            (now + high * context_tokens) * num_sequences,
            "assumed",
        )
    page = layout.groups[0].page_size_bytes if layout.groups else None
    return CacheUse(
        bytes_per_token=per_token + middle,
        bytes_per_sequence=per_sequence,
        state_bytes_per_sequence=states * layout.num_slots if states else 0,
        total=basis_total,
        peak_bytes=every,
        groups=_groups(model, settings, dtype, layout, context_tokens, encoder_tokens),
        block_size=layout.block_size if layout.groups else None,
        page_size_bytes=page,
    )


def _groups(
    model: ModelSpec,
    settings: Settings,
    dtype: str,
    layout: PoolLayout,
    context_tokens: int,
    encoder_tokens: int,
) -> tuple[CacheGroup, ...]:
    groups: list[CacheGroup] = []
    for cache, count in cache_kinds(model):
        specs = specs_of(cache, 1, dtype, settings.conv_dtype, settings.ssm_dtype, settings.num_speculative)
        row = sum(spec.bytes_per_token for spec in specs or ())
        alone = pool_layout(
            [(spec, 1) for spec in specs or ()],
            block_size=layout.block_size or DEFAULT_BLOCK_SIZE,
            mamba_mode=settings.mamba_mode,
            num_speculative=settings.num_speculative,
            max_model_len=settings.max_model_len,
            unify_windows=settings.unify_windows,
            dcp=settings.dcp,
        )
        blocks = alone.blocks_per_request(context_tokens, settings.in_flight_tokens, encoder_tokens)
        groups.append(
            CacheGroup(kind_name(cache), count, row * count, blocks * alone.bytes_per_block * count)
        )
    return tuple(groups)


def _with_blocks(cache: CacheUse, num_blocks: int) -> CacheUse:
    return CacheUse(
        cache.bytes_per_token,
        cache.bytes_per_sequence,
        cache.state_bytes_per_sequence,
        cache.total,
        cache.peak_bytes,
        cache.groups,
        cache.block_size,
        cache.page_size_bytes,
        num_blocks,
    )
