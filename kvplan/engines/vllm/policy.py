"""vLLM: a share of the card for everything, the rest of that share a pool of blocks.

vLLM 0.33 v1/worker/gpu_worker.py: the budget is ``ceil(total x gpu_memory_utilization)`` of what CUDA
shows; weights, activation peak, non-torch memory and (since 0.21) captured graphs come off, the
remainder is the KV pool. Every rank is planned; the one with the least room binds.
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import Engine, Notice, Plan, context_or_limit
from kvplan.engines.vllm.attention import backend_refusals, default_block_size, generation
from kvplan.engines.vllm.cache_use import cache_use
from kvplan.engines.vllm.formats import KV_NAMES, WEIGHT_FAMILIES, check_weights, kv_dtype_of
from kvplan.engines.vllm.parallel import parallel_of
from kvplan.engines.vllm.pool import PoolLayout
from kvplan.engines.vllm.ranks import available_bytes, device_plans
from kvplan.engines.vllm.settings import engine_options, settings_of
from kvplan.engines.vllm.speculative import speculation_of
from kvplan.engines.vllm.stages import layout_of, unmodelled_notice
from kvplan.engines.vllm.startup import Startup, startup_of
from kvplan.engines.vllm.versions import KNOWN, NEWEST, Behaviour, behaviour
from kvplan.errors import InvalidValue
from kvplan.model import ModelSpec
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload


class VllmEngine(Engine):
    """vLLM at one version."""

    name = "vllm"
    versions = KNOWN
    kv_formats = KV_NAMES
    weight_families = WEIGHT_FAMILIES
    about = "a share of the card; windows, latents and states in one pool of blocks"

    def __init__(self, version: str = NEWEST) -> None:
        self.version = version
        parts = version.split(".")
        self._behaviour: Behaviour = behaviour((int(parts[0]), int(parts[1])))

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price every rank. Raises UnknownFormat for formats vLLM does not take."""
        rules = self._behaviour
        format_name = format_name_of(model, workload.weights_format)
        check_weights(format_name)
        device = devices[0] if devices else None
        device_generation = generation(device.compute_capability) if device else 0
        dtype, notices = kv_dtype_of(model, workload, device_generation, rules.version)
        parallel, refusals = parallel_of(model, workload, max(1, len(devices)))
        refusals += backend_refusals(model, device_generation)
        speculation, drafted = speculation_of(model, workload)
        context_tokens, _ = context_or_limit(model, workload)
        settings = settings_of(
            model,
            workload,
            device,
            rules,
            block_size=default_block_size(model, dtype, device_generation),
            speculation=speculation,
            pipeline=parallel.pipeline,
            max_model_len=context_tokens,
        )
        notices += drafted
        limit = settings.max_num_seqs * parallel.data
        capped = min(workload.num_sequences, limit)
        if capped < workload.num_sequences:
            text = f"{workload.num_sequences:,} sequences asked, {capped:,} run at once (max_num_seqs)"
            notices += (Notice("batch-capped", text),)
        ranks = (parallel.tensor, parallel.pipeline, parallel.expert)
        layout = layout_of(
            model, format_name, dtype, ranks, settings.pool, settings.states, settings.speculation
        )
        if not layout.is_modelled:
            notices += (unmodelled_notice(model),)
        plans = device_plans(
            model, workload, settings, rules, layout, devices, parallel, context_tokens, capped
        )
        rooms = available_bytes(layout, settings, plans, parallel)
        startup = None
        if rooms is not None and layout.is_modelled and layout.pool.groups:
            startup = startup_of(layout.pool, settings, rules, rooms, context_tokens, plans)
        blocks = startup.num_blocks if startup else None
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
            devices=plans,
            cache=cache_use(model, format_name, dtype, settings, context_tokens, capped, layout, blocks),
            sequence_limit=limit,
            sequence_limit_name="max_num_seqs",
            kv_cache_tokens=startup.tokens if startup else None,
            max_concurrency=startup.concurrency if startup else None,
            refusals=refusals,
            warnings=notices,
            startup_lines=startup.lines if startup else (),
            details=_details(layout.pool, startup),
        )


def _details(pool: PoolLayout, startup: Startup | None) -> tuple[tuple[str, object], ...]:
    """Return the planner's own figures: groups (layers, block, page), blocks, the error and its way out."""
    groups = tuple((group.num_layers, group.block_size, group.page_size_bytes) for group in pool.groups)
    facts: tuple[tuple[str, object], ...] = (
        ("pool_bytes_per_block", max(pool.stage_bytes_per_block)),
        ("groups", groups),
    )
    if startup is None:
        return facts
    return (
        *facts,
        ("blocks_per_request", startup.blocks_per_request),
        ("request_bytes", startup.request_bytes),
        ("estimated_max_model_len", startup.estimated_max_model_len),
        ("error", startup.error),
        ("fix", startup.fix),
    )


def engine(version: str | None) -> VllmEngine:
    """Return the policy of a version; between known versions the nearest older one's rules hold."""
    if version is None:
        return VllmEngine(NEWEST)
    parts = version.removeprefix("v").split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise InvalidValue(
            f"'vllm@{version}' is not a version",
            why=f"known are {', '.join(KNOWN)}",
            hint="write it like --engine vllm@0.19",
        )
    return VllmEngine(f"{parts[0]}.{parts[1]}")
