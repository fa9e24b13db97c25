"""Writes ``_catalogue.py`` from ``gpus.yaml``: parsing 80 kB of YAML at every start would cost more
than planning does. Run ``python -m kvplan.hardware.generate`` after a change; a test holds the two
in step.
"""  # noqa: D205

import json
from pathlib import Path
from typing import Any

import yaml

from kvplan.hardware.names import key_of

FOLDER = Path(__file__).resolve().parent
HEADER = '"""The device catalogue, generated from gpus.yaml by kvplan.hardware.generate: rows as JSON."""\n\n'


def generated(text: str) -> str:
    """Return the module's text for the YAML ``text``."""
    data: dict[str, Any] = yaml.safe_load(text)
    keys: dict[str, int] = {}
    for number, row in enumerate(data["gpus"]):
        keys.setdefault(key_of(row["id"]), number)
    for number, row in enumerate(data["gpus"]):
        sold = f"{row['memory_gb']}gb"
        for name in (
            *row["aliases"],
            *(f"{alias} {sold}" for alias in row["aliases"]),
            f"{row['id']} {sold}",
        ):
            keys.setdefault(key_of(name), number)
    sizes: dict[int, list[int]] = {}
    for number, row in enumerate(data["gpus"]):
        if _defines_a_size(row):
            sizes.setdefault(row["memory_gb"], []).append(number)
    rows = "".join(f"    {json.dumps(row, ensure_ascii=False)!r},\n" for row in data["gpus"])
    return (
        f"{HEADER}ROWS: tuple[str, ...] = (\n{rows})\n\n"
        f"KEYS: dict[str, int] = {json.dumps(keys, indent=1)}\n\n"
        f"SIZES: dict[int, list[int]] = {sizes}\n\n"
        f"APPLE: str = {json.dumps(data['apple_working_set'])!r}\n"
    )


def _defines_a_size(row: dict[str, Any]) -> bool:
    """Tell whether a card may stand for the size it is sold as: discrete, NVIDIA, and really read."""
    is_discrete = not row.get("unified_memory") and "laptop" not in row["id"]
    return bool(row["vendor"] == "nvidia" and row.get("reported_mib") and is_discrete)


def main() -> None:
    """Write the module beside the YAML."""
    text = (FOLDER / "gpus.yaml").read_text(encoding="utf-8")
    (FOLDER / "_catalogue.py").write_text(generated(text), encoding="utf-8")


if __name__ == "__main__":
    main()
