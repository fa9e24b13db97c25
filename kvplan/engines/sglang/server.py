"""SGLang: one server as it resolves itself, everything but the load put on it and where its ranks stand.

Made once for a model, a card, a number of them and the flags, so that trying contexts and batches is cheap.
"""

from collections.abc import Sequence
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Notice, Parallel, Refusal, not_loaded
from kvplan.engines.ranks import parallel_of
from kvplan.engines.sglang.adapters import adapters_of
from kvplan.engines.sglang.cache_use import WholeModel, whole_model
from kvplan.engines.sglang.notices import is_unmodelled, kv_refusals, notices_of
from kvplan.engines.sglang.reading import whole_or_none
from kvplan.engines.sglang.settings import Settings, served_dtype_of, settings_of
from kvplan.engines.sglang.stages import Ranks, Stage, stages_of
from kvplan.frozen import dataclass, replace
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity
from kvplan.weight_formats import weight_format
from kvplan.weights import served_format_name, weight_bytes
from kvplan.workload import Started, Workload, started_with, without_load

TAKEN = "16-bit, fp8, int8, AWQ, GPTQ, bitsandbytes, MXFP4 and NVFP4"


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A model under its flags on so many cards of one kind.

    ``asked`` is the workload without its load; ``settings`` lack the context's length; ``whole`` is the
    cache as one rank would keep it, ``unmodelled`` tells whether any of its kinds has no pool;
    ``adapters`` are the LoRA slots of a rank. Compared by identity, so that what is derived from it can
    be cached cheaply.
    """

    model: ModelSpec
    asked: Workload
    format_name: str
    weights: Quantity
    parallel: Parallel
    settings: Settings
    stages: tuple[Stage, ...]
    whole: WholeModel
    unmodelled: bool
    adapters: Quantity
    notices: tuple[Notice, ...]
    refusals: tuple[Refusal, ...]


def server_of(version: str, model: ModelSpec, workload: Workload, devices: tuple[Device, ...]) -> Server:
    """Return the server on the devices of all replicas, from the cache where the load alone differs.

    Raises UnknownFormat for formats SGLang does not take, InvalidValue and OptionClash for flags.
    """
    asked = started_with(workload)
    first = devices[0] if devices else None
    try:
        return _cached(version, model, asked, first, len(devices))
    except TypeError:
        # A flag's JSON value cannot be hashed.
        return _resolved(version, model, asked, first, len(devices))


def spread(devices: Sequence[Device], workload: Workload) -> tuple[Device, ...]:
    """Return a GPU for every rank of every replica where one replica's were named."""
    if not workload.engine_options:
        return tuple(devices)
    data, shares = _replicas(workload)
    each_replica = max(1, workload.tensor_parallel) * max(1, workload.pipeline_parallel)
    if not shares and data > 1 and len(devices) == each_replica:
        return tuple(devices) * data
    return tuple(devices)


def _resolved(
    version: str, model: ModelSpec, asked: Started, device: Device | None, num_devices: int
) -> Server:
    workload = without_load(asked)
    format_name = _format_of(model, workload)
    _check_weights(format_name)
    data, shares = _replicas(workload)
    parallel, refusals = parallel_of(model, workload, max(1, num_devices), data, 1, replicas_share=shares)
    settings = settings_of(model, workload, device, parallel.tensor, parallel.pipeline, 1 if shares else data)
    parallel = replace(parallel, expert=settings.expert)
    ranks = Ranks(parallel.tensor, parallel.pipeline, settings.expert, settings.attention_dp)
    return Server(
        model=model,
        asked=workload,
        format_name=format_name,
        weights=weight_bytes(model, format_name),
        parallel=parallel,
        settings=settings,
        stages=stages_of(model, format_name, ranks, settings.layout),
        whole=whole_model(model, settings.layout),
        unmodelled=is_unmodelled(model, settings),
        adapters=adapters_of(model, workload, settings.tensor),
        notices=notices_of(model, workload, version),
        refusals=(*refusals, *kv_refusals(settings)),
    )


_cached = lru_cache(maxsize=4096)(_resolved)


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
