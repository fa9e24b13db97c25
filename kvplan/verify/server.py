"""Which engine a server runs, and what it says of its memory.

vLLM 0.33 answers ``/version``, ``/v1/models`` and Prometheus' ``/metrics`` (v1/metrics/loggers.py:
``vllm:cache_config_info`` has CacheConfig's fields as labels, ``vllm:kv_cache_usage_perc`` was
``vllm:gpu_cache_usage_perc`` before v1). SGLang 0.5.23 answers ``/server_info`` (``/get_server_info``
before, still there; managers/scheduler_components/memory_usage.py: GiB to three decimals, graphs by
phase). llama-server b10488 answers ``/props``, ``/slots`` (tools/server/server-context.cpp: tokens of
a slot in ``n_prompt_tokens``, ``n_past`` before), ``/v1/models`` and, started with ``--metrics``,
``/metrics``; Ollama ``/api/version``, ``/api/ps`` and ``/api/show``. What is not there is left out.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

from kvplan.errors import CannotTell
from kvplan.verify.http import Server
from kvplan.verify.readings import GIB, Reading, Readings

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+([-+.\deEnaifNI]+)(?:\s+\d+)?\s*$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# What SGLang's plan reads among the options that its server repeats, as it resolved them.
_SGLANG_COUNTS = (
    "mem_fraction_static", "chunked_prefill_size", "tp_size", "pp_size", "dp_size", "ep_size", "page_size",
    "context_length", "max_running_requests", "max_mamba_cache_size", "swa_full_tokens_ratio",
    "mamba_full_memory_ratio", "speculative_num_draft_tokens",
)  # fmt: skip
_SGLANG_SETTINGS = (
    "kv_cache_dtype", "mamba_ssm_dtype", "speculative_algorithm", "enable_dp_attention",
    "disable_radix_cache", "disable_cuda_graph",
)  # fmt: skip


def ask(server: Server, model: str = "") -> Readings:
    """Return what a server says. Raises CannotTell when it cannot be reached or is no known engine.

    ``model`` chooses among several that Ollama has loaded.
    """
    for reader in _READERS:
        found = reader(server, model)
        if found is not None:
            return found
    raise CannotTell(
        f"{server.base} is no engine that kvplan knows",
        why="it answers none of vLLM's, SGLang's, llama-server's or Ollama's own paths",
        hint="check the address, or read the engine's log: kvplan verify --log FILE",
    )


def metrics_of(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Read Prometheus' text format: name -> its samples with their labels. What is no sample is left out."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in text.splitlines():
        found = _SAMPLE.match(line) if line[:1] != "#" else None
        if found is None:
            continue
        try:
            value = float(found.group(3))
        except ValueError:
            continue
        labels = dict(_LABEL.findall(found.group(2) or ""))
        samples.setdefault(found.group(1), []).append((labels, value))
    return samples


def _vllm(server: Server, _: str) -> Readings | None:
    version = _mapping(server.json("/version")).get("version")
    metrics = metrics_of(server.text("/metrics") or "")
    configs = metrics.get("vllm:cache_config_info", [])
    if not isinstance(version, str) or not (configs or any(name.startswith("vllm:") for name in metrics)):
        return None
    served = _first(_mapping(server.json("/v1/models")).get("data"))
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    _count(counts, "max_model_len", served.get("max_model_len"))
    for labels, _value in configs[:1]:
        for label, name in (("num_gpu_blocks", "num_blocks"), ("block_size", "block_size")):
            _count(counts, name, labels.get(label))
        _count(counts, "gpu_memory_utilization", labels.get("gpu_memory_utilization"))
        dtype = labels.get("cache_dtype")
        if dtype:
            settings["kv_cache_dtype"] = dtype
        # Either one fixes the pool, whatever the budget.
        for fixed in ("kv_cache_memory_bytes", "num_gpu_blocks_override"):
            if labels.get(fixed, "").isdecimal():
                settings[fixed] = int(labels[fixed])
        if labels.get("enable_prefix_caching") in ("True", "False"):
            settings["enable_prefix_caching"] = labels["enable_prefix_caching"] == "True"
    for name in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"):
        if name in metrics:
            counts["cache_used_fraction"] = max(value for _, value in metrics[name])
            break
    for name, said in (
        ("vllm:num_requests_running", "requests_running"),
        ("vllm:num_requests_waiting", "requests_waiting"),
    ):
        if name in metrics:
            counts[said] = sum(value for _, value in metrics[name])
    model = str(served.get("root") or served.get("id") or "")
    return Readings("vllm", version, model, (), counts, settings)


def _sglang(server: Server, _: str) -> Readings | None:
    info = _mapping(server.json("/server_info"))
    if not _is_sglang(info):
        info = _mapping(server.json("/get_server_info"))
    if not _is_sglang(info):
        return None
    counts: dict[str, float] = {}
    state = _first(info.get("internal_states"))
    for key in _SGLANG_COUNTS:
        _count(counts, key, info.get(key))
    settings = {
        key: info[key]
        for key in _SGLANG_SETTINGS
        if isinstance(info.get(key), str | bool) and info[key] != ""
    }
    memory = _mapping(state.get("memory_usage"))
    amounts: list[Reading] = []
    for key, name in (("weight", "weights"), ("kvcache", "kv_cache"), ("graph", "cuda_graphs")):
        values = memory.get(key)
        parts = list(values.values()) if isinstance(values, dict) else [values]
        printed = [value for value in parts if _is_number(value)]
        if printed and len(printed) == len(parts):
            rounding = max(_rounding_bytes(value) for value in printed) * len(printed)
            amounts.append(Reading(name, round(sum(printed) * GIB), rounding))
    _count(counts, "kv_cache_tokens", memory.get("token_capacity"))
    _count(counts, "kv_cache_tokens", info.get("max_total_num_tokens") or state.get("max_total_num_tokens"))
    _count(counts, "swa_tokens", memory.get("token_capacity_swa"))
    metrics = metrics_of(server.text("/metrics") or "")
    usage = metrics.get("sglang:token_usage")
    if usage:
        counts["cache_used_fraction"] = max(value for _, value in usage)
    for name, said in (
        ("sglang:num_running_reqs", "requests_running"),
        ("sglang:num_queue_reqs", "requests_waiting"),
    ):
        if name in metrics:
            counts[said] = sum(value for _, value in metrics[name])
    model = str(info.get("model_path") or info.get("served_model_name") or "")
    return Readings("sglang", str(info.get("version") or ""), model, tuple(amounts), counts, settings)


def _is_sglang(info: Mapping[str, Any]) -> bool:
    return "model_path" in info or "internal_states" in info


def _rounding_bytes(gib: float) -> int:
    """Return half a unit of the last printed digit: hundredths once, thousandths since 0.5.2x."""
    return (GIB // 200 if round(gib, 2) == gib else GIB // 2000) + 1


def _llama_server(server: Server, _: str) -> Readings | None:
    props = _mapping(server.json("/props"))
    generation = _mapping(props.get("default_generation_settings"))
    if not generation and "total_slots" not in props:
        return None
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    _count(counts, "n_parallel", props.get("total_slots"))
    _count(counts, "n_ctx_seq", generation.get("n_ctx"))
    slots = server.json("/slots")
    slots = [slot for slot in slots if isinstance(slot, dict)] if isinstance(slots, list) else []
    served = _first(_mapping(server.json("/v1/models")).get("data"))
    meta = _mapping(served.get("meta"))
    size = meta.get("size")
    amounts = (Reading("weights_file", int(size), 0),) if _is_number(size) else ()
    file_type = props.get("model_ftype") or meta.get("ftype")
    if isinstance(file_type, str):
        settings["file_type"] = file_type
    usage = metrics_of(server.text("/metrics") or "").get("llamacpp:kv_cache_usage_ratio")
    held = [slot.get("n_prompt_tokens", slot.get("n_past")) for slot in slots]
    used = [tokens for tokens in held if _is_number(tokens)]
    if usage:
        counts["cache_used_fraction"] = usage[0][1]
    elif used:
        counts["cache_used_tokens"] = float(sum(used))
    if slots:
        counts["requests_running"] = float(sum(bool(slot.get("is_processing")) for slot in slots))
    path = str(props.get("model_path") or "")
    model = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    build = str(props.get("build_info") or "").split("-")[0]
    return Readings("llama.cpp", build, model or str(served.get("id") or ""), amounts, counts, settings)


def _ollama(server: Server, model: str) -> Readings | None:
    version = _mapping(server.json("/api/version")).get("version")
    running = _mapping(server.json("/api/ps")).get("models")
    if not isinstance(version, str) or not isinstance(running, list):
        return None
    loaded = [entry for entry in running if isinstance(entry, dict)]
    wanted = model.partition(":")[0].casefold()
    named = [one for one in loaded if str(one.get("name", "")).casefold().startswith(wanted)]
    chosen = next(iter(named or (loaded if len(loaded) == 1 else [])), None)
    if chosen is None:
        raise CannotTell(
            f"Ollama has {'no such model' if loaded else 'no model'} loaded now",
            why=", ".join(str(one.get("name")) for one in loaded[:5]) or "it loads one when it is asked",
            hint="load it first: ollama run llama3 ''",
        )
    name = str(chosen.get("name") or "")
    shown = _mapping(server.json("/api/show", {"model": name}))
    counts: dict[str, float] = {}
    _count(counts, "n_ctx", chosen.get("context_length"))
    asked = re.search(r"\bnum_ctx\s+(\d+)", str(shown.get("parameters") or ""))
    if asked and "n_ctx" not in counts:
        counts["n_ctx"] = float(asked.group(1))
    amounts = [
        Reading(said, int(value), 0)
        for said, value in (("whole", chosen.get("size")), ("on_gpu", chosen.get("size_vram")))
        if _is_number(value)
    ]
    details = _mapping(chosen.get("details"))
    settings: dict[str, object] = {}
    if details.get("quantization_level"):
        settings["file_type"] = str(details["quantization_level"])
    return Readings("ollama", version, name, tuple(amounts), counts, settings)


_READERS: tuple[Callable[[Server, str], Readings | None], ...] = (_ollama, _llama_server, _sglang, _vllm)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: object) -> Mapping[str, Any]:
    return _mapping(value[0]) if isinstance(value, list) and value else {}


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**60


def _count(counts: dict[str, float], name: str, value: object) -> None:
    try:
        number = float(str(value))
    except ValueError:
        return
    if 0 <= number < 2**60:
        counts[name] = number
