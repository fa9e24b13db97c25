"""The catalogue: a device by name, what it reports and what a process can use of it.

Three figures are never mixed: what a card is sold as, what its driver reports, and what a process
sees. Where no reading of the last exists, a discrete NVIDIA card is taken to show 0.4 to 0.9 GiB
less than its driver reports (readings of 4090, 3090, A100, H100 and L20 lie there), assumed. Where
no driver reading exists either, it is inferred from the cards of its kind that were read, assumed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from kvplan.device import Device
from kvplan.errors import UnknownGpu, did_you_mean
from kvplan.hardware._catalogue import APPLE, KEYS, ROWS
from kvplan.hardware.names import key_of
from kvplan.quantity import Basis
from kvplan.units import GB, GIB, MIB, format_gib

# Readings of CUDA's total lie this far below the driver's on discrete NVIDIA cards.
CUDA_HIDDEN_LOW_BYTES = int(0.4 * GIB)
CUDA_HIDDEN_HIGH_BYTES = int(0.9 * GIB)
# Small cards hide less; no reading is known to hide more than this share.
CUDA_HIDDEN_MAX_SHARE = 24
# What a unified-memory machine leaves to the GPU when no reading exists: the system needs the rest.
UNIFIED_USABLE_PERCENT = 90
UNIFIED_USABLE_LOW_PERCENT = 75


@lru_cache(maxsize=256)
def row(number: int) -> dict[str, Any]:
    """Return one row of the catalogue by its number."""
    found: dict[str, Any] = json.loads(ROWS[number])
    return found


def device_named(name: str) -> Device:
    """Return the device of that name, alias, or Apple chip with its memory (``m3-max-64gb``).

    Raises UnknownGpu with the closest names.
    """
    key = key_of(name)
    number = KEYS.get(key)
    if number is not None:
        return device_at(number)
    apple = _apple(key)
    if apple is not None:
        return apple
    if re.fullmatch(r"(?:apple)?m\d(?:pro|max|ultra)?", key):
        raise UnknownGpu(
            f"'{name}' does not say how much memory it has",
            why="an Apple chip is sold with several, and the GPU shares it",
            hint=f"write it like --gpu {name.strip().replace(' ', '-')}-64gb",
        )
    raise UnknownGpu(
        f"'{name}' is not a GPU that kvplan knows",
        why=did_you_mean(name, [*(entry["id"] for entry in entries()), *_aliases()])
        or "it is neither a catalogue name nor a size",
        hint="see: kvplan list gpus, or give its size: --gpu 48GiB",
    )


def _aliases() -> Iterator[str]:
    for entry in entries():
        yield from entry["aliases"]


def catalogue() -> tuple[Device, ...]:
    """Return every device, in the catalogue's order."""
    return tuple(device_at(number) for number in range(len(ROWS)))


def entries() -> list[dict[str, Any]]:
    """Return the catalogue's rows as they stand."""
    return [row(number) for number in range(len(ROWS))]


@lru_cache(maxsize=256)
def device_at(number: int) -> Device:
    """Return the device of one row of the catalogue."""
    return _make(row(number), None)


def _apple(key: str) -> Device | None:
    match = re.fullmatch(r"(m\d)(pro|max|ultra)?(\d+)g?b?", key)
    if match is None:
        return None
    chip, tier, memory_gb = match.group(1), match.group(2) or "", int(match.group(3))
    fits = [
        entry
        for entry in entries()
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
    if entry["vendor"] == "apple":
        notes.append(_working_set_note(sold_gb, usable))
    elif "unified_note" in entry:
        notes.append(entry["unified_note"])
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
        readings = sorted(
            reading["working_set_mib"] for reading in json.loads(APPLE) if reading["ram_gb"] == sold_gb
        )
        if readings:
            return int(readings[0] * MIB), int(readings[0] * MIB), "calibrated"
        return memory_bytes * 3 // 4, memory_bytes * 2 // 3, "assumed"
    if entry.get("unified_memory"):
        low = memory_bytes * UNIFIED_USABLE_LOW_PERCENT // 100
        return memory_bytes * UNIFIED_USABLE_PERCENT // 100, low, "assumed"
    return hidden_from_cuda(memory_bytes)


def _working_set_note(sold_gb: int, usable_bytes: int) -> str:
    """Return what Metal lets the GPU use, by macOS where readings differ, and how to raise it."""
    readings = sorted({one["working_set_mib"] for one in json.loads(APPLE) if one["ram_gb"] == sold_gb})
    text = f"macOS gives the GPU {format_gib(usable_bytes)} of {sold_gb} GiB"
    if not readings:
        text += " (assumed: no reading of this size)"
    elif len(readings) > 1:
        text += f", newer ones {format_gib(int(readings[-1] * MIB))}"
    return f"{text}; more by: sudo sysctl iogpu.wired_limit_mb=N"


def hidden_from_cuda(memory_bytes: int) -> tuple[int, int, Basis]:
    """Return (usable, lowest usable, basis) of a discrete card that nobody has read from a process."""
    most = min(CUDA_HIDDEN_HIGH_BYTES, memory_bytes // CUDA_HIDDEN_MAX_SHARE)
    least = min(CUDA_HIDDEN_LOW_BYTES, memory_bytes // (2 * CUDA_HIDDEN_MAX_SHARE))
    return memory_bytes - (most + least) // 2, memory_bytes - most, "assumed"
