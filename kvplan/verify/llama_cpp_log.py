"""What llama.cpp (and Ollama, which runs it) prints: buffers by device, cells, the memory table.

Source: the log lines of llama.cpp src/llama-model.cpp, src/llama-context.cpp, src/llama-kv-cache.cpp,
src/llama-memory-recurrent.cpp and tools' ``llama_memory_breakdown_print``, their older spellings
(``llm_load_tensors``, ``llama_kv_cache_init``, ``KV self size``), and Ollama's llm/memory.go.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from kvplan.verify.log_text import Line
from kvplan.verify.readings import GIB, MIB, Reading, Readings, amount, last_of_each

_N = r"([\d,]*\.?\d+)"
_DEVICE = r"\b((?!KV\b|RS\b|compute\b|output\b|model\b|host\b)[A-Za-z][\w\[\]:.]*)"

# A device's buffer in MiB: pattern -> name.
BUFFERS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"{_DEVICE} (?:model )?buffer size += +{_N} MiB", "weights"),
        (rf"{_DEVICE} KV buffer size += +{_N} MiB", "kv_cache_buffer"),
        (rf"{_DEVICE} RS buffer size += +{_N} MiB", "recurrent_state_buffer"),
        (rf"{_DEVICE} +output buffer size += +{_N} MiB", "output"),
        (rf"{_DEVICE} compute buffer size += +{_N} MiB", "activations"),
    )
)
AMOUNTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), names)
    for pattern, names in (
        # A build that keeps latents beside the heads prints a second line for them (K^R).
        (rf"KV self size += +{_N} MiB, (?:K \(|c\^KV)", ("kv_cache",)),
        (rf"KV self size += +{_N} MiB, K\^R", ("kv_cache_latent",)),
        (rf"KV self size += +{_N} MiB(?!,)", ("kv_cache",)),
        (r"llama_memory_recurrent: +size = +([\d.]+) MiB", ("recurrent_state",)),
        (rf"mmproj is {_N} MiB", ("multimodal",)),
        (rf"MTP context is {_N} MiB", ("draft_model",)),
        (rf"projected to use {_N} MiB", ("projected",)),
    )
)
_CACHE = re.compile(
    rf"\b(?:size = +)?{_N} MiB \( *(\d+) cells, +(\d+) layers(?:, +(\d+)(?:/(\d+))? seqs)?\)"
    rf"(?:, K \((\w+)\): +{_N} MiB, V \((\w+)\): +{_N} MiB)?"
)
_OLD_TYPES = re.compile(r"\bK \((\w+)\): +[\d.]+(?: MiB)?,? V \((\w+)\)")
_KEY_TYPE = re.compile(r"\bK \((\w+)\):")
_LATENT_TYPE = re.compile(r"c\^KV \((\w+)\)")
# The memory table: total = free + (self = model + context + compute) + unaccounted, in MiB.
_TABLE = re.compile(
    rf"(?:{_DEVICE}[^|=]*?\|? *)?(\d+) = (\d+) \+ \( *(\d+) = +(\d+) \+ +(\d+) \+ +(\d+)\)(?: \+ +(\d+))?"
)
_HOST_ROW = re.compile(r"\bHost\b[^=]*?(\d+) = +(\d+) \+ +(\d+) \+ +(\d+)\b")
_COUNT_LINES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\bn_ctx +=? *(\d+)", "n_ctx"),
        (r"\bn_ctx_slot = (\d+)", "n_ctx_seq"),
        (r"\bn_ctx_(?:per_seq|seq) += +(\d+)", "n_ctx_seq"),
        (r"\bn_ubatch += +(\d+)", "n_ubatch"),
        (r"\bn_batch += +(\d+)", "n_batch"),
        (r"\bn_seq_max += +(\d+)", "n_parallel"),
        (r"\bn_layer += +(\d+)", "n_layer"),
        (r"\bn_vocab += +(\d+)", "n_vocab"),
        (r"\bn_embd_k_gqa += +(\d+)", "n_embd_k_gqa"),
        (r"\bn_ctx_train += +(\d+)", "n_ctx_train"),
    )
)
_LOADING = re.compile(r"loaded meta data with|offloading \d+ (?:repeating )?layers")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_FLASH = re.compile(r"\bflash_attn +=? *(\w+)")
_TYPE = re.compile(r"(?:model ftype|file type) += +(.+)")
_NAME = re.compile(r"general\.name += +(.+)")
_BUILD = re.compile(r"\bbuild: (\d+) \((\w+)\)")
_OOM = re.compile(
    r"cudaMalloc failed|failed to allocate (?:\w+ )?buffer|unable to allocate \w+ buffer"
    r"|Device memory allocation of size \d+ failed|ErrorOutOfDeviceMemory|out of memory",
    re.IGNORECASE,
)
_OLLAMA = re.compile(r'memory\.(required\.full|required\.kv|weights\.total|graph\.full)="([\d.]+) (GiB|MiB)"')
_OLLAMA_NAMES = {
    "required.full": "required",
    "required.kv": "kv_cache",
    "weights.total": "weights",
    "graph.full": "activations",
}
# As people quote the lines: the device once, then its parts, the units left out.
_SUMMARY: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"\bmodel {_N}(?! *[A-Za-z])", "weights"),
        (rf"\bKV {_N}(?=;| \(|$)", "kv_cache"),
        (rf"\bRS {_N}(?: MiB)?(?=;| \(|$)", "recurrent_state"),
        (rf"\bcompute {_N}", "activations"),
    )
)
_SUMMARY_DEVICE = re.compile(r"\b((?:CUDA|ROCm|Vulkan|MTL|SYCL|HIP|Metal|RPC|CPU)\w*)\b")
_SUMMARY_HOST = re.compile(rf"\b(?:host|\w+_Host) {_N}")
_SUMMARY_CELLS = re.compile(rf"\b(\d+) cells {_N} MiB")
_CELLS = re.compile(r"\( *(\d+) cells, +(\d+) layers")
MARKS = re.compile(
    r"llama_(?:model_load|kv_cache|context|new_context|memory)|llm_load_tensors|load_tensors:|ggml_"
    r"|KV self size|compute buffer size|KV buffer size|llama-server|llama\.cpp|MiB \( *\d+ cells"
    r"|memory\.required|cudaMalloc"
    r"|\d+ = \d+ \+ \( *\d+ = +\d+ \+",
)
OLLAMA_MARKS = re.compile(r"\bollama\b|memory\.required\.full|source=(?:server|memory|sched|runner)\.go")


def read(lines: Sequence[Line]) -> Readings:
    """Read llama.cpp's lines; what is not there is left out."""
    amounts: list[Reading] = []
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    caches: dict[str, Reading] = {}
    version = model = ""
    out_of_memory = ollama = False
    for line in lines:
        if _LOADING.search(line.text):
            # Another attempt: its buffers replace those before.
            amounts = [reading for reading in amounts if reading.name != "weights"]
        for pattern, name in BUFFERS:
            for found in pattern.finditer(line.text):
                amounts.append(amount(name, found.group(2), MIB, found.group(1)))
        for patterns, names in AMOUNTS:
            for found in patterns.finditer(line.text):
                amounts += [amount(name, found.group(1), MIB) for name in names]
        for found in _CACHE.finditer(line.text):
            _cache_line(line.text, found, caches, counts, settings)
        amounts += _table_rows(line.text)
        for key, text, unit in _OLLAMA.findall(line.text):
            amounts.append(amount(_OLLAMA_NAMES[key], text, GIB if unit == "GiB" else MIB))
        for pattern, name in _COUNT_LINES:
            number = pattern.search(line.text)
            if number:
                counts.setdefault(name, float(number.group(1)))
        _settings(line.text, settings)
        build = _BUILD.search(line.text)
        version = f"b{build.group(1)}" if build else version
        named = _NAME.search(line.text)
        model = named.group(1).strip() if named else model
        out_of_memory = out_of_memory or bool(_OOM.search(line.text))
        ollama = ollama or bool(OLLAMA_MARKS.search(line.text))
        _summary(line.text, amounts, caches, counts)
    for cache_counts in ("kv_cache_cells", "n_ctx_seq"):
        if cache_counts in counts:
            counts.setdefault("n_ctx", counts[cache_counts])
    amounts = [*_weights_by_device(amounts), *caches.values()]
    offered = settings.get("n_gpu_layers_of")
    if isinstance(offered, int):
        # The output counts as one more layer (llama-model.cpp load_tensors).
        counts.setdefault("n_layer", float(offered - 1))
    engine = "ollama" if ollama else "llama.cpp"
    return Readings(engine, version, model, last_of_each(amounts), counts, settings, out_of_memory)


