"""SGLang: a share of the memory that is free before the weights load, for weights and pools.

SGLang 0.5.23 srt/mem_cache/kv_cache_configurator.py: pools take what is free after loading less
``(1 - mem_fraction_static)`` of what was free before. Nothing is profiled. Two tests must hold:
``budget`` (weights and the asked load inside the share) and ``outside_pool`` (position table,
graphs, workspaces and activations inside the slack that is left).
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import Engine, Parallel, Plan, capped_notice, context_or_limit, not_loaded
from kvplan.engines.ranks import parallel_of
from kvplan.engines.sglang.cache_use import cache_use
from kvplan.engines.sglang.host import host_components
from kvplan.engines.sglang.kernels import GENERIC, KV_NAMES
from kvplan.engines.sglang.notices import (
    NEWEST,
    cap_of,
    kv_refusals,
    notices_of,
    unmodelled,
    unmodelled_notice,
)
from kvplan.engines.sglang.pools import Pools, Refused
from kvplan.engines.sglang.rank_plan import RankPlan, rank_plans
from kvplan.engines.sglang.reading import whole_or_none
from kvplan.engines.sglang.settings import Settings, served_dtype_of, settings_of
from kvplan.engines.sglang.stages import Ranks, stages_of
from kvplan.engines.sglang.words import startup_lines
from kvplan.errors import InvalidValue
from kvplan.model import ModelSpec
from kvplan.weight_formats import weight_format
from kvplan.weights import served_format_name, weight_bytes
from kvplan.workload import Workload

VERSIONS = (NEWEST,)

TAKEN = "16-bit, fp8, int8, AWQ, GPTQ, bitsandbytes, MXFP4 and NVFP4"


class SglangEngine(Engine):
    """SGLang at one version."""

    name = "sglang"
    versions = VERSIONS
    kv_formats = (*KV_NAMES, *GENERIC)
    weight_families = ("plain", "fp8", "int8", "int4", "bnb", "fp4")
    about = "a share of free memory; pools for tokens, for windows and for states"

    def __init__(self, version: str = NEWEST) -> None:
        self.version = version

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price every rank. Raises UnknownFormat for formats SGLang does not take."""
        format_name = _format_of(model, workload)
        _check_weights(format_name)
        data, shares = _replicas(workload)
        devices = _spread(devices, workload, data, shares=shares)
        parallel, refusals = parallel_of(
            model, workload, max(1, len(devices)), data, 1, replicas_share=shares
        )
        device = devices[0] if devices else None
        settings = settings_of(
            model, workload, device, parallel.tensor, parallel.pipeline, 1 if shares else data
        )
        parallel = Parallel(parallel.tensor, parallel.pipeline, data, settings.expert)
        ranks = Ranks(parallel.tensor, parallel.pipeline, settings.expert, settings.attention_dp)
        stages = stages_of(model, format_name, ranks, settings.layout)
        context_tokens, _ = context_or_limit(model, workload)
        notices = notices_of(model, workload, self.version)
        rest = unmodelled(model, settings, context_tokens)
        if rest.high:
            notices += (unmodelled_notice(model, settings),)
        planned = rank_plans(
            model, workload, settings, stages, devices, context_tokens, workload.num_sequences, parallel, rest
        )
        limit = _sequence_limit(settings, planned)
        num_sequences = min(workload.num_sequences, limit)
        if num_sequences < workload.num_sequences:
            notices += (
                capped_notice(
                    workload.num_sequences,
                    num_sequences,
                    cap_of(_slots(planned), settings.slots_per_request),
                ),
            )
            planned = rank_plans(
                model, workload, settings, stages, devices, context_tokens, num_sequences, parallel, rest
            )
        tokens = _pool_tokens(planned)
        binding = _binding(planned)
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=_options(settings, parallel, limit),
            parallel=parallel,
            weights_format=format_name,
            weights=weight_bytes(model, format_name),
            kv_dtype_k=settings.kv_dtype,
            kv_dtype_v=settings.kv_dtype,
            context_tokens=context_tokens,
            num_sequences=num_sequences,
            devices=tuple(rank.device_plan for rank in planned),
            cache=cache_use(model, settings, context_tokens, num_sequences, tokens, rest),
            sequence_limit=limit,
            sequence_limit_name="max_running_requests",
            kv_cache_tokens=tokens,
            max_concurrency=None if tokens is None else tokens / context_tokens,
            host=host_components(
                workload,
                [stages[_stage_number(rank)].weight_bytes for rank in planned],
                [rank.pools.pool_bytes if isinstance(rank.pools, Pools) else 0 for rank in planned],
            ),
            offloaded=bool(workload.option("cpu_offload_gb")),
            refusals=(*refusals, *kv_refusals(settings)),
            warnings=notices,
            startup_lines=() if binding is None else startup_lines(stages[binding[0]], settings, binding[1]),
        )


