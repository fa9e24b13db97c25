"""A start-up log of a real vLLM server as a plan: its model, its card, the flags it had."""

import json
from functools import lru_cache
from pathlib import Path

from oracle_tables import oracle

from kvplan.engines import engine_named
from kvplan.hardware.parse import parse_gpus
from kvplan.judge import judge
from kvplan.plan import plan
from kvplan.sources import catalog
from kvplan.sources.config_model import model_from_config
from kvplan.units import GIB
from kvplan.workload import Workload

CONFIGS = Path(__file__).resolve().parent / "calibration" / "vllm_log_configs.json"
LEGACY_BLOCK = 16
OPTIONS = ("max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization", "enforce_eager")


@lru_cache(maxsize=1)
def configs():
    """Return the configs of models that are not bundled."""
    return json.loads(CONFIGS.read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def model_named(name):
    """Return the model of a log's ``spec``; None where there is none."""
    if name in configs():
        return model_from_config(configs()[name]["config"], name=name, source="published config")
    return catalog.find(name)


def logs():
    """Return the rows whose model is known by shape."""
    return [row for row in oracle("vllm_logs.jsonl") if row.get("spec") and model_named(row["spec"])]


def options_of(row):
    """Return the flags that the server had, by vLLM's option names."""
    options = {name: row[name] for name in OPTIONS if row.get(name) is not None}
    if row.get("dtype") in ("float32", "float16"):
        options["dtype"] = row["dtype"]
    return options | row.get("options", {})


def planned(row, *, available_bytes=None):
    """Return the plan of a log's server; with ``available_bytes`` the pool is fixed at that."""
    options = options_of(row)
    if available_bytes is not None:
        options["kv_cache_memory_bytes"] = available_bytes
    count = (row.get("tp") or 1) * (row.get("pp") or 1) * options.get("data_parallel_size", 1)
    weights = "fp32" if row.get("dtype") == "float32" else row.get("weights")
    kv = row.get("kv_cache_dtype") or "auto"
    workload = Workload(
        context_tokens=row.get("max_model_len") or 0,
        context_source="flag" if row.get("max_model_len") else "model",
        weights_format=weights,
        kv_cache_dtype_k=kv,
        kv_cache_dtype_v=kv,
        tensor_parallel=row.get("tp") or 1,
        pipeline_parallel=row.get("pp") or 1,
        engine_options=tuple(options.items()),
    )
    devices = parse_gpus([f"{count}x{row['card']}"]) if row.get("card") else ()
    name = f"vllm@{row['release']}" if row.get("release") else "vllm"
    return plan(model_named(row["spec"]), workload, devices, engine_named(name))


def component(result, name, device=0):
    """Return a component's amount on a device."""
    return next((part.bytes for part in result.devices[device].components if part.name == name), None)


def weights_of(result):
    """Return the weights of the first rank."""
    return component(result, "weights")


def available(result):
    """Return (low, expected, high) bytes left for the cache on the first rank."""
    device = result.devices[0]
    taken = [part.bytes for part in device.components if part.name != "kv_cache"]
    budget = device.budget_bytes
    return (
        budget - sum(amount.high for amount in taken),
        budget - sum(amount.expected for amount in taken),
        budget - sum(amount.low for amount in taken),
    )


def failed(row):
    """Tell whether the server refused to start or ran out of memory."""
    return bool(row.get("oom"))


def judged(row, result):
    """Return the verdict on a log that failed, with the pool that it had where it names one."""
    return judge(result).status


def tokens_of(row):
    """Return our tokens, those for the ends of the rounded available memory, and the log's.

    Rank 0's memory is what is printed; tokens follow the poorest rank, which holds up to a block less.
    """
    amounts = [row["available_kv_gib"] + step for step in (0, -0.005, 0.005)]
    ours = [planned(row, available_bytes=int(amount * GIB)).kv_cache_tokens for amount in amounts]
    theirs = row.get("kv_tokens") or row["gpu_blocks"] * LEGACY_BLOCK
    return (*ours, theirs)
