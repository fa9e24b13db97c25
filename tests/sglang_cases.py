"""One run of SGLang's sizing code as kvplan sizes it: shared by the tests and the scoreboard."""

from dataclasses import replace
from functools import cache

from kvplan.device import Device
from kvplan.engines.sglang.compressed import full_token_bytes, size_compressed, window_token_bytes
from kvplan.engines.sglang.pools import Refused, size_pools
from kvplan.engines.sglang.settings import settings_of
from kvplan.engines.sglang.stages import Ranks, stages_of
from kvplan.sources.catalog import find
from kvplan.sources.config_model import model_from_config
from kvplan.units import MIB
from kvplan.workload import Workload

# What is compared, by the names of SGLang's own objects.
SETTINGS = (
    "mem_fraction_static", "chunked_prefill_size", "cuda_graph_decode_max_bs", "page_size",
    "attention_backend",
)  # fmt: skip
POOLS = (
    "cell_size_bytes", "bytes_per_swa_token", "kv_budget_bytes", "max_total_num_tokens", "full_tokens",
    "swa_tokens", "mamba_slots", "max_running_requests", "kv_pool_bytes_allocated",
    "mamba_pool_bytes_allocated", "req_to_token_bytes", "error",
)  # fmt: skip


def result_fields(result):
    """Return the compared part of a run's result."""
    return {key: result[key] for key in (*SETTINGS, *POOLS, "engine_log") if result.get(key) is not None}


@cache
def _bundled(name):
    # A release in fp8 has the caches of the model it was made of.
    short = name.partition("/")[2]
    return find(name) or find(short) or find(short.removesuffix("-FP8"))


def spec_of(row):
    """Return the row's model: from its own config, else the bundled one; None if there is neither.

    ``context_limit_tokens`` is what the run's config said where its source had cut it.
    """
    if row.get("config"):
        return model_from_config(row["config"], name=row["model"], source="the row", repo=row["model"])
    model, limit = _bundled(row["model"]), row.get("context_limit_tokens")
    if limit is None:
        return model
    return replace(model, structure=replace(model.structure, context_limit_tokens=limit))


def device_of(gpu):
    memory = gpu["mib"] * MIB
    capability = ".".join(str(part) for part in gpu["cap"])
    return Device(gpu["name"], memory, memory, memory, "exact", "nvidia", compute_capability=capability)


def stage_of(row):
    """Return a run's settings, and the stage of its pipeline rank."""
    model = spec_of(row)
    options = dict(row["server_args"])
    kv = options.pop("kv_cache_dtype", "auto")
    workload = Workload(
        kv_cache_dtype_k=kv,
        kv_cache_dtype_v=kv,
        context_tokens=options.get("context_length") or 0,
        engine_options=tuple(options.items()),
    )
    tensor, pipeline = options.get("tp_size", 1), options.get("pp_size", 1)
    settings = settings_of(model, workload, device_of(row["gpu"]), tensor, pipeline)
    ranks = Ranks(tensor, pipeline, settings.expert, settings.attention_dp)
    stages = stages_of(model, model.weights_format, ranks, settings.layout)
    return settings, stages[row.get("pp_rank") or 0]


def pools_of(row, settings, stage):
    """Return the pools of a run's free memory."""
    before, after = row["pre_model_load_gb"], row["avail_after_load_gb"]
    if stage.compressed is not None:
        return size_compressed(stage.compressed, settings, before, after)
    return size_pools(stage.cells, settings, before, after, stage.state_bytes)


def sized(row):
    """Return what kvplan says of a run, by the same names."""
    settings, stage = stage_of(row)
    kernels = settings.layout.kernels
    found = {
        "mem_fraction_static": settings.mem_fraction_static,
        "chunked_prefill_size": settings.chunked_prefill_size,
        "cuda_graph_decode_max_bs": settings.decode_graph_batch,
        "page_size": settings.page_size,
        "attention_backend": [kernels.prefill, kernels.decode],
    }
    if row.get("pre_model_load_gb") is None:
        return found
    pools, cells = pools_of(row, settings, stage), stage.cells
    if stage.compressed is not None:
        found["cell_size_bytes"] = full_token_bytes(stage.compressed, settings)
        found["bytes_per_swa_token"] = window_token_bytes(stage.compressed, settings)
    else:
        window = cells.window_bytes + cells.draft_window_bytes
        ratio = settings.swa_full_tokens_ratio if window else 0
        found["cell_size_bytes"] = cells.full_bytes + cells.draft_full_bytes + ratio * window
    if isinstance(pools, Refused):
        found.pop("cell_size_bytes")
        found["error"] = pools.message
        return found
    found["kv_budget_bytes"] = pools.budget_bytes
    found["max_total_num_tokens"] = pools.max_total_num_tokens
    if pools.window_tokens:
        found["full_tokens"], found["swa_tokens"] = pools.full_tokens, pools.window_tokens
    if pools.mamba_slots:
        found["mamba_slots"] = pools.mamba_slots
        found["mamba_pool_bytes_allocated"] = pools.state_bytes
    found["max_running_requests"] = pools.max_running_requests
    found["kv_pool_bytes_allocated"] = pools.pool_bytes
    found["req_to_token_bytes"] = pools.req_to_token_bytes
    return found


def differences(row):
    """Return {name: (kvplan's, SGLang's)} where they differ."""
    found, expected = sized(row), result_fields(row["result"])
    if "error" in expected:
        expected["error"] = expected["error"].partition(": ")[2]
    expected.pop("engine_log", None)
    names = [name for name in expected if name in SETTINGS or row.get("pre_model_load_gb") is not None]
    return {name: (found.get(name), expected[name]) for name in names if found.get(name) != expected[name]}
