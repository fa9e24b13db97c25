"""What is asked of a model: how much context, how many sequences, in which formats."""

from typing import Literal

from kvplan.frozen import dataclass

ContextSource = Literal["flag", "model", "engine", "trace", "file"]


@dataclass(frozen=True, slots=True)
class Workload:
    """A question: everything but the model, the devices and the engine.

    ``context_tokens`` 0 means not asked: the engine takes its own default. ``num_sequences`` run at
    once, each at full context. ``weights_format`` None means as published. ``kv_cache_dtype_k`` and
    ``_v`` are generic or engine names, ``auto`` for the engine's default. ``tensor_parallel`` and
    ``pipeline_parallel`` 0 mean the engine chooses. ``reserve_bytes`` is memory that others hold on
    each device; ``overhead_bytes`` replaces the engine's estimate of runtime memory
    (vLLM: of all that is measured beside weights and cache).
    ``adapters`` are the ranks of LoRA adapters loaded beside the model, for engines without slots of
    their own. ``engine_options`` are the engine's own flags, by its own names; ``unread_flags`` those
    given that nobody knows, which every plan warns of.
    """

    context_tokens: int = 0
    context_source: ContextSource = "model"
    num_sequences: int = 1
    weights_format: str | None = None
    kv_cache_dtype_k: str = "auto"
    kv_cache_dtype_v: str = "auto"
    tensor_parallel: int = 0
    pipeline_parallel: int = 0
    reserve_bytes: int = 0
    overhead_bytes: int | None = None
    cpu_memory_bytes: int | None = None
    encoder_tokens: int = 0
    adapters: tuple[int, ...] = ()
    engine_options: tuple[tuple[str, object], ...] = ()
    unread_flags: tuple[str, ...] = ()

    def option(self, name: str, default: object = None) -> object:
        """Return one of the engine's own options."""
        for key, value in self.engine_options:
            if key == name:
                return value
        return default


Started = tuple[str | None, str, str, int, int, int, int | None, tuple[tuple[str, object], ...]]


def started_with(workload: Workload) -> Started:
    """Return what of a workload a server is started with, whatever load it gets: a key to look up by."""
    return (
        workload.weights_format,
        workload.kv_cache_dtype_k,
        workload.kv_cache_dtype_v,
        workload.tensor_parallel,
        workload.pipeline_parallel,
        workload.reserve_bytes,
        workload.overhead_bytes,
        workload.engine_options,
    )


def without_load(started: Started) -> Workload:
    """Return a workload with what a server is started with, and no load."""
    weights, kv_k, kv_v, tensor, pipeline, reserve, overhead, options = started
    return Workload(
        weights_format=weights,
        kv_cache_dtype_k=kv_k,
        kv_cache_dtype_v=kv_v,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        reserve_bytes=reserve,
        overhead_bytes=overhead,
        engine_options=options,
    )
