"""SGLang: a share of the memory that is free before the weights load, for weights and pools.

SGLang 0.5.23 srt/mem_cache/kv_cache_configurator.py: pools take what is free after loading less
``(1 - mem_fraction_static)`` of what was free before. Nothing is profiled. Two tests must hold:
``budget`` (weights and the asked load inside the share) and ``outside_pool`` (position table,
graphs, workspaces and activations inside the slack that is left).
"""

from collections.abc import Sequence

from kvplan.device import Device
from kvplan.engines.base import Component, Engine, Parallel, Plan, Trial, capped_notice, context_or_limit
from kvplan.engines.sglang.cache_use import cache_use
from kvplan.engines.sglang.host import host_components
from kvplan.engines.sglang.kernels import GENERIC, KV_NAMES
from kvplan.engines.sglang.notices import NEWEST, cap_of, unmodelled, unmodelled_notice
from kvplan.engines.sglang.pools import Pools
from kvplan.engines.sglang.rank_plan import RankPlan, places_of, rank_plans
from kvplan.engines.sglang.server import Server, server_of, spread
from kvplan.engines.sglang.settings import Settings
from kvplan.engines.sglang.words import startup_lines
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass, replace
from kvplan.model import ModelSpec
from kvplan.quantity import ZERO, Quantity
from kvplan.workload import Workload

VERSIONS = (NEWEST,)

# What SGLang takes where neither the flags nor the model name a length.
DEFAULT_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A load on a server's ranks: ``limit`` is what the pools let run, ``unmodelled`` what has no pool."""

    server: Server
    settings: Settings
    context_tokens: int
    num_sequences: int
    limit: int
    unmodelled: Quantity
    ranks: tuple[RankPlan, ...]


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
        found = self._loaded(model, workload, devices)
        server, settings, planned = found.server, found.settings, found.ranks
        notices = server.notices
        if found.unmodelled.high:
            notices += (unmodelled_notice(model, settings),)
        if found.num_sequences < workload.num_sequences:
            why = cap_of(_slots(planned), settings.slots_per_request)
            notices += (capped_notice(workload.num_sequences, found.num_sequences, why),)
        tokens = _pool_tokens(planned)
        binding = _binding(planned)
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=_options(settings, server.parallel, found.limit),
            parallel=server.parallel,
            weights_format=server.format_name,
            weights=server.weights,
            kv_dtype_k=settings.kv_dtype,
            kv_dtype_v=settings.kv_dtype,
            context_tokens=found.context_tokens,
            num_sequences=found.num_sequences,
            devices=tuple([rank.device_plan for rank in planned]),
            cache=cache_use(
                server.whole, settings, found.context_tokens, found.num_sequences, tokens, found.unmodelled
            ),
            sequence_limit=found.limit,
            sequence_limit_name="max_running_requests",
            kv_cache_tokens=tokens,
            max_concurrency=None if tokens is None else tokens / found.context_tokens,
            host=_host(workload, planned),
            offloaded=bool(workload.option("cpu_offload_gb")),
            refusals=server.refusals,
            warnings=notices,
            startup_lines=()
            if binding is None
            else startup_lines(binding.place.stage, settings, binding.pools),
        )

    def trial(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Trial:
        """Put the load on the ranks alone."""
        found = self._loaded(model, workload, devices)
        return Trial(
            model,
            workload,
            self.name,
            tuple([rank.device_plan for rank in found.ranks]),
            "assumed" if found.unmodelled.high else "exact",
            _host(workload, found.ranks),
            bool(workload.option("cpu_offload_gb")),
            found.server.refusals,
        )

    def _loaded(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> _Loaded:
        """Put the load on every rank, no more sequences than the pools let run."""
        devices = spread(devices, workload)
        server = server_of(self.version, model, workload, devices)
        places = places_of(server, devices)
        context_tokens, _ = context_or_limit(model, workload)
        length = workload.context_tokens or model.context_limit_tokens or DEFAULT_LENGTH
        settings = replace(server.settings, context_length=length)
        rest = unmodelled(model, settings, context_tokens) if server.unmodelled else ZERO
        num_sequences = workload.num_sequences
        planned = rank_plans(server, places, settings, context_tokens, num_sequences, rest)
        limit = _sequence_limit(settings, planned)
        if limit < num_sequences:
            num_sequences = limit
            planned = rank_plans(server, places, settings, context_tokens, num_sequences, rest)
        return _Loaded(server, settings, context_tokens, num_sequences, limit, rest, planned)


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


def _binding(planned: tuple[RankPlan, ...]) -> RankPlan | None:
    """Return the rank whose start-up lines tell the most: that with the smallest pools."""
    if not planned:
        return None
    return min(
        planned,
        key=lambda rank: rank.pools.max_total_num_tokens if isinstance(rank.pools, Pools) else -1,
    )


def _host(workload: Workload, planned: tuple[RankPlan, ...]) -> tuple[Component, ...]:
    if not workload.engine_options:
        return ()
    return host_components(
        workload,
        [rank.place.stage.weight_bytes for rank in planned],
        [rank.pools.pool_bytes if isinstance(rank.pools, Pools) else 0 for rank in planned],
    )


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