def engine(version: str | None) -> SglangEngine:
    """Return the policy of a version. Raises InvalidValue for what is none."""
    if version is None:
        return SglangEngine(NEWEST)
    text = version.removeprefix("v")
    if not all(part.isdigit() for part in text.split(".")[:2]) or "." not in text:
        raise InvalidValue(
            f"'sglang@{version}' is not a version",
            why=f"known is {NEWEST}",
            hint=f"write it like --engine sglang@{NEWEST}",
        )
    return SglangEngine(text)


def _format_of(model: ModelSpec, workload: Workload) -> str:
    """Return the weights' format: fp32 checkpoints are served in 16 bits unless ``--dtype`` says float32."""
    stays = str(workload.option("dtype")) in ("float32", "float")
    dtype = "float32" if stays else served_dtype_of(model, workload)
    return served_format_name(model, workload.weights_format, dtype)


def _check_weights(format_name: str) -> None:
    family = weight_format(format_name).family
    if family in ("mlx", "exl"):
        raise not_loaded("SGLang", format_name, TAKEN)


def _replicas(workload: Workload) -> tuple[int, bool]:
    """Return the data-parallel groups and whether they share their GPUs (data-parallel attention)."""
    attention = whole_or_none(workload.option("attn_dp_size")) or 1
    data = max(1, whole_or_none(workload.option("dp_size")) or attention)
    return data, bool(workload.option("enable_dp_attention")) or attention > 1


def _spread(devices: Sequence[Device], workload: Workload, data: int, *, shares: bool) -> tuple[Device, ...]:
    """Return a GPU for every rank of every replica where one replica's were named."""
    each_replica = max(1, workload.tensor_parallel) * max(1, workload.pipeline_parallel)
    if not shares and data > 1 and len(devices) == each_replica:
        return tuple(devices) * data
    return tuple(devices)


def _sequence_limit(settings: Settings, planned: tuple[RankPlan, ...]) -> int:
    """Return max_running_requests over all groups; the flag or 4,096 where no pool was sized."""
    groups = settings.attention_dp * settings.data
    running = [rank.pools.max_running_requests for rank in planned if isinstance(rank.pools, Pools)]
    if not running:
        return settings.max_running_requests or 4096
    return max(1, min(running)) * groups


def _slots(planned: tuple[RankPlan, ...]) -> int:
    return min((rank.pools.mamba_slots for rank in planned if isinstance(rank.pools, Pools)), default=0)


def _pool_tokens(planned: tuple[RankPlan, ...]) -> int | None:
    """Return max_total_num_tokens: the smallest rank's."""
    if not planned:
        return None
    return min(rank.pools.max_total_num_tokens if isinstance(rank.pools, Pools) else 0 for rank in planned)


def _binding(planned: tuple[RankPlan, ...]) -> tuple[int, Pools | Refused] | None:
    """Return the stage and pools of the rank whose start-up lines tell the most: the smallest."""
    if not planned:
        return None
    worst = min(
        planned,
        key=lambda rank: rank.pools.max_total_num_tokens if isinstance(rank.pools, Pools) else -1,
    )
    return _stage_number(worst), worst.pools


def _stage_number(rank: RankPlan) -> int:
    name = rank.device_plan.rank
    return int(name.removeprefix("pp ")) if name else 0


def _options(settings: Settings, parallel: Parallel, limit: int) -> tuple[tuple[str, object], ...]:
    """Return the settings under SGLang's own names."""
    options: list[tuple[str, object]] = [
        ("mem_fraction_static", settings.mem_fraction_static),
        ("context_length", settings.context_length),
        ("max_running_requests", limit),
        ("chunked_prefill_size", settings.chunked_prefill_size),
        ("cuda_graph_max_bs_decode", settings.decode_graph_batch),
        ("page_size", settings.page_size),
        ("kv_cache_dtype", settings.kv_dtype),
        ("attention_backend", settings.layout.kernels.decode),
        ("disable_radix_cache", not settings.radix_cache),
        ("tp_size", parallel.tensor),
        ("pp_size", parallel.pipeline),
        ("dp_size", parallel.data),
    ]
    if settings.layout.hybrid_windows:
        options.append(("swa_full_tokens_ratio", settings.swa_full_tokens_ratio))
    if settings.slots_per_request > 1:
        options.append(("mamba_full_memory_ratio", settings.mamba_full_memory_ratio))
    return tuple(options)
