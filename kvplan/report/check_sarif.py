"""A check as SARIF 2.1.0 (OASIS), the form that code scanning shows on the lines of a change."""

import json
from collections.abc import Iterator
from pathlib import PurePath
from urllib.parse import quote

from kvplan import __version__
from kvplan.deploy.rows import Level, Place
from kvplan.report.answer import Screen
from kvplan.report.check_answer import CheckAnswer
from kvplan.report.check_wording import message, shared_message, where

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# Rule id -> what it means. Verdicts are rules, so that code scanning can group them.
RULES: dict[str, str] = {
    "does_not_fit": "The deployment needs more memory than its GPU gives it.",
    "refused": "The engine would not start with these settings, whatever the memory.",
    "offload": "The deployment runs only with weights or cache in system memory.",
    "over_budget": "The deployment breaks a budget of the policy.",
    "tight": "The deployment fits as expected, within the uncertainty of the estimate.",
    "unknown": "A fact that the answer needs is not in the files.",
    "shared_gpu": "Several engines share a GPU and ask for more than it has.",
    "unreadable": "The file cannot be read.",
    "fits": "The deployment fits.",
}
Finding = tuple[str, Level, str, Place | None]


def sarif(answer: CheckAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write one run with one result a finding."""
    rules = list(RULES)
    driver = {
        "name": "kvplan",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [{"id": rule, "shortDescription": {"text": text}} for rule, text in RULES.items()],
    }
    results = [
        {
            "ruleId": rule,
            "ruleIndex": rules.index(rule),
            "level": level,
            "message": {"text": text},
            **({"locations": [_location(place)]} if place is not None and place.file else {}),
        }
        for rule, level, text, place in _findings(answer)
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=True) + "\n"


def _findings(answer: CheckAnswer) -> Iterator[Finding]:
    for problem in answer.result.problems:
        yield "unreadable", "error", f"{problem.at}: {problem.message}", problem.at
    for row in answer.result.rows:
        rule = "over_budget" if row.broken_budgets and row.status in ("fits", "tight") else row.status
        yield rule, row.level, message(row), where(row)
    for item in answer.result.shared:
        if item.exit_code:
            level: Level = "error" if item.exit_code == 1 else "warning"
            yield "shared_gpu", level, shared_message(item), item.at


def _location(place: Place) -> dict[str, object]:
    uri = quote(PurePath(place.file).as_posix())
    physical: dict[str, object] = {"artifactLocation": {"uri": uri}}
    if place.line:
        physical["region"] = {"startLine": place.line}
    return {"physicalLocation": physical}
