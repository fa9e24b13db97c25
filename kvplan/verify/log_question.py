"""What a log says about its own question: context, sequences, formats, options, devices.

Options that were given with the command stand; the log fills in the rest under the engine's own
names, so that the plan answers exactly what the server was asked.
"""

from dataclasses import replace

from kvplan.device import Device
from kvplan.errors import CannotTell
from kvplan.verify.readings import Readings
from kvplan.workload import Workload

# What each engine's plans read among the options, as its log spells them.
KEPT: dict[str, tuple[str, ...]] = {
    "vllm": (
        "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "enforce_eager", "block_size",
        "enable_prefix_caching", "speculative_config", "kv_cache_memory_bytes", "enable_expert_parallel",
        "cpu_offload_gb", "data_parallel_size", "enable_lora", "max_loras", "max_lora_rank",
        "fully_sharded_loras", "disable_hybrid_kv_cache_manager", "num_gpu_blocks_override",
        "limit_mm_per_prompt", "language_model_only", "mm_encoder_tp_mode", "mamba_ssm_cache_dtype",
        "mamba_cache_mode", "decode_context_parallel_size", "async_scheduling", "enable_chunked_prefill",
        "max_cudagraph_capture_size", "cudagraph_capture_sizes", "dtype",
    ),
    "sglang": (
        "mem_fraction_static", "chunked_prefill_size", "max_running_requests", "max_total_tokens",
        "page_size", "dp_size", "ep_size", "enable_dp_attention", "disable_cuda_graph", "cuda_graph_max_bs",
        "speculative_algorithm", "speculative_num_draft_tokens", "disable_radix_cache",
        "max_mamba_cache_size", "mamba_ssm_dtype", "swa_full_tokens_ratio", "mamba_full_memory_ratio",
    ),
    "tensorrt-llm": (
        "backend", "free_gpu_memory_fraction", "max_tokens", "max_gpu_total_bytes", "tokens_per_block",
        "max_batch_size", "max_num_tokens", "max_beam_width", "enable_attention_dp", "speculative_config",
        "lora_config", "ep_size",
    ),
    "lmdeploy": (
        "backend", "model_format", "cache_max_entry_count", "num_gpu_blocks", "cache_block_seq_len",
        "max_batch_size", "max_prefill_token_num", "quant_policy", "prefix_cache_state_budget",
        "language_model_only", "speculative_algorithm", "speculative_num_draft_tokens",
    ),
    "tgi": (
        "quantize", "speculate", "max_concurrent_requests", "max_input_tokens", "max_input_length",
        "max_total_tokens", "max_batch_prefill_tokens", "max_batch_total_tokens", "max_batch_size",
        "cuda_memory_fraction", "enable_prefill_logprobs", "attention", "wiggle_room", "lora_adapters",
    ),
    "llama.cpp": (
        "n_batch", "n_ubatch", "flash_attn", "n_gpu_layers", "n_cpu_moe", "tensor_split", "kv_unified",
        "swa_full", "no_kv_offload", "cpu_moe",
    ),
}  # fmt: skip
WHOLE_NUMBERS = frozenset(
    ("max_num_seqs", "max_num_batched_tokens", "block_size", "chunked_prefill_size", "max_running_requests",
     "page_size", "dp_size", "ep_size", "n_batch", "n_ubatch", "max_batch_size",
     "max_num_tokens", "tokens_per_block", "max_prefill_token_num", "quant_policy", "cache_block_seq_len",
     "speculate", "max_concurrent_requests", "max_input_tokens", "max_input_length", "max_total_tokens",
     "max_batch_prefill_tokens", "max_batch_total_tokens")
)  # fmt: skip
CONTEXT = {
    "vllm": "max_model_len",
    "sglang": "context_length",
    "llama.cpp": "n_ctx",
    "tensorrt-llm": "max_seq_len",
    "lmdeploy": "session_len",
    "tgi": "context",
}
# What each engine calls its tensor ranks.
TENSOR_RANKS = ("tensor_parallel_size", "tp_size", "tp", "num_shard")
# A single device whose size nothing says: large enough that nothing is placed elsewhere.
UNKNOWN_DEVICE_BYTES = 2**42
AUTO_SLOTS, AUTO_SINCE = 4, 6924
_SUFFIX = {"small": "_s", "medium": "_m", "large": "_l"}


def workload_of(readings: Readings, workload: Workload) -> Workload:
    """Fill in what the log says and the command does not."""
    engine = "llama.cpp" if readings.engine == "ollama" else readings.engine
    said: dict[str, object] = {**readings.settings}
    for name, value in readings.counts.items():
        said.setdefault(name, int(value) if name in WHOLE_NUMBERS else value)
    options = {name: said[name] for name in KEPT[engine] if said.get(name) is not None}
    if engine == "vllm" and "gpu_memory_utilization" not in options:
        share = _share(readings)
        if share is not None:
            options["gpu_memory_utilization"] = share
    context = _int(readings.counts.get(CONTEXT[engine]) or said.get(CONTEXT[engine]))
    if workload.context_tokens == 0 and context > 0:
        workload = replace(workload, context_tokens=context, context_source="engine")
    if workload.kv_cache_dtype_k == workload.kv_cache_dtype_v == "auto":
        key_dtype, value_dtype = _kv_dtypes(engine, said)
        workload = replace(workload, kv_cache_dtype_k=key_dtype, kv_cache_dtype_v=value_dtype)
    if engine == "llama.cpp":
        workload, options = _llama_cpp(readings, workload, options)
    if not workload.tensor_parallel and not workload.pipeline_parallel:
        workload = replace(
            workload,
            tensor_parallel=_int(next((said[name] for name in TENSOR_RANKS if name in said), 0)),
            pipeline_parallel=_int(said.get("pipeline_parallel_size", said.get("pp_size"))),
        )
    options |= dict(workload.engine_options)
    return replace(workload, engine_options=tuple(options.items()))


