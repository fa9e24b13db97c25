"""The file of measurements that ``kvplan verify --save`` keeps: small, local, removable.

``KVPLAN_CALIBRATION`` names it; otherwise it is ``kvplan/calibration.json`` where the platform keeps a
user's data. It never leaves the machine: nothing here opens a connection.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvplan.errors import InvalidSpec, OutputError

if TYPE_CHECKING:
    from kvplan.calibration import Measurement

VARIABLE = "KVPLAN_CALIBRATION"
SCHEMA = "kvplan-calibration/1"
# The last ones are kept: a server's overhead today says more than last year's.
MAX_MEASUREMENTS = 200
MAX_FILE_BYTES = 2**20


def path() -> Path:
    """Return where measurements are kept, whether or not there are any."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own)
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "kvplan" / "calibration.json"


def saved() -> "tuple[Measurement, ...]":
    """Return every measurement kept, none where there is no file.

    Raises InvalidSpec for a file that is none of kvplan's.
    """
    file = path()
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError:
        return ()
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ValueError("it is larger than 1 MiB")
        read = json.loads(data)
        if not isinstance(read, dict) or read.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        return tuple(_measurement(entry) for entry in read["measurements"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidSpec(
            f"{file} is no calibration of kvplan's",
            why=str(error)[:160],
            hint="remove it: kvplan verify --forget",
        ) from None


def save(measurement: "Measurement") -> Path:
    """Keep one more measurement; returns where. Raises OutputError when it cannot be written."""
    from dataclasses import asdict

    from kvplan.whole_file import write_whole

    file = path()
    kept = [*saved(), measurement][-MAX_MEASUREMENTS:]
    text = json.dumps({"schema": SCHEMA, "measurements": [asdict(one) for one in kept]}, indent=1) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text)
    except OSError as error:
        raise OutputError(
            f"cannot write {file}",
            why=error.strerror or str(error),
            hint=f"name another file: {VARIABLE}=calibration.json",
        ) from None
    return file


def forget() -> bool:
    """Remove the file; returns whether there was one. Raises OutputError when it cannot be removed."""
    file = path()
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(
            f"cannot remove {file}", why=error.strerror or str(error), hint="remove it by hand"
        ) from None
    return True


def _measurement(entry: Any) -> "Measurement":
    from kvplan.calibration import Measurement

    texts = {
        name: str(entry.get(name, "")) for name in ("device", "engine", "version", "model", "when", "driver")
    }
    overhead, planned = entry["overhead_bytes"], entry.get("planned_bytes", 0)
    if isinstance(overhead, bool) or not isinstance(overhead, int) or not 0 <= overhead < 2**50:
        raise ValueError(f"overhead_bytes is {overhead!r}")
    options = tuple((str(name), value) for name, value in entry.get("options", ()))
    planned = planned if isinstance(planned, int) else 0
    return Measurement(overhead_bytes=overhead, planned_bytes=planned, options=options, **texts)
