"""What llama.cpp (and Ollama, which runs it) prints: buffers by device, cells, the memory table.

Source: the log lines of llama.cpp src/llama-model.cpp, src/llama-context.cpp, src/llama-kv-cache.cpp,
src/llama-memory-recurrent.cpp and tools' ``llama_memory_breakdown_print``, their older spellings
(``llm_load_tensors``, ``llama_kv_cache_init``, ``KV self size``), and Ollama's llm/memory.go.
"""

import re
from collections import Counter
from collections.abc import Sequence

from kvplan.verify.llama_cpp_quotes import read_quote
from kvplan.verify.log_text import Line
from kvplan.verify.ollama_log import OLLAMA_MARKS, ollama_amounts, ollama_settings
from kvplan.verify.readings import MIB, Reading, Readings, amount, last_of_each

_N = r"([\d,]*\.?\d+)"
_DEVICE = r"\b((?!KV\b|RS\b|compute\b|output\b|model\b|host\b)[A-Za-z][\w\[\]:.]*)"

# A device's buffer in MiB: pattern -> name.
BUFFERS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"{_DEVICE} (?:model )?buffer size += +{_N} Mi?B", "weights"),
        (rf"{_DEVICE} KV buffer size += +{_N} Mi?B", "kv_cache_buffer"),
        (rf"{_DEVICE} RS buffer size += +{_N} MiB", "recurrent_state_buffer"),
        (rf"{_DEVICE} +output buffer size += +{_N} Mi(?:B|$)", "output"),
        (rf"{_DEVICE} compute buffer size += +{_N} Mi?B", "activations"),
    )
)
AMOUNTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), names)
    for pattern, names in (
        # A build that keeps latents beside the heads prints a second line for them (K^R).
        (rf"KV self size += +{_N} MiB, (?:K \(|c\^KV)", ("kv_cache",)),
        (rf"KV self size += +{_N} MiB, K\^R", ("kv_cache_latent",)),
        (rf"(?:KV|kv) self size += +{_N} Mi?B(?!,)", ("kv_cache",)),
        # 2023: one line for all devices; its MB are MiB.
        (rf"compute buffer total size = +{_N} Mi?B", ("activations",)),
        (rf"total VRAM used: {_N} Mi?B", ("device_used",)),
        (rf"total VRAM used: [\d.]+ Mi?B \(model: {_N} Mi?B", ("weights_on_device",)),
        (r"llama_memory_recurrent: +size = +([\d.]+) MiB", ("recurrent_state",)),
        (rf"mmproj is {_N} MiB", ("multimodal",)),
        (rf"MTP context is {_N} MiB", ("draft_model",)),
        (rf"projected to use {_N} MiB", ("projected",)),
        # nvidia-smi, pasted beside the log.
        (rf"\b{_N}MiB */ *\d+MiB", ("device_used",)),
        (rf"\d+MiB */ *{_N}MiB", ("device_total",)),
    )
)
_CACHE = re.compile(
    rf"\b(?:size = +)?{_N} MiB \( *(\d+) cells, +(\d+) layers(?:, +(\d+)(?:/(\d+))? seqs)?\)"
    rf"(?:, K \((\w+)\): +{_N} MiB, V \((\w+)\): +{_N} MiB)?"
)
# Tensors are aligned in their buffer, which is a little larger than what the cache's line says.
BUFFER_PADDING_BYTES = MIB // 16
_OLD_TYPES = re.compile(r"\bK \((\w+)\): +[\d.]+(?: MiB)?,? V \((\w+)\)")
_KEY_TYPE = re.compile(r"\bK \((\w+)\):")
_LATENT_TYPE = re.compile(r"c\^KV \((\w+)\)")
# As a page quotes the table's columns: total | free | self = model + context + compute.
_BARS = re.compile(r"\b(\d+) \| +(\d+) \| +(\d+)(?: =| \|) +(\d+) (?:\+|\|) +(\d+) (?:\+|\|) +(\d+)\b")
_BARS_ROUNDING_MIB = 3
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
_SIZE = re.compile(r"(?:model|file) size += +([\d.]+ [GM]i?B \([\d.]+ BPW\))")
_PARAMETERS = re.compile(r"model params += +([\d.]+ [MBT])\b")
_NAME = re.compile(r"general\.name += +(.+)")
_BUILD = re.compile(r"\bbuild: (\d+) \((\w+)\)")
_OOM = re.compile(
    r"cudaMalloc failed|failed to allocate (?:\w+ )?buffer|unable to allocate \w+ buffer"
    r"|Device memory allocation of size \d+ failed|ErrorOutOfDeviceMemory|out of memory",
    re.IGNORECASE,
)
MARKS = re.compile(
    r"llama_(?:model_load|kv_cache|context|new_context|memory)|llm_load_tensors|load_tensors:|ggml_"
    r"|KV self size|compute buffer size|KV buffer size|llama-server|llama\.cpp|MiB \( *\d+ cells"
    r'|memory\.required|cudaMalloc|msg="(?:model weights|kv cache|compute graph)"|VRAM used:|kv self size'
    r"|\d+ = \d+ \+ \( *\d+ = +\d+ \+",
)


