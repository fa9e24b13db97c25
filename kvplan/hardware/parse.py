"""``--gpu``: a catalogue name, a size, ``local`` or ``none``, each with a count in front.

``48GiB`` and ``49140MiB`` are exact device memory. ``48GB`` means a discrete NVIDIA card sold as
48 GB: the lowest memory really reported among those, named in the output together with the larger
sibling that could change the answer. Machines with unified memory, laptops, other vendors and
inferred readings never define a size; where no such card exists, a GB is 10**9 bytes, said.
"""

import re
from collections.abc import Sequence

from kvplan.device import Device
from kvplan.errors import InvalidValue, UnknownGpu
from kvplan.frozen import replace
from kvplan.hardware._catalogue import KEYS, SIZES
from kvplan.hardware.catalog import device_at, device_named, hidden_from_cuda, row
from kvplan.hardware.names import key_of
from kvplan.units import GB, MIB, SIZE_UNITS, format_gib, parse_size

MAX_DEVICES = 4096

_COUNTED = re.compile(r"\s*(\d+)\s*[xX×*]\s*(.+)")
_SIZE = re.compile(r"\d+(\.\d+)?\s*[A-Za-z]*")
_UNIT = re.compile(r"[kmgt]?i?b?", re.IGNORECASE)
_MIG = re.compile(r"(?P<gpu>.+):mig-(?P<profile>\d+g\.\d+gb)", re.IGNORECASE)