def devices_of(readings: Readings, given: tuple[Device, ...], num_ranks: int) -> tuple[Device, ...]:
    """Return the devices: those given, else those the log tells of.

    A total that the log prints replaces the given device's usable memory, because it is what the
    engine saw. Raises CannotTell when a budget depends on a size that nobody says.
    """
    if readings.engine in ("llama.cpp", "ollama"):
        return _llama_cpp_devices(readings, given)
    total = readings.largest("device_total")
    if total is not None:
        if given:
            return tuple(_seen(device, total.num_bytes) for device in given)
        return (_device(f"{readings.engine} log's GPU", total.num_bytes),) * num_ranks
    if given:
        return given
    raise CannotTell(
        f"the size of the GPU is not in this {readings.engine} log",
        why="the engine's budget is a share of it",
        hint="name the GPU: --gpu h100, or --gpu 48GB",
    )


def weights_of(readings: Readings) -> str | None:
    """Return the GGUF mix that a file type names (``Q4_K - Medium``), None where none is printed."""
    text = str(readings.settings.get("file_type", ""))
    if not text:
        return None
    mix, _, size = text.partition(" - ")
    name = mix.strip().casefold()
    if name in ("f16", "bf16", "f32"):
        return f"gguf-{name}"
    return name + _SUFFIX.get(size.split("(")[0].strip().casefold(), "")


def _share(readings: Readings) -> float | None:
    requested, total = readings.largest("requested"), readings.largest("device_total")
    if requested is None or total is None or not total.num_bytes:
        return None
    # Both are printed to 0.01 GiB; shares are given in hundredths.
    return round(requested.num_bytes / total.num_bytes, 2)


def _kv_dtypes(engine: str, said: dict[str, object]) -> tuple[str, str]:
    if engine == "llama.cpp":
        key, value = (
            str(said.get("type_k") or "auto"),
            str(said.get("type_v") or said.get("type_k") or "auto"),
        )
        return key.casefold(), value.casefold()
    name = str(said.get("kv_cache_dtype") or "auto").removeprefix("torch.").casefold()
    name = {"float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2"}.get(name, name)
    return name, name


def _llama_cpp(
    readings: Readings, workload: Workload, options: dict[str, object]
) -> tuple[Workload, dict[str, object]]:
    n_parallel = max(1, _int(readings.counts.get("n_parallel", 1)))
    n_ctx = _int(readings.counts.get("n_ctx"))
    if not n_ctx and "n_ctx_seq" in readings.counts:
        # A server tells a slot's context only.
        n_ctx = _int(readings.counts["n_ctx_seq"])
        if shares_one_cache(readings, workload):
            options["kv_unified"] = True
        else:
            n_ctx *= n_parallel
    cells = _int(readings.counts.get("kv_cache_cells"))
    if n_ctx:
        options |= {"ctx_size": n_ctx, "parallel": n_parallel}
        workload = replace(
            workload,
            context_tokens=max(1, n_ctx // n_parallel),
            num_sequences=n_parallel,
            context_source="engine",
        )
    if n_parallel > 1 and cells and cells == n_ctx:
        options["kv_unified"] = True
    flash = str(options.get("flash_attn", "auto"))
    options["flash_attn"] = {"1": "on", "true": "on", "enabled": "on"}.get(flash.casefold(), flash)
    return workload, options


def shares_one_cache(readings: Readings, workload: Workload) -> bool:
    """Tell whether a llama-server's slots share one cache, each as long as all of it.

    The flags say it where they are given. Without ``-np`` servers make four slots of one cache since
    b6924 (llama.cpp pull request 16736); with it each slot has its part. Four slots may be either.
    """
    said = workload.option("kv_unified")
    if isinstance(said, bool):
        return said
    return slots_may_be_automatic(readings) and workload.option("parallel") is None


def slots_may_be_automatic(readings: Readings) -> bool:
    """Tell whether a llama-server may have chosen its slots itself: four, and no build from before that.

    Builds without git call themselves b0.
    """
    if readings.engine != "llama.cpp" or readings.counts.get("n_parallel") != AUTO_SLOTS:
        return False
    build = readings.version.removeprefix("b")
    return not build.isdecimal() or int(build) == 0 or int(build) >= AUTO_SINCE


def _llama_cpp_devices(readings: Readings, given: tuple[Device, ...]) -> tuple[Device, ...]:
    names = sorted({reading.device for reading in readings.of("weights") if is_gpu(reading.device)})
    if given:
        return given
    totals = {reading.device: reading.num_bytes for reading in readings.of("device_total")}
    return tuple(_device(name, totals.get(name, UNKNOWN_DEVICE_BYTES)) for name in names)


def is_gpu(device: str) -> bool:
    """Tell whether llama.cpp's name of a buffer is a GPU's (CUDA0, not CPU_Mapped or CUDA_Host)."""
    return bool(device) and "Host" not in device and not device.startswith("CPU") and device != "BLAS"


def _seen(device: Device, total_bytes: int) -> Device:
    return replace(device, usable_bytes=total_bytes, usable_low_bytes=total_bytes, usable_basis="exact")


def _device(name: str, num_bytes: int) -> Device:
    return Device(name, num_bytes, num_bytes, num_bytes, "exact", vendor="nvidia", source="the log")


def _int(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
