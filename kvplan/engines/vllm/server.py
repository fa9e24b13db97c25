"""vLLM: one server as it resolves itself, everything but its devices' memory and the load put on it.

Made once for a model, a kind of card and the flags, so that trying cards, contexts and batches is cheap.
"""

from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Notice, Parallel, Refusal
from kvplan.engines.vllm.attention import backend_refusals, default_block_size, follows_generation
from kvplan.engines.vllm.classes import class_notices
from kvplan.engines.vllm.formats import check_weights, kv_dtype_of, weights_format_of
from kvplan.engines.vllm.parallel import parallel_of
from kvplan.engines.vllm.pool import Demand
from kvplan.engines.vllm.settings import Card, Settings, card_of, engine_options, settings_of
from kvplan.engines.vllm.speculative import draft_refusals, speculation_of
from kvplan.engines.vllm.stages import (
    Layout,
    has_states,
    layout_of,
    least_block_size,
    unmodelled_notices,
    with_wide_layers,
)
from kvplan.engines.vllm.unplanned import not_planned
from kvplan.engines.vllm.versions import V1_ONLY_SINCE, Behaviour, behaviour, runs_v1
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.workload import Started, Workload, started_with, without_load

# From this length on the scheduler's defaults do not depend on the context.
SHORT_CONTEXT_TOKENS = 64


# kv_cache_planning.py ``_promote_local_kv_cache_specs``: states, or windows of several sizes, remain.
NOT_UNIFIED = Refusal(
    "layers-not-unified",
    "Failed to promote local KV cache specs to one unified type.",
    "leave out --disable-hybrid-kv-cache-manager",
)


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A model under its flags on so many devices of one kind.

    ``asked`` is the workload without its load; ``demand`` what a request takes of a rank's pool;
    ``whole`` the cache on one rank and ``whole_demand`` what a request takes there; ``options`` are the
    settings under vLLM's names but for the length, ``facts`` the planner's figures that no load
    changes. Compared by identity, so that what is derived from it can be cached cheaply.
    """

    model: ModelSpec
    asked: Workload
    format_name: str
    dtype: str
    rules: Behaviour
    parallel: Parallel
    settings: Settings
    layout: Layout
    demand: Demand
    whole: Layout
    whole_demand: Demand
    notices: tuple[Notice, ...]
    refusals: tuple[Refusal, ...]
    options: tuple[tuple[str, object], ...]
    facts: tuple[tuple[str, object], ...]


def server_of(
    version: tuple[int, int],
    model: ModelSpec,
    workload: Workload,
    devices: tuple[Device, ...],
    context_tokens: int,
) -> Server:
    """Return the server for a workload, from the cache where only the load or the memory differs.

    Raises UnknownFormat for formats vLLM does not take, InvalidValue and OptionClash for flags.
    """
    card = card_of(devices[0] if devices else None, version, by_generation=by_generation(model, version))
    length = _resolving_length(model, workload, version, card.generation, context_tokens)
    asked = started_with(workload)
    try:
        return _cached(version, model, asked, len(devices), card, length)
    except TypeError:
        # A flag's JSON value cannot be hashed.
        return _resolved(version, model, asked, len(devices), card, length)


def by_generation(model: ModelSpec, version: tuple[int, int]) -> bool:
    """Tell whether a server resolves itself differently from one generation of cards to the next."""
    return version < V1_ONLY_SINCE or follows_generation(model)


def _resolving_length(
    model: ModelSpec,
    workload: Workload,
    version: tuple[int, int],
    device_generation: int,
    context_tokens: int,
) -> int:
    """Return the length that settings are resolved at: the asked one only where they depend on it."""
    if context_tokens < SHORT_CONTEXT_TOKENS or model.structure.kind == "encoder-decoder":
        return context_tokens
    if not runs_v1(version, device_generation) or workload.option("enable_chunked_prefill") is False:
        return context_tokens
    if workload.option("enable_prefix_caching") is False and has_states(model):
        return context_tokens
    return SHORT_CONTEXT_TOKENS


def _resolved(
    version: tuple[int, int],
    model: ModelSpec,
    asked: Started,
    num_devices: int,
    card: Card,
    length: int,
) -> Server:
    workload = without_load(asked)
    rules = behaviour(version)
    format_name = weights_format_of(model, workload)
    check_weights(format_name)
    dtype, notices = kv_dtype_of(model, workload, card.generation, version)
    parallel, refusals = parallel_of(model, workload, max(1, num_devices))
    refusals += backend_refusals(model, card.generation)
    speculation, drafted = speculation_of(model, workload)
    refusals += draft_refusals(model, speculation, workload, parallel.tensor)
    settings = settings_of(
        model,
        workload,
        card,
        rules,
        block_size=default_block_size(model, card.generation, dtype, version),
        least_block_size=least_block_size(model, dtype, version),
        speculation=speculation,
        pipeline=parallel.pipeline,
        max_model_len=length,
    )
    notices += (*drafted, *class_notices(model, version), *not_planned(workload))
    layout, whole = (
        layout_of(model, dtype, ranks, settings.pool, settings.states, settings.speculation)
        for ranks in ((parallel.tensor, parallel.pipeline), (1, 1))
    )
    skipped = workload.option("kv_cache_dtype_skip_layers")
    if isinstance(skipped, tuple) and skipped:
        layout, whole = (
            with_wide_layers(each, model, dtype, ranks, settings.states, skipped)
            for each, ranks in ((layout, parallel.tensor), (whole, 1))
        )
    if settings.pool.unify_windows and len(layout.pool.groups) > 1:
        refusals += (NOT_UNIFIED,)
    in_flight, encoder = settings.in_flight_tokens, settings.encoder_tokens
    groups = layout.pool.groups
    if not layout.is_modelled:
        notices += unmodelled_notices(model)
    return Server(
        model=model,
        asked=workload,
        format_name=format_name,
        dtype=dtype,
        rules=rules,
        parallel=parallel,
        settings=settings,
        layout=layout,
        demand=layout.pool.demand(in_flight, encoder),
        whole=whole,
        whole_demand=whole.pool.demand(in_flight, encoder),
        notices=notices,
        refusals=refusals,
        options=engine_options(settings, dtype, parallel),
        facts=(
            ("pool_bytes_per_block", max(layout.pool.stage_bytes_per_block)),
            ("groups", tuple((each.num_layers, each.block_size, each.page_size_bytes) for each in groups)),
        ),
    )


_cached = lru_cache(maxsize=4096)(_resolved)
