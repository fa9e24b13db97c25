"""Where options came from that nobody typed, added to any answer."""

import json
from collections.abc import Sequence
from textwrap import wrap

from kvplan.report.answer import Screen, Setting
from kvplan.report.spelling import spelled

# The formats that have room for it.
ROOMY = ("auto", "table", "plain", "json", "markdown")


def setting_texts(settings: Sequence[Setting]) -> list[str]:
    """Return each setting in words: ``--gpu h100 from KVPLAN_GPU``."""
    return [f"{setting.flag} {setting.value}".strip() + f" from {setting.source}" for setting in settings]


def told(text: str, format_name: str, settings: Sequence[Setting], screen: Screen) -> str:
    """Return an answer that says where its settings came from, in a format that has room for it."""
    if format_name == "json":
        return _in_json(text, settings)
    lines = setting_texts(settings)
    if format_name == "table":
        width = max(20, screen.width)
        return text + spelled(
            "".join(f"{part}\n" for part in wrap(f"with {', '.join(lines)}", width)), screen
        )
    if format_name == "plain":
        return text + "".join(f"setting: {line}\n" for line in lines)
    if format_name == "markdown":
        return f"{text.rstrip()}\n\nwith {', '.join(lines)}\n"
    return text


def _in_json(text: str, settings: Sequence[Setting]) -> str:
    answer = json.loads(text)
    answer["settings"] = [
        {"flag": item.flag, "value": item.value or None, "source": item.source} for item in settings
    ]
    return json.dumps(answer, indent=2, ensure_ascii=True) + "\n"