def _weights_by_device(amounts: list[Reading]) -> list[Reading]:
    """Add up a device's weight buffers: a split or partly mapped file has one line for each part."""
    weights: dict[str, Reading] = {}
    for reading in amounts:
        if reading.name == "weights":
            before = weights.get(reading.device)
            weights[reading.device] = (
                reading
                if before is None
                else replace(
                    reading,
                    num_bytes=before.num_bytes + reading.num_bytes,
                    rounding_bytes=before.rounding_bytes + reading.rounding_bytes,
                )
            )
    return [*(reading for reading in amounts if reading.name != "weights"), *weights.values()]


def _cache_line(
    text: str,
    found: re.Match[str],
    caches: dict[str, Reading],
    counts: dict[str, float],
    settings: dict[str, object],
) -> None:
    """Take one cache's line: full cells, window cells (after ``SWA``) or states (``R (f32)``)."""
    size, cells, layers, num_sequences, _, type_k, _, type_v, _ = found.groups()
    if "memory_recurrent" in text or " R (" in text or "RS " in text[: found.start()]:
        caches["recurrent"] = amount("recurrent_state", size, MIB)
        return
    key = f"{cells} cells"
    caches[key] = amount("kv_cache", size, MIB, key)
    counts["kv_cache_cells"] = max(float(cells), counts.get("kv_cache_cells", 0.0))
    counts["kv_cache_layers"] = counts.get("kv_cache_layers", 0.0) + float(layers)
    if num_sequences:
        counts["n_parallel"] = float(num_sequences)
    if type_k:
        settings["type_k"], settings["type_v"] = type_k, type_v


