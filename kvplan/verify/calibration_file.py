"""Where measurements of this machine are kept: one small file, local and removable.

``KVPLAN_CALIBRATION`` names it; otherwise it is ``kvplan/calibration.json`` where the platform keeps a
user's data. Apart from the reading, so that a plan without measurements loads nothing.
"""

import os
import sys
from pathlib import Path

VARIABLE = "KVPLAN_CALIBRATION"


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


def is_there() -> bool:
    """Tell whether anything is there, readable or not."""
    return os.path.lexists(path())
