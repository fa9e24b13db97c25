"""The measurements that ``kvplan verify --save`` keeps: read, added to, removed.

They never leave the machine: nothing here opens a connection.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from errno import ETIMEDOUT
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

from kvplan.calibration import CacheMeasurement, Measurement, Measurements
from kvplan.errors import InvalidSpec, OutputError, reason_of
from kvplan.verify.calibration_file import VARIABLE, path
from kvplan.whole_file import write_whole

SCHEMA = "kvplan-calibration/1"
# The last ones are kept: a server's overhead today says more than last year's.
MAX_MEASUREMENTS = 200
MAX_FILE_BYTES = 2**20
# Adding a measurement takes milliseconds.
WAIT_SECONDS = 10.0
STALE_SECONDS = 60.0


def saved() -> Measurements:
    """Return every measurement kept, none where there is no file.

    Raises InvalidSpec for a file that cannot be read or is none of kvplan's.
    """
    file = path()
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Measurements()
    except OSError as error:
        raise InvalidSpec(
            f"cannot read {file}",
            why=reason_of(error),
            hint=f"name another file: {VARIABLE}=calibration.json",
        ) from None
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ValueError("it is larger than 1 MiB")
        read = json.loads(data)
        if not isinstance(read, dict) or read.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        return Measurements(
            tuple(_overhead(entry) for entry in read["measurements"]),
            tuple(_cache(entry) for entry in read.get("caches", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidSpec(
            f"{file} is no calibration of kvplan's",
            why=str(error)[:160],
            hint="remove it: kvplan verify --forget",
        ) from None


def saved_or_why() -> Measurements:
    """Return every measurement kept; why not, where they cannot be read: no plan depends on them."""
    try:
        return saved()
    except InvalidSpec as error:
        return Measurements(unreadable=f"{error.message} ({error.why}): not used; {error.hint}")


def save(measurement: Measurement | CacheMeasurement) -> Path:
    """Keep one more measurement; returns where.

    Raises InvalidSpec for a file that is none of kvplan's, which is left alone, and OutputError when it
    cannot be written.
    """
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with only_one_writer(file):
            kept = saved()
            if isinstance(measurement, Measurement):
                kept = replace(kept, overheads=(*kept.overheads, measurement)[-MAX_MEASUREMENTS:])
            else:
                kept = replace(kept, caches=(*kept.caches, measurement)[-MAX_MEASUREMENTS:])
            data = {
                "schema": SCHEMA,
                "measurements": [asdict(one) for one in kept.overheads],
                "caches": [asdict(one) for one in kept.caches],
            }
            write_whole(file, json.dumps(data, indent=1) + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {file}",
            why=reason_of(error),
            hint=f"name another file: {VARIABLE}=calibration.json",
        ) from None
    return file


@contextmanager
def only_one_writer(file: Path) -> Iterator[None]:
    """Keep other writers of a file out by a lock file beside it, so that none loses what another added.

    A lock older than STALE_SECONDS was left by a process that died. Raises TimeoutError (an OSError)
    after WAIT_SECONDS.
    """
    lock = file.parent / f".{file.name}.lock"
    until = monotonic() + WAIT_SECONDS
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time() - lock.stat().st_mtime > STALE_SECONDS:
                    lock.unlink(missing_ok=True)
                    continue
            if monotonic() > until:
                raise TimeoutError(ETIMEDOUT, f"another kvplan is writing it ({lock})") from None
            sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def forget() -> bool:
    """Remove the file; returns whether there was one. Raises OutputError when it cannot be removed."""
    file = path()
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"cannot remove {file}", why=reason_of(error), hint="remove it by hand") from None
    return True


def _overhead(entry: Any) -> Measurement:
    texts = _texts(entry, "device", "engine", "version", "model", "when", "driver")
    planned = entry.get("planned_bytes", 0)
    return Measurement(
        overhead_bytes=_amount(entry, "overhead_bytes"),
        planned_bytes=planned if isinstance(planned, int) else 0,
        options=tuple((str(name), value) for name, value in entry.get("options", ())),
        **texts,
    )


def _cache(entry: Any) -> CacheMeasurement:
    return CacheMeasurement(
        planned_bytes=_amount(entry, "planned_bytes"),
        measured_bytes=_amount(entry, "measured_bytes"),
        usable_bytes=_amount(entry, "usable_bytes"),
        **_texts(entry, "device", "engine", "version", "also", "model", "when", "driver"),
    )


def _texts(entry: Any, *names: str) -> dict[str, str]:
    return {name: str(entry.get(name, "")) for name in names}


def _amount(entry: Any, name: str) -> int:
    value = entry[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**50:
        raise ValueError(f"{name} is {value!r}")
    return value
