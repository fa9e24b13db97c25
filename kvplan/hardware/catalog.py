"""The catalogue: a device by name, what it reports and what a process can use of it.

Three figures are never mixed: what a card is sold as, what its driver reports, and what a process
sees. Where no reading of the last exists, a discrete NVIDIA card is taken to show 0.4 to 0.9 GiB
less than its driver reports (readings of 4090, 3090, A100, H100 and L20 lie there), assumed. Where
no driver reading exists either, the vendor's rule of kvplan/hardware/gpus.yaml's neighbours is
applied and the figure is assumed.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from kvplan.device import Device
from kvplan.errors import UnknownGpu, did_you_mean
from kvplan.hardware._catalogue import APPLE_WORKING_SET, GPUS
from kvplan.quantity import Basis
from kvplan.units import GB, GIB, MIB

# Readings of CUDA's total lie this far below the driver's on discrete NVIDIA cards.
CUDA_HIDDEN_LOW_BYTES = int(0.4 * GIB)
CUDA_HIDDEN_HIGH_BYTES = int(0.9 * GIB)
# Small cards hide less; no reading is known to hide more than this share.
CUDA_HIDDEN_MAX_SHARE = 24
# What a unified-memory machine leaves to the GPU when no reading exists: the system needs the rest.
UNIFIED_USABLE_PERCENT = 90
UNIFIED_USABLE_LOW_PERCENT = 75

_PREFIXES = ("nvidia", "geforce", "amd", "radeon", "intel", "apple", "tesla")


def key_of(name: str) -> str:
    """Return a device name as it is looked up: letters and digits only, vendor words dropped."""
    words = re.split(r"[\s_\-/]+", name.strip().casefold())
    while len(words) > 1 and words[0] in _PREFIXES:
        words = words[1:]
    return "".join(words)


@lru_cache(maxsize=1)
def _by_key() -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for entry in GPUS:
        found.setdefault(key_of(entry["id"]), entry)
    for entry in GPUS:
        for alias in entry["aliases"]:
            found.setdefault(key_of(alias), entry)
            found.setdefault(key_of(f"{alias} {entry['memory_gb']}gb"), entry)
        found.setdefault(key_of(f"{entry['id']} {entry['memory_gb']}gb"), entry)
    return found


def device_named(name: str) -> Device:
    """Return the device of that name, alias, or Apple chip with its memory (``m3-max-64gb``).

    Raises UnknownGpu with the closest names.
    """
    key = key_of(name)
    entry = _by_key().get(key)
    if entry is not None:
        return device_of(entry)
    apple = _apple(key)
    if apple is not None:
        return apple
    raise UnknownGpu(
        f"'{name}' is not a GPU that kvplan knows",
        why=did_you_mean(name, [*(entry["id"] for entry in GPUS), *_aliases()])
        or "it is neither a catalogue name nor a size",
        hint="see: kvplan list gpus, or give its size: --gpu 48GiB",
    )


def _aliases() -> Iterator[str]:
    for entry in GPUS:
        yield from entry["aliases"]


def catalogue() -> tuple[Device, ...]:
    """Return every device, in the catalogue's order."""
    return tuple(device_of(entry) for entry in GPUS)


def entries() -> list[dict[str, Any]]:
    """Return the catalogue's rows as they stand."""
    return GPUS


@lru_cache(maxsize=256)
def _device(key: str) -> Device:
    return _make(_by_key()[key], None)


def device_of(entry: Mapping[str, Any]) -> Device:
    """Return the device of one row of the catalogue."""
    return _device(key_of(entry["id"]))


def _apple(key: str) -> Device | None:
    match = re.fullmatch(r"(m\d)(pro|max|ultra)?(\d+)g?b?", key)
    if match is None:
        return None
    chip, tier, memory_gb = match.group(1), match.group(2) or "", int(match.group(3))
    fits = [
        entry
        for entry in GPUS
        if entry["vendor"] == "apple"
        and re.fullmatch(rf"apple-{chip}{'-' + tier if tier else ''}(-\d+c)?", entry["id"])
        and memory_gb in entry.get("memory_options_gb", ())
    ]
    return _make(fits[0], memory_gb) if fits else None


