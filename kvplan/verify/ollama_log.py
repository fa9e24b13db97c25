"""What Ollama prints itself: memory estimated before loading, and laid out on each device.

Source: Ollama's llm/memory.go (``memory.required.full`` …, to 0.11), ml/device.go (``msg="kv cache"``
with a device, since) and, in 2024, ``required=... used=... kv=...``.
"""

import re

from kvplan.verify.readings import GIB, MIB, Reading, amount

_ESTIMATE = re.compile(
    r'memory\.(required\.full|required\.kv|weights\.total|graph\.full)="([\d.]+) (GiB|MiB|KiB|B)"'
)
_DEVICE = re.compile(
    r'msg="(model weights|kv cache|compute graph|total memory)"(?: device=([\w:.]+))?'
    r' size="([\d.]+) (GiB|MiB|KiB|B)"'
)
_FIRST = re.compile(r'required="([\d.]+) (GiB|MiB)" used="[^"]+" available="[^"]+" kv="([\d.]+) (GiB|MiB)"')
_OFFLOAD = re.compile(r"layers\.model=(\d+) layers\.offload=(\d+)")
_NAMES = {
    "required.full": "required",
    "required.kv": "kv_cache",
    "weights.total": "weights",
    "graph.full": "activations",
    "model weights": "weights",
    "kv cache": "kv_cache_buffer",
    "compute graph": "activations",
    "total memory": "required",
}
_UNITS = {"GiB": GIB, "MiB": MIB, "KiB": 1024, "B": 1}
OLLAMA_MARKS = re.compile(
    r"\bollama\b|memory\.required\.full|source=(?:server|memory|sched|runner|device|backend)\.go"
    r'|msg="(?:model weights|kv cache|compute graph)"'
)


def ollama_amounts(text: str) -> dict[tuple[str, str], Reading]:
    """Return the amounts of one line by (name, device): a later line of the same replaces them."""
    found = [amount(_NAMES[key], number, _UNITS[unit]) for key, number, unit in _ESTIMATE.findall(text)] + [
        amount(_NAMES[kind], number, _UNITS[unit], device)
        for kind, device, number, unit in _DEVICE.findall(text)
    ]
    for required, required_unit, cache, cache_unit in _FIRST.findall(text):
        found.append(amount("required", required, _UNITS[required_unit]))
        found.append(amount("kv_cache", cache, _UNITS[cache_unit]))
    return {(reading.name, reading.device): reading for reading in found}


def ollama_settings(text: str) -> dict[str, object]:
    """Return the layers offloaded, of how many; empty where a line does not say."""
    offload = _OFFLOAD.search(text)
    if offload is None:
        return {}
    return {"n_gpu_layers": int(offload.group(2)), "n_gpu_layers_of": int(offload.group(1))}
