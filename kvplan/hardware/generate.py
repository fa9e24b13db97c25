"""Write ``_catalogue.py`` from ``gpus.yaml``: parsing 80 kB of YAML at every start would cost more
than planning does. Run ``python -m kvplan.hardware.generate`` after a change; a test holds the two
in step.
"""  # noqa: D205

from pathlib import Path
from pprint import pformat
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
HEADER = '''"""The device catalogue as Python: generated from gpus.yaml by kvplan.hardware.generate."""

from typing import Any

'''


def generated(text: str) -> str:
    """Return the module's text for the YAML ``text``."""
    data: dict[str, Any] = yaml.safe_load(text)
    gpus = pformat(data["gpus"], width=110, sort_dicts=False)
    apple = pformat(data["apple_working_set"], width=110, sort_dicts=False)
    return (
        f"{HEADER}GPUS: list[dict[str, Any]] = {gpus}\n\nAPPLE_WORKING_SET: list[dict[str, Any]] = {apple}\n"
    )


def main() -> None:
    """Write the module beside the YAML."""
    text = (FOLDER / "gpus.yaml").read_text(encoding="utf-8")
    (FOLDER / "_catalogue.py").write_text(generated(text), encoding="utf-8")


if __name__ == "__main__":
    main()