def _summary(text: str, amounts: list[Reading], caches: dict[str, Reading], counts: dict[str, float]) -> None:
    """Read what only a summary says: nothing of it replaces an amount that llama.cpp printed itself."""
    known = {reading.name for reading in amounts} | {reading.name for reading in caches.values()}
    device = _SUMMARY_DEVICE.search(text)
    place = device.group(1) if device else ""
    for pattern, name in _SUMMARY:
        found = pattern.search(text)
        if found and name not in known:
            amounts.append(amount(name, found.group(1), MIB, place if name != "kv_cache" else ""))
    host = _SUMMARY_HOST.search(text)
    if host and "activations" not in known and re.search(r"\bcompute\b", text):
        amounts.append(amount("activations", host.group(1), MIB, "Host"))
    for cells, size in _SUMMARY_CELLS.findall(text):
        if f"{cells} cells" not in caches and "kv_cache" not in known:
            caches[f"{cells} cells"] = amount("kv_cache", size, MIB, f"{cells} cells")
            counts["kv_cache_cells"] = max(float(cells), counts.get("kv_cache_cells", 0.0))
    shape = _CELLS.search(text)
    if shape and "kv_cache_cells" not in counts and int(shape.group(1)) > 1:
        counts["kv_cache_cells"] = float(shape.group(1))
        counts["kv_cache_layers"] = float(shape.group(2))


def _table_rows(text: str) -> list[Reading]:
    rows: list[Reading] = []
    for found in _TABLE.finditer(text):
        device, total, free, _, weights, context, compute, rest = found.groups()
        place = device or ""
        for name, number in (
            ("device_total", total),
            ("free_at_end", free),
            ("weights", weights),
            ("context", context),
            ("activations", compute),
            ("unaccounted", rest),
        ):
            if number is not None:
                rows.append(amount(name, number, MIB, place))
    host = _HOST_ROW.search(text)
    if host and not rows:
        rows = [
            amount(name, number, MIB, "Host")
            for name, number in zip(("weights", "context", "activations"), host.groups()[1:], strict=True)
        ]
    return rows


def _settings(text: str, settings: dict[str, object]) -> None:
    offloaded = _OFFLOADED.search(text)
    if offloaded:
        settings["n_gpu_layers"] = int(offloaded.group(1))
        settings["n_gpu_layers_of"] = int(offloaded.group(2))
    flash = _FLASH.search(text)
    if flash:
        settings["flash_attn"] = flash.group(1)
    kind = _TYPE.search(text)
    if kind:
        settings["file_type"] = kind.group(1).strip()
    types = _OLD_TYPES.search(text)
    if types:
        settings["type_k"], settings["type_v"] = types.groups()
    latent = _LATENT_TYPE.search(text)
    if latent:
        # One latent serves as keys and values.
        settings["type_k"] = settings["type_v"] = latent.group(1)
    alone = _KEY_TYPE.search(text)
    if alone:
        settings.setdefault("type_k", alone.group(1))
