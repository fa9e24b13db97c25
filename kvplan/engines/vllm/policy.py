"""vLLM: a share of the card for everything, the rest of that share a pool of blocks.

vLLM 0.33 v1/worker/gpu_worker.py: the budget is ``ceil(total x gpu_memory_utilization)`` of what CUDA
shows; weights, activation peak, non-torch memory and (since 0.21) captured graphs come off, the
remainder is the KV pool. Every rank is planned; the one with the least room binds.
"""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Engine, Plan, Trial, capped_notice, context_or_limit
from kvplan.engines.vllm.cache_use import cache_basis, cache_use
from kvplan.engines.vllm.formats import KV_NAMES, WEIGHT_FAMILIES
from kvplan.engines.vllm.kinds import kind_of
from kvplan.engines.vllm.loads import available_bytes, loaded_plans
from kvplan.engines.vllm.offload import host_components
from kvplan.engines.vllm.ranks import Rank, ranks_of
from kvplan.engines.vllm.server import Server, server_of
from kvplan.engines.vllm.startup import Startup, startup_of
from kvplan.engines.vllm.versions import KNOWN, NEWEST
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass, replace
from kvplan.model import ModelSpec
from kvplan.weights import weight_bytes
from kvplan.workload import Workload

# kv_cache_planning.py: the longest context that fits is taken.
AUTO_MAX_MODEL_LEN = -1


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
        self._version = (int(parts[0]), int(parts[1]))

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price every rank. Raises UnknownFormat for formats vLLM does not take."""
        context_tokens, _ = context_or_limit(model, workload)
        devices = tuple(devices)
        server = server_of(self._version, model, workload, devices, context_tokens)
        start = _started(server, devices, context_tokens)
        shorter = _shorter(workload, start.startup, context_tokens)
        if shorter > 0:
            asked = replace(workload, context_tokens=shorter, context_source="engine")
            return self.plan(model, asked, devices)
        parallel = server.parallel
        limit = server.settings.max_num_seqs * parallel.data
        capped = min(workload.num_sequences, limit)
        notices = server.notices
        if capped < workload.num_sequences:
            notices += (capped_notice(workload.num_sequences, capped, "max_num_seqs"),)
        startup = start.startup
        weights = weight_bytes(model, server.format_name)
        host = host_components(workload, weights.expected, len(devices) or 1)
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=start.options,
            parallel=parallel,
            weights_format=server.format_name,
            weights=weights,
            kv_dtype_k=server.dtype,
            kv_dtype_v=server.dtype,
            context_tokens=context_tokens,
            num_sequences=capped,
            devices=loaded_plans(server, start.ranks, start.blocks, context_tokens, capped),
            cache=cache_use(server, context_tokens, capped, startup.num_blocks if startup else None),
            sequence_limit=limit,
            sequence_limit_name="max_num_seqs",
            kv_cache_tokens=startup.tokens if startup else None,
            max_concurrency=startup.concurrency if startup else None,
            host=host,
            offloaded=bool(host) and bool(workload.option("cpu_offload_gb")),
            refusals=server.refusals,
            warnings=notices,
            startup_lines=startup.lines if startup else (),
            command_lines=start.command_lines,
            details=start.details,
        )

    def kind_of(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> object | None:
        """Return the kind of card; None under flags, which may fix a pool or a share of any size."""
        return None if workload.engine_options else kind_of(model, workload, self._version, devices)

    def trial(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Trial | None:
        """Put the load on the ranks alone; None where the start decides the length."""
        if _length_is_open(workload):
            return None
        context_tokens, _ = context_or_limit(model, workload)
        devices = tuple(devices)
        server = server_of(self._version, model, workload, devices, context_tokens)
        weights = weight_bytes(model, server.format_name)
        host = host_components(workload, weights.expected, len(devices) or 1)
        num_sequences = min(workload.num_sequences, server.settings.max_num_seqs * server.parallel.data)
        return Trial(
            model,
            workload,
            self.name,
            loaded_plans(
                server,
                ranks_of(server, devices),
                server.demand.blocks(context_tokens),
                context_tokens,
                num_sequences,
            ),
            cache_basis(server),
            host,
            bool(host) and bool(workload.option("cpu_offload_gb")),
            server.refusals,
        )


@dataclass(frozen=True, slots=True)
class _Start:
    """A server on its devices at one context, whatever the load: ``blocks`` are those of a request."""

    ranks: tuple[Rank, ...]
    blocks: int
    startup: Startup | None
    options: tuple[tuple[str, object], ...]
    command_lines: tuple[str, ...]
    details: tuple[tuple[str, object], ...]


@lru_cache(maxsize=64)
def _started(server: Server, devices: tuple[Device, ...], context_tokens: int) -> _Start:
    ranks = ranks_of(server, devices)
    rooms = available_bytes(server, ranks, context_tokens)
    blocks = server.demand.blocks(context_tokens)
    startup = None
    if rooms is not None and server.layout.is_modelled and server.layout.pool.groups:
        startup = startup_of(server, ranks, rooms, context_tokens, blocks)
    return _Start(
        ranks,
        blocks,
        startup,
        (server.options[0], ("max_model_len", context_tokens), *server.options[1:]),
        _way_out(server.model, startup),
        _details(server, startup),
    )


def _shorter(workload: Workload, startup: Startup | None, context_tokens: int) -> int:
    """Return the shorter context that vLLM takes by itself (``--max-model-len -1``), 0 where it does not."""
    if startup is None or not _length_is_open(workload):
        return 0
    return startup.estimated_max_model_len if startup.estimated_max_model_len < context_tokens else 0


def _length_is_open(workload: Workload) -> bool:
    return not workload.context_tokens and workload.option("max_model_len") == AUTO_MAX_MODEL_LEN


def _way_out(model: ModelSpec, startup: Startup | None) -> tuple[str, ...]:
    """Return the command with the flag that avoids the error, where one flag does."""
    if startup is None or not startup.fix.startswith("--"):
        return ()
    return (f"vllm serve {model.repo or model.name} {startup.fix}",)


def _details(server: Server, startup: Startup | None) -> tuple[tuple[str, object], ...]:
    """Return the planner's own figures: groups (layers, block, page), blocks, the error and its way out."""
    facts = server.facts
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
