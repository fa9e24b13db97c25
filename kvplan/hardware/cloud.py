"""Cloud instances and their prices: ``cloud.yaml`` here, or a table of one's own.

A price is what the table says for a region and a date; where it says none there is none. An instance
with ``count`` 0 has a fraction of one GPU, as much as its ``gpu_memory_mib``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from kvplan.device import Device
from kvplan.errors import InvalidSpec, InvalidValue, UnknownGpu, did_you_mean, reason_of
from kvplan.frozen import dataclass
from kvplan.hardware.catalog import device_named, hidden_from_cuda
from kvplan.pricing import Machine
from kvplan.units import MIB

TABLE = Path(__file__).resolve().parent / "cloud.yaml"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance type: its GPUs and, where known, its price an hour in US dollars."""

    provider: str
    name: str
    gpu: str
    count: int
    gpu_memory_mib: int = 0
    price_usd_per_hour: float | None = None
    region: str = ""
    date: str = ""

    @property
    def num_gpus(self) -> int:
        """GPUs a process sees: a fraction shows as one."""
        return max(1, self.count)

    @property
    def is_fraction(self) -> bool:
        """Whether it has less than one GPU."""
        return self.count == 0


@dataclass(frozen=True, slots=True)
class Offer:
    """``num_instances`` of an instance that together have the GPUs, and what they cost an hour."""

    instance: Instance
    num_instances: int

    @property
    def price_usd_per_hour(self) -> float | None:
        """The price of all of them; None where the table has none."""
        each = self.instance.price_usd_per_hour
        return None if each is None else each * self.num_instances

    @property
    def source(self) -> str:
        """Where and when the price is from."""
        if self.instance.price_usd_per_hour is None:
            return f"no price known for {self.instance.provider} {self.instance.name}"
        return f"{self.instance.provider} {self.instance.region} on demand, {self.instance.date}"


def instances(path: str | None = None) -> tuple[Instance, ...]:
    """Return every instance of the bundled table, or of the table in ``path``.

    Raises InvalidSpec for a table of another shape, InputError for a file that cannot be read.
    """
    return _bundled() if path is None else _read(Path(path))


@lru_cache(maxsize=1)
def _bundled() -> tuple[Instance, ...]:
    return _read(TABLE)


def _read(path: Path) -> tuple[Instance, ...]:
    from kvplan.sources.yaml_text import load_yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(
            f"cannot read {path}", why=reason_of(error), hint="name a YAML file of instances and prices"
        ) from None
    data = load_yaml(text, str(path))
    rows = data.get("instances") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise _invalid(path, "it has no list 'instances'")
    return tuple(_instance(row, path, number) for number, row in enumerate(rows, start=1))


def _instance(row: object, path: Path, number: int) -> Instance:
    where = f"instance {number}"
    if not isinstance(row, dict):
        raise _invalid(path, f"{where} is not a mapping")
    known = ("provider", "instance", "gpu", "count", "gpu_memory_mib", "price_usd_hr", "region", "date")
    for key in row:
        if key not in known:
            raise _invalid(path, f"{where}: '{key}' is not a key; {did_you_mean(str(key), known) or known}")
    for key in ("provider", "instance", "gpu"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise _invalid(path, f"{where} has no {key}")
    count, memory, price = row.get("count"), row.get("gpu_memory_mib", 0), row.get("price_usd_hr")
    for key, value in (("count", count), ("gpu_memory_mib", memory)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _invalid(path, f"{where}: {key} is not a whole number")
    if count == 0 and not memory:
        raise _invalid(path, f"{where}: a fraction of a GPU (count 0) needs gpu_memory_mib")
    if price is not None:
        if not isinstance(price, int | float) or isinstance(price, bool) or not 0 < price < float("inf"):
            raise _invalid(path, f"{where}: price_usd_hr is not an amount of money")
        if not (row.get("region") and row.get("date")):
            raise _invalid(path, f"{where}: a price needs its region and date")
    return Instance(
        row["provider"],
        row["instance"],
        row["gpu"],
        int(count or 0),
        int(memory),
        None if price is None else float(price),
        str(row.get("region") or ""),
        str(row.get("date") or ""),
    )


def _invalid(path: Path, why: str) -> InvalidSpec:
    return InvalidSpec(
        f"{path.name} is not a price table",
        why=why,
        hint="see kvplan/hardware/cloud.yaml for the shape",
    )


def instance_named(name: str, table: Sequence[Instance]) -> Instance:
    """Return an instance by its name, or ``provider/name``. Raises UnknownGpu with the closest names."""
    wanted = name.strip().casefold()
    for each in table:
        if wanted in (each.name.casefold(), f"{each.provider}/{each.name}".casefold()):
            return each
    raise UnknownGpu(
        f"'{name}' is not an instance in the price table",
        why=did_you_mean(name, [each.name for each in table]) or f"it has {len(table)} others",
        hint="name the card instead: --gpu h100",
    )


def device_of(instance: Instance) -> Device:
    """Return the device that a process on the instance sees: a fraction has its own memory.

    Raises UnknownGpu for a card that the catalogue lacks.
    """
    whole = device_named(instance.gpu)
    if not instance.is_fraction:
        return whole
    memory_bytes = instance.gpu_memory_mib * MIB
    usable, low, basis = hidden_from_cuda(memory_bytes)
    return replace(
        whole,
        name=f"{whole.name} ({instance.name})",
        memory_bytes=memory_bytes,
        usable_bytes=usable,
        usable_low_bytes=low,
        usable_basis=basis,
        # Bandwidth of a slice is shared and not published.
        bandwidth_bytes_per_second=0,
        bf16_flops=0,
        notes=(f"{instance.name} has {instance.gpu_memory_mib:,} MiB of one {whole.name}",),
    )


def cheapest(device: Device, num_gpus: int, ranks: int, table: Sequence[Instance]) -> Offer | None:
    """Return the instances that have ``num_gpus`` of a device at the lowest price, None if nobody has.

    ``ranks`` tensor-parallel GPUs must be in one machine. Without any price the fewest machines.
    """
    offers = list(_offers(device, num_gpus, ranks, table))
    priced = [offer for offer in offers if offer.price_usd_per_hour is not None]
    if priced:
        return min(priced, key=lambda offer: (offer.price_usd_per_hour or 0.0, offer.num_instances))
    return min(offers, key=lambda offer: offer.num_instances, default=None)


def _offers(device: Device, num_gpus: int, ranks: int, table: Sequence[Instance]) -> Iterator[Offer]:
    for instance in table:
        if instance.is_fraction or instance.count < ranks or instance.gpu != device.name:
            continue
        groups = instance.count // ranks
        yield Offer(instance, -(-num_gpus // (groups * ranks)))


def machines(table: Sequence[Instance]) -> Iterator[Machine]:
    """Yield every priced instance whose card the catalogue knows, as a machine to plan on."""
    for instance in table:
        if instance.price_usd_per_hour is None:
            continue
        try:
            device = device_of(instance)
        except UnknownGpu:
            continue
        name = f"{instance.provider} {instance.name}"
        yield Machine(name, (device,) * instance.num_gpus, instance.price_usd_per_hour)