def read(lines: Sequence[Line]) -> Readings:
    """Read llama.cpp's lines; what is not there is left out."""
    amounts: list[Reading] = []
    counts: dict[str, float] = {}
    settings: dict[str, object] = {}
    caches: dict[str, Reading] = {}
    layers: Counter[str] = Counter()
    laid_out: dict[tuple[str, str], Reading] = {}
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
            layers[_cache_line(line.text, found, caches, counts, settings)] = int(found.group(3))
        amounts += _table_rows(line.text)
        laid_out |= ollama_amounts(line.text)
        settings |= ollama_settings(line.text)
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
        read_quote(line.text, amounts, caches, counts)
    for cache_counts in ("kv_cache_cells", "n_ctx_seq"):
        if cache_counts in counts:
            counts.setdefault("n_ctx", counts[cache_counts])
    amounts = [*_weights_by_device(amounts), *caches.values()]
    # What llama.cpp prints itself is finer than Ollama's figures of it.
    printed = {reading.name for reading in amounts}
    amounts += [reading for reading in laid_out.values() if reading.name not in printed]
    amounts += _cache_of_buffers(amounts)
    offered = settings.get("n_gpu_layers_of")
    if isinstance(offered, int):
        # The output counts as one more layer (llama-model.cpp load_tensors).
        counts.setdefault("n_layer", float(offered - 1))
    elif layers:
        # Recurrent memory is printed for all layers; caches only for the layers that keep one.
        counts.setdefault("n_layer", max(layers["recurrent"], sum(layers.values()) - layers["recurrent"]))
    elif "kv_cache_layers" in counts:
        counts.setdefault("n_layer", counts["kv_cache_layers"])
    engine = "ollama" if ollama else "llama.cpp"
    return Readings(engine, version, model, last_of_each(amounts), counts, settings, out_of_memory)


def _weights_by_device(amounts: list[Reading]) -> list[Reading]:
    """Add up a device's weight buffers: a split or partly mapped file has one line for each part."""
    weights: dict[str, Reading] = {}
    for reading in amounts:
        if reading.name == "weights":
            before = weights.get(reading.device)
            weights[reading.device] = reading if before is None else before.plus(reading)
    return [*(reading for reading in amounts if reading.name != "weights"), *weights.values()]


def _cache_line(
    text: str,
    found: re.Match[str],
    caches: dict[str, Reading],
    counts: dict[str, float],
    settings: dict[str, object],
) -> str:
    """Take one cache's line, return its key: full cells, window cells (after ``SWA``) or ``recurrent``."""
    size, cells, layers, num_sequences, _, type_k, _, type_v, _ = found.groups()
    if "memory_recurrent" in text or " R (" in text or "RS " in text[: found.start()]:
        caches["recurrent"] = amount("recurrent_state", size, MIB)
        return "recurrent"
    key = f"{cells} cells"
    caches[key] = amount("kv_cache", size, MIB, key)
    counts["kv_cache_cells"] = max(float(cells), counts.get("kv_cache_cells", 0.0))
    counts["kv_cache_layers"] = counts.get("kv_cache_layers", 0.0) + float(layers)
    if num_sequences:
        counts["n_parallel"] = float(num_sequences)
    if type_k:
        settings["type_k"], settings["type_v"] = type_k, type_v
    return key


def _cache_of_buffers(amounts: list[Reading]) -> list[Reading]:
    """Add a cache's buffers up where the line of the whole cache is not there and each is printed once."""
    buffers = [reading for reading in amounts if reading.name == "kv_cache_buffer"]
    whole = any(reading.name == "kv_cache" for reading in amounts)
    if not buffers or whole or len({reading.device for reading in buffers}) < len(buffers):
        return []
    num_bytes = sum(reading.num_bytes for reading in buffers)
    rounding = sum(reading.rounding_bytes + BUFFER_PADDING_BYTES for reading in buffers)
    return [Reading("kv_cache", num_bytes, rounding)]


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
    bars = _BARS.search(text)
    if bars and not rows:
        total, free, whole, weights, context, compute = (int(number) for number in bars.groups())
        if abs(whole - weights - context - compute) <= _BARS_ROUNDING_MIB:
            rows = [
                amount(name, str(number), MIB)
                for name, number in (
                    ("device_total", total),
                    ("free_at_end", free),
                    ("weights", weights),
                    ("context", context),
                    ("activations", compute),
                )
            ]
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
    for name, pattern in (("model_size", _SIZE), ("model_params", _PARAMETERS)):
        said = pattern.search(text)
        if said:
            settings[name] = said.group(1).strip()
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
