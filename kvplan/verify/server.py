"""Which engine a server runs, and what it says of its memory.

vLLM answers ``/version``, ``/v1/models`` and Prometheus' ``/metrics`` (``vllm:cache_config_info``);
SGLang ``/get_server_info``; llama-server ``/props``, ``/slots``, ``/v1/models`` and, started with
``--metrics``, ``/metrics``; Ollama ``/api/version``, ``/api/ps`` and ``/api/show``. What is not
there is left out.
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
# Metrics are printed with a float's digits; SGLang rounds to 0.01 GiB.
_HUNDREDTH_GIB = GIB // 200 + 1


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
    info = _mapping(server.json("/get_server_info")) or _mapping(server.json("/server_info"))
    if "model_path" not in info and "internal_states" not in info:
        return None
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    state = _first(info.get("internal_states"))
    for key in ("mem_fraction_static", "chunked_prefill_size", "tp_size", "pp_size", "dp_size", "page_size",
                "context_length", "max_running_requests"):  # fmt: skip
        _count(counts, key, info.get(key))
    tokens = info.get("max_total_num_tokens") or state.get("max_total_num_tokens")
    memory = _mapping(state.get("memory_usage"))
    amounts: list[Reading] = []
    for key, name in (("weight", "weights"), ("kvcache", "kv_cache"), ("graph", "cuda_graphs")):
        value = memory.get(key)
        if _is_number(value):
            amounts.append(Reading(name, round(value * GIB), _HUNDREDTH_GIB))
    _count(counts, "kv_cache_tokens", memory.get("token_capacity"))
    _count(counts, "kv_cache_tokens", tokens)
    dtype = info.get("kv_cache_dtype")
    if isinstance(dtype, str):
        settings["kv_cache_dtype"] = dtype
    usage = metrics_of(server.text("/metrics") or "").get("sglang:token_usage")
    if usage:
        counts["cache_used_fraction"] = max(value for _, value in usage)
    model = str(info.get("model_path") or info.get("served_model_name") or "")
    return Readings("sglang", str(info.get("version") or ""), model, tuple(amounts), counts, settings)


def _llama_server(server: Server, _: str) -> Readings | None:
    props = _mapping(server.json("/props"))
    generation = _mapping(props.get("default_generation_settings"))
    if not generation and "total_slots" not in props:
        return None
    counts: dict[str, float] = {}
    _count(counts, "n_parallel", props.get("total_slots"))
    each = generation.get("n_ctx")
    slots = server.json("/slots")
    slots = [slot for slot in slots if isinstance(slot, dict)] if isinstance(slots, list) else []
    if _is_number(each):
        counts["n_ctx_seq"] = float(each)
        counts["n_ctx"] = float(each) * max(1.0, counts.get("n_parallel", 1.0))
    served = _first(_mapping(server.json("/v1/models")).get("data"))
    size = _mapping(served.get("meta")).get("size")
    amounts = (Reading("weights_file", int(size), 0),) if _is_number(size) else ()
    metrics = metrics_of(server.text("/metrics") or "")
    usage = metrics.get("llamacpp:kv_cache_usage_ratio")
    used = [slot["n_past"] for slot in slots if _is_number(slot.get("n_past"))]
    if usage:
        counts["cache_used_fraction"] = usage[0][1]
    elif used and counts.get("n_ctx"):
        counts["cache_used_fraction"] = sum(used) / counts["n_ctx"]
    if slots:
        counts["requests_running"] = float(sum(bool(slot.get("is_processing")) for slot in slots))
    path = str(props.get("model_path") or "")
    model = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    build = str(props.get("build_info") or "").split("-")[0]
    return Readings("llama.cpp", build, model or str(served.get("id") or ""), amounts, counts, {})


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