def _make(entry: Mapping[str, Any], memory_gb: int | None) -> Device:
    sold_gb = memory_gb or entry["memory_gb"]
    unified = bool(entry.get("unified_memory"))
    notes: list[str] = []
    if entry.get("reported_mib") and memory_gb is None:
        memory_bytes, source = entry["reported_mib"] * MIB, entry["reported_source"]
    else:
        memory_bytes, source = _inferred_bytes(entry, sold_gb), "inferred: no driver reading was found"
        if not unified:
            notes.append(f"{entry['id']}: no driver reading was found; its memory is inferred")
    usable, low, basis = _usable(entry, memory_bytes, sold_gb)
    name = entry["id"] if memory_gb is None else f"{entry['id']}-{memory_gb}gb"
    return Device(
        name=name,
        memory_bytes=memory_bytes,
        usable_bytes=usable,
        usable_low_bytes=low,
        usable_basis=basis,
        vendor=entry["vendor"],
        architecture=entry["architecture"],
        compute_capability=entry.get("compute_capability", ""),
        unified_memory=unified,
        bandwidth_bytes_per_second=int(entry.get("bandwidth_gbs", 0) * GB),
        bf16_flops=int(entry.get("bf16_tflops", 0) * 10**12),
        pcie=entry.get("pcie", ""),
        source=source,
        notes=tuple(notes),
    )


def _inferred_bytes(entry: Mapping[str, Any], sold_gb: int) -> int:
    # From the cards that were read: older GeForce report all of it, Ada 4 to 12 MiB less, Blackwell
    # 0.4 to 0.5 percent less, GDDR6 data-centre cards with inline ECC 15/16.
    memory_bytes = sold_gb * GIB
    if entry.get("unified_memory") or entry["vendor"] != "nvidia":
        return memory_bytes
    if entry["class"] == "datacenter" and "GDDR" in entry.get("ecc", ""):
        return memory_bytes * 15 // 16
    if entry["architecture"] == "ada":
        return memory_bytes - 12 * MIB
    if entry["architecture"] == "blackwell":
        return memory_bytes * 995 // 1000
    return memory_bytes


def _usable(entry: Mapping[str, Any], memory_bytes: int, sold_gb: int) -> tuple[int, int, Basis]:
    if "visible_gib" in entry:
        low, usual = entry["visible_gib"]
        return int(usual * GIB), int(low * GIB), "calibrated"
    if entry["vendor"] == "apple":
        readings = sorted(row["working_set_mib"] for row in APPLE_WORKING_SET if row["ram_gb"] == sold_gb)
        if readings:
            return int(readings[0] * MIB), int(readings[0] * MIB), "calibrated"
        return memory_bytes * 3 // 4, memory_bytes * 2 // 3, "assumed"
    if entry.get("unified_memory"):
        low = memory_bytes * UNIFIED_USABLE_LOW_PERCENT // 100
        return memory_bytes * UNIFIED_USABLE_PERCENT // 100, low, "assumed"
    return hidden_from_cuda(memory_bytes)


def hidden_from_cuda(memory_bytes: int) -> tuple[int, int, Basis]:
    """Return (usable, lowest usable, basis) of a discrete card that nobody has read from a process."""
    most = min(CUDA_HIDDEN_HIGH_BYTES, memory_bytes // CUDA_HIDDEN_MAX_SHARE)
    least = min(CUDA_HIDDEN_LOW_BYTES, memory_bytes // (2 * CUDA_HIDDEN_MAX_SHARE))
    return memory_bytes - (most + least) // 2, memory_bytes - most, "assumed"
