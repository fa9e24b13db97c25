"""llama.cpp's lines as people shorten them: the device once, then its parts, the units left out."""

import re

from kvplan.verify.readings import MIB, Reading, amount

_N = r"([\d,]*\.?\d+)"
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
_SUMMARY_HOST = re.compile(rf"\b(host|\w+_Host|CPU) {_N}")
_SUMMARY_WEIGHTS = re.compile(rf"\b(?:CUDA|ROCm|Vulkan|MTL|SYCL|HIP|Metal|CPU)\w* {_N}; KV")
_SUMMARY_CELLS = re.compile(rf"\b(\d+) cells {_N} MiB")
_CELLS = re.compile(r"\( *(\d+) cells, +(\d+) layers")


def read_quote(
    text: str, amounts: list[Reading], caches: dict[str, Reading], counts: dict[str, float]
) -> None:
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
        name = host.group(1)
        amounts.append(amount("activations", host.group(2), MIB, "Host" if name == "host" else name))
    weights = _SUMMARY_WEIGHTS.search(text)
    if weights and "weights" not in known:
        amounts.append(amount("weights", weights.group(1), MIB, place))
    for cells, size in _SUMMARY_CELLS.findall(text):
        if f"{cells} cells" not in caches and "kv_cache" not in known:
            caches[f"{cells} cells"] = amount("kv_cache", size, MIB, f"{cells} cells")
            counts["kv_cache_cells"] = max(float(cells), counts.get("kv_cache_cells", 0.0))
    shape = _CELLS.search(text)
    if shape and "kv_cache_cells" not in counts and int(shape.group(1)) > 1:
        counts["kv_cache_cells"] = float(shape.group(1))
        counts["kv_cache_layers"] = float(shape.group(2))