def parse_gpus(texts: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices that ``--gpu`` names, in order; empty for ``none``.

    Raises UnknownGpu for a name that is no device, InvalidValue for a size or count that cannot be.
    """
    if len(texts) > 1 and any(text.strip().casefold() == "none" for text in texts):
        raise InvalidValue(
            "--gpu none stands beside another --gpu",
            why="it means that the CPU does it all",
            hint="leave out one of them",
        )
    devices: list[Device] = []
    for text in texts:
        devices += parse_gpu(text)
        if len(devices) > MAX_DEVICES:
            raise InvalidValue(
                f"--gpu names more than {MAX_DEVICES:,} devices",
                why="no single deployment has that many",
                hint="write it like --gpu 8xh100",
            )
    return tuple(devices)


def parse_gpu(text: str) -> tuple[Device, ...]:
    """Read one ``--gpu``: ``h100``, ``2xa100-80gb``, ``48GB``, ``local``, ``none``."""
    counted = _COUNTED.fullmatch(text)
    if counted is not None and _UNIT.fullmatch(counted.group(2).strip()):
        raise UnknownGpu(
            f"'{text}' is neither a size nor a GPU",
            why=f"'{counted.group(2).strip()}' stands where a device or a size should",
            hint="write --gpu {0}GB for one card of that size, or --gpu {0}xh100".format(counted.group(1)),
        )
    if counted is None:
        word = text.strip().casefold()
        if word == "none":
            return ()
        if word == "local":
            from kvplan.hardware.detect import local_devices

            return local_devices()
        return (_one(text),)
    count = int(counted.group(1))
    if not 1 <= count <= MAX_DEVICES:
        raise InvalidValue(
            f"'{text}' names {count:,} devices",
            why=f"a deployment has 1 to {MAX_DEVICES:,}",
            hint="write it like --gpu 8xh100",
        )
    return (_one(counted.group(2)),) * count


def _one(text: str) -> Device:
    name = text.strip()
    if not name:
        raise UnknownGpu(
            "--gpu is empty", why="it names a device or a size", hint="write it like --gpu h100 or --gpu 48GB"
        )
    sliced = _MIG.fullmatch(name)
    if sliced is not None:
        return _mig(sliced.group("gpu"), sliced.group("profile").casefold())
    if _SIZE.fullmatch(name) and not _is_device(name):
        return _sized(name)
    if name.casefold() == "all":
        raise UnknownGpu(
            "--gpu all is each card of the catalogue, not one of them",
            why="find and sweep take it, alone",
            hint="write it like: kvplan find llama-3-8b --gpu all",
        )
    parts = [part.strip() for part in name.split(",")]
    if len(parts) > 1 and all(_is_device(part) for part in parts):
        raise UnknownGpu(
            f"'{name}' names {len(parts)} cards",
            why="commas make a list in sweep and compare; elsewhere each --gpu names one kind of card",
            hint=f"write {' '.join(f'--gpu {part}' for part in parts)}",
        )
    return device_named(name)


def _is_device(name: str) -> bool:
    # 4090 and 3090 are cards; 48 is a size without its unit.
    unit = name.lstrip("0123456789. ").casefold()
    if unit in SIZE_UNITS:
        return False
    try:
        device_named(name)
    except UnknownGpu:
        return False
    return True


def _sized(text: str) -> Device:
    size = parse_size(text)
    unit = size.unit.casefold()
    if unit not in ("gb", "tb"):
        usable, low, basis = hidden_from_cuda(size.num_bytes)
        return Device(text, size.num_bytes, usable, low, basis, vendor="nvidia", source="the size as given")
    if unit == "gb" and size.num_bytes % GB == 0:
        card = _smallest_sold_as(size.num_bytes // GB, text)
        if card is not None:
            return card
    usable, low, basis = hidden_from_cuda(size.num_bytes)
    note = f"{text} read as {size.num_bytes / GB:g} x 10^9 bytes: no NVIDIA card sold as that was read"
    return Device(
        text, size.num_bytes, usable, low, basis, vendor="nvidia", source="the size as given", notes=(note,)
    )


def _smallest_sold_as(memory_gb: int, text: str) -> Device | None:
    numbers = SIZES.get(memory_gb, [])
    sold = [row(number) for number in numbers]
    if not sold:
        return None
    lowest = min(entry["reported_mib"] for entry in sold)
    largest = max(sold, key=lambda entry: entry["reported_mib"])
    alike = [entry for entry in sold if entry["reported_mib"] == lowest]
    # Among equals the one whose process-visible memory was read speaks for the size.
    chosen = next((entry for entry in alike if "visible_gib" in entry), alike[0])
    number = numbers[sold.index(chosen)]
    names = ", ".join(entry["id"] for entry in alike[:3])
    note = f"{text} read as {lowest:,} MiB, as {names} report"
    sibling, sibling_bytes = "", 0
    if largest["reported_mib"] > lowest:
        sibling, sibling_bytes = largest["id"], largest["reported_mib"] * MIB
        for entry in sold:
            if entry["reported_mib"] == largest["reported_mib"] and entry["id"] == "rtx-a6000":
                sibling = entry["id"]
        note += f"; {sibling} has {largest['reported_mib']:,}"
    return replace(
        device_at(number),
        name=text,
        notes=(note,),
        larger_sibling=sibling,
        larger_sibling_bytes=sibling_bytes,
    )


def _mig(gpu: str, profile: str) -> Device:
    whole = device_named(gpu)
    number = KEYS.get(key_of(whole.name))
    profiles = dict(row(number).get("mig", {})) if number is not None else {}
    if profile not in profiles:
        raise UnknownGpu(
            f"{whole.name} has no MIG profile '{profile}'",
            why=f"it has {', '.join(profiles)}" if profiles else "it cannot be partitioned",
            hint=f"write it like --gpu {whole.name}" + (f":mig-{next(iter(profiles))}" if profiles else ""),
        )
    # A profile's name gives its share of the memory slices; what the driver reports of it was not
    # read, so the figure is assumed and the lower bound leaves 5 percent.
    slice_gb = int(profile.split(".")[1].removesuffix("gb"))
    memory_bytes = min(slice_gb * GB, whole.memory_bytes)
    usable = memory_bytes * 98 // 100
    return replace(
        whole,
        name=f"{whole.name}:mig-{profile}",
        memory_bytes=memory_bytes,
        usable_bytes=usable,
        usable_low_bytes=memory_bytes * 95 // 100,
        usable_basis="assumed",
        bandwidth_bytes_per_second=whole.bandwidth_bytes_per_second * slice_gb * GB // whole.memory_bytes,
        bf16_flops=whole.bf16_flops * int(profile.split("g.", maxsplit=1)[0]) // 7,
        source="the profile's name",
        notes=(f"{profile} read as {format_gib(memory_bytes)}: its name's GB; no driver reading was found",),
    )
