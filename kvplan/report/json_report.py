"""Answers as JSON, schema ``kvplan/1``: integers in bytes, only additions within 1."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from kvplan import __version__
from kvplan.errors import KvplanError
from kvplan.model import num_layers
from kvplan.quantity import total
from kvplan.report.answer import (
    FitAnswer,
    ListAnswer,
    Offload,
    Proposal,
    Rent,
    Screen,
    ShowAnswer,
    Speed,
)

if TYPE_CHECKING:
    pass
from kvplan.report.plan_json import bounds, cache_facts, limits_as_json, plan_facts, planned, rate, remarks

SCHEMA = "kvplan/1"


def fit(answer: FitAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Return the whole fit answer."""
    return _dump(
        {
            **_head(answer.command),
            "exit_code": answer.exit_code,
            **planned(answer.plan, answer.verdict, answer.limits, answer.context_source),
            "speed": _speed(answer.speed),
            "offload": _offload(answer.offload),
            "suggestions": [_proposal(proposal) for proposal in answer.proposals],
            "upgrades": [_proposal(proposal) for proposal in answer.upgrades],
            **(
                {"price": {"asked": _rent(answer.rents.asked), "cheapest": _rent(answer.rents.cheapest)}}
                if answer.rents
                else {}
            ),
        }
    )


def _rent(rent: Rent | None) -> dict[str, object] | None:
    return asdict(rent) if rent else None


def _proposal(proposal: Proposal) -> dict[str, object]:
    return {
        "changes": dict(proposal.changes),
        "command": proposal.command,
        "verdict": proposal.status,
        "headroom_bytes": proposal.headroom_bytes,
        "quality": [
            {
                "change": price.key,
                "value": price.value,
                "text": price.text or None,
                "source": price.source or None,
            }
            for price in proposal.prices
        ],
    }


def document(command: str, exit_code: int, **data: object) -> str:
    """Return the answer of a command as one object, head first."""
    return _dump({**_head(command), "exit_code": exit_code, **data})


def show(answer: ShowAnswer, screen: Screen) -> str:  # noqa: ARG001
    """Return a model, its parameters and layers, and its cache under one engine."""
    model = answer.model
    structure = model.structure
    data: dict[str, object] = {
        **_head("show"),
        "exit_code": 0,
        **plan_facts(answer.plan, answer.plan.workload.context_source),
        "parameters": {
            "total": answer.num_parameters,
            "active": answer.num_active_parameters,
            "published_total": model.published_total,
            "published_relation": model.published_relation or None,
            "by_role": dict(answer.roles),
        },
        "layers": [
            {
                "count": group.count,
                "caches": [cache_facts(cache) for cache in group.layer.caches],
                "num_parameters": sum(tensor.num_elements for tensor in group.layer.tensors),
            }
            for group in structure.layers
        ],
        "num_layers": num_layers(structure),
        "provenance": dict(model.provenance),
        **remarks(answer.plan),
    }
    if answer.limits is not None:
        data["limits"] = limits_as_json(answer.limits)
    return _dump(data)


def listing(answer: ListAnswer, screen: Screen) -> str:  # noqa: ARG001
    """Return the rows of a list as objects."""
    return _dump({**_head("list"), "exit_code": 0, "what": answer.what, "entries": list(answer.entries)})


def error(problem: KvplanError) -> str:
    """Return an error as JSON, with the exit code it ends in."""
    return _dump(
        {
            "schema": SCHEMA,
            "kvplan": __version__,
            "error": {
                "code": problem.code,
                "message": problem.message,
                "why": problem.why,
                "hint": problem.hint,
            },
            "exit_code": problem.exit_code,
        }
    )


def _dump(data: Mapping[str, object]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=True) + "\n"


def _head(command: str) -> dict[str, object]:
    return {"schema": SCHEMA, "kvplan": __version__, "command": command}


def _speed(speed: Speed) -> dict[str, object]:
    return {
        "decode_tokens_per_second": rate(speed.decode),
        "decode_on_devices_tokens_per_second": rate(speed.decode_on_devices),
        "prefill_tokens_per_second": rate(speed.prefill),
    }


def _offload(offload: Offload | None) -> dict[str, object] | None:
    if offload is None:
        return None
    return {
        "host_bytes": bounds(total(part.bytes for part in offload.plan.host)),
        "command_lines": list(offload.plan.command_lines),
        "speed": _speed(offload.speed),
    }
