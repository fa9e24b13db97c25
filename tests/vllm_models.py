"""A run of vLLM's own model classes as a plan: the same flags on the same card, back to its results."""

from functools import cache

from kvplan.engines import engine_named
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.sources.catalog import find
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload

FIELDS = (
    "pool_bytes_per_block", "num_blocks", "kv_tokens", "max_concurrency", "blocks_per_request",
    "max_memory_usage_bytes", "estimated_max_len",
)  # fmt: skip


@cache
def _bundled(name):
    return find(name) or find(name.partition("/")[2])


def model_of(row):
    """Return the row's model: from its own config, else the bundled one."""
    if "config" in row:
        return model_from_config(row["config"], name=row["model"], source="the row", repo=row["model"])
    return _bundled(row["model"])


def planned(row):
    """Return the plan of a run's settings."""
    options = dict(row["args"])
    dtype = options.pop("kv_cache_dtype", "auto")
    tensor, pipeline = options.pop("tensor_parallel_size", 1), options.pop("pipeline_parallel_size", 1)
    options.pop("max_model_len", None)
    options["kv_cache_memory_bytes"] = row["available_bytes"]
    workload = Workload(
        context_tokens=row["max_model_len"],
        context_source="flag",
        kv_cache_dtype_k=dtype,
        kv_cache_dtype_v=dtype,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        engine_options=tuple(options.items()),
    )
    gpus = parse_gpus((f"{tensor * pipeline}x{row['gpu']}",))
    return plan(model_of(row), workload, gpus, engine_named("vllm"))


def differences(row):
    """Return {name: (kvplan's, vLLM's)} where they differ."""
    result, expected = planned(row), row["result"]
    details = dict(result.details)
    found = {
        "pool_bytes_per_block": details["pool_bytes_per_block"],
        "num_blocks": result.cache.num_blocks,
        "kv_tokens": result.kv_cache_tokens,
        "max_concurrency": result.max_concurrency and round(result.max_concurrency, 4),
        "blocks_per_request": details["blocks_per_request"],
        "max_memory_usage_bytes": details["request_bytes"],
        "estimated_max_len": details["estimated_max_model_len"],
    }
    pairs = {name: (found[name], expected[name]) for name in FIELDS if name in expected}
    if "groups" in expected:
        pairs["groups"] = sorted(map(list, details["groups"])), sorted(expected["groups"])
    raised = result.refusals[0].message if result.refusals else details["error"]
    pairs["fits"] = not raised, expected["fits"]
    error = expected["error"]
    if error and not raised.startswith(error):
        pairs["error"] = raised, error
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
