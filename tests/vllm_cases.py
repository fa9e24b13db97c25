"""A run of vLLM's planner as a plan: from its config, through the engine, back to its results."""

from dataclasses import replace

from kvplan.engines import engine_named
from kvplan.plan import plan
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload


def options_of(row):
    """Return the flags that the run had, by vLLM's option names."""
    options = {
        "kv_cache_memory_bytes": row["available_bytes"],
        "max_num_batched_tokens": row["max_num_batched_tokens"],
        "async_scheduling": row["async_scheduling"],
        "decode_context_parallel_size": row["dcp"],
        "enable_prefix_caching": row["mamba_cache_mode"] != "none",
    }
    label = row["model"]
    if "bf16 ssm" in label:
        options["mamba_ssm_cache_dtype"] = "bfloat16"
    if "MTP(k=" in label:
        tokens = int(label.split("MTP(k=")[1].split(")")[0])
        options["speculative_config"] = {"method": "mtp", "num_speculative_tokens": tokens}
    options.update(row.get("options", {}))
    return tuple(options.items())


def planned(row, config):
    """Return the plan of a run's settings."""
    model = model_from_config(config, name=row["model"], source="oracle")
    if "draft" in row:
        model = replace(model, draft=model_from_config(row["draft"], name="draft", source="oracle"))
    workload = Workload(
        context_tokens=row["max_model_len"],
        context_source="flag",
        kv_cache_dtype_k=row["kv_cache_dtype"],
        kv_cache_dtype_v=row["kv_cache_dtype"],
        tensor_parallel=row["tp"],
        pipeline_parallel=row.get("pp", 1),
        engine_options=options_of(row),
    )
    return plan(model, workload, (), engine_named("vllm"))


def differences(row, config):
    """Return what of a run's result the plan does not equal, in words."""
    result, expected = planned(row, config), row["result"]
    details = dict(result.details)
    found = []
    for name, ours, theirs in (
        ("pool_bytes_per_block", details["pool_bytes_per_block"], expected["pool_bytes_per_block"]),
        ("num_blocks", result.cache.num_blocks, expected["num_blocks"]),
        ("kv_tokens", result.kv_cache_tokens, expected["kv_tokens"]),
        ("max_concurrency", round(result.max_concurrency, 4), expected["max_concurrency"]),
        ("blocks_per_request", details["blocks_per_request"], expected["blocks_per_request"]),
        ("needed", details["request_bytes"], expected["max_memory_usage_bytes"]),
        ("estimated_max_len", details["estimated_max_model_len"], expected["estimated_max_len"]),
        ("fits", not details["error"], expected["fits"]),
    ):
        if ours != theirs:
            found.append(f"{name}: {ours}, vLLM {theirs}")
    groups = sorted((g[0], g[1], g[2]) for g in details["groups"])
    theirs = sorted((g["layers"], g["block_size"], g["page_size_bytes"]) for g in expected.get("groups", ()))
    if theirs and groups != theirs:
        found.append(f"groups: {groups}, vLLM {theirs}")
    error = expected.get("error")
    if (
        error
        and not error.startswith(details["error"][: len(error)])
        and not details["error"].startswith(error)
    ):
        found.append(f"error: {ours!r}, vLLM {error!r}")
    return found
