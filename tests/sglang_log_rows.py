"""Start-up logs of real SGLang servers against kvplan: shared by the test and the calibration script."""

from dataclasses import dataclass, replace

from oracle_tables import oracle

from kvplan.device import Device
from kvplan.engines.sglang.pools import Pools, size_pools
from kvplan.engines.sglang.settings import settings_of
from kvplan.engines.sglang.stages import Ranks, stages_of
from kvplan.sources.catalog import find
from kvplan.units import GIB
from kvplan.workload import Workload

# The logs' dtypes under kvplan's names.
KV_NAMES = {"torch.bfloat16": "bf16", "torch.float8_e4m3fn": "fp8_e4m3", "torch.float8_e5m2": "fp8_e5m2"}
# Printed with two decimals.
ROUNDING_GIB = 0.005


@dataclass(frozen=True)
class Comparison:
    """What one log says and what kvplan makes of it; None where the log lacks what is needed."""

    row_id: str
    shape: str
    weights_error: float | None
    pool_error: float | None
    pool_tolerance: float | None
    tokens_error: float | None
    slots_error: int | None


def compared():
    """Return a comparison for every log whose model's layers are known."""
    return [comparison(row) for row in oracle("sglang_logs.jsonl") if row.get("shape")]


def device_of(row):
    vendor = "amd" if "AMD" in row.get("gpu", "") else "nvidia"
    memory = 80 * GIB
    return Device(row.get("gpu", ""), memory, memory, memory, "assumed", vendor, compute_capability="9.0")


def comparison(row):
    model = find(row["shape"])
    tensor = row.get("tp") or 1
    kv = KV_NAMES.get(row.get("kv_cache_dtype", ""), "auto")
    options = {
        name: row[name]
        for name in ("mem_fraction_static", "chunked_prefill_size", "max_running_requests")
        if row.get(name) is not None
    }
    # Early logs print the limit they worked out; only as a flag does it say anything.
    if row.get("max_total_num_tokens"):
        options.pop("max_running_requests", None)
    workload = Workload(
        context_tokens=row.get("context_length") or 0,
        kv_cache_dtype_k=kv,
        kv_cache_dtype_v=kv,
        engine_options=tuple(options.items()),
    )
    settings = settings_of(model, workload, device_of(row), tensor, 1)
    # No log is of a version that set memory aside for images.
    settings = replace(settings, multimodal_reserve_mib=0)
    stage = stages_of(model, model.weights_format, Ranks(tensor, 1, 1, 1), settings.layout)[0]
    weights = None
    if (row.get("weights_mem_gb") and row.get("model") and "/" in row["model"]) or row[
        "shape"
    ] == "qwen3-14b":
        weights = stage.weight_bytes / GIB / row["weights_mem_gb"] - 1
    pool, tolerance = pool_error(row, settings, stage)
    tokens = slots = None
    before = row.get("avail_mem_before_gb") or (
        row.get("avail_mem_after_gb", 0) + row.get("weights_mem_gb", 0)
    )
    if row.get("mem_fraction_static") and row.get("avail_mem_after_gb") and row.get("kv_tokens"):
        pools = size_pools(stage.cells, settings, before, row["avail_mem_after_gb"], stage.state_bytes)
        if isinstance(pools, Pools):
            tokens = pools.max_total_num_tokens / row["kv_tokens"] - 1
            slots = pools.mamba_slots - row.get("mamba_slots", 0)
    return Comparison(row["id"], row["shape"], weights, pool, tolerance, tokens, slots)


def pool_error(row, settings, stage):
    """Return (error, tolerance) of the pool's size for the tokens the log prints."""
    cells = stage.cells
    if row.get("full_tokens") and row.get("kv_gb"):
        ours = cells.full_bytes * row["full_tokens"] + cells.window_bytes * row["swa_tokens"]
        printed, decimals = row["kv_gb"], 1
    elif row.get("kv_tokens") and (row.get("kv_gb") or row.get("k_gb")):
        ours = cells.full_bytes * (row["kv_tokens"] + settings.page_size)
        printed, decimals = row.get("kv_gb") or row["k_gb"] + row["v_gb"], 2
    else:
        return None, None
    return ours / GIB / printed - 1, decimals * ROUNDING_GIB / printed + 0.0002
