"""Answers as JSON, schema ``kvplan/1``: integers in bytes, only additions within 1."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from kvplan import __version__
from kvplan.engines.base import DevicePlan, Plan
from kvplan.errors import KvplanError
from kvplan.judge import Verdict
from kvplan.model import ModelSpec, num_active_parameters, num_layers, num_parameters
from kvplan.quantity import Quantity, total
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
from kvplan.solve import Limits

if TYPE_CHECKING:
    from kvplan.speed import Rate

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


def planned(plan: Plan, verdict: Verdict, limits: Limits, context_source: str) -> dict[str, object]:
    """Return a plan with its verdict and limits: what every answer about one plan holds."""
    return {
        "verdict": verdict.status,
        **whole_plan(plan, context_source),
        "limits": limits_as_json(limits),
    }


def whole_plan(plan: Plan, context_source: str) -> dict[str, object]:
    """Return a plan without its verdict: model, workload, engine, devices, cache, remarks."""
    return {
        **_plan(plan, context_source),
        "devices": [_device(device) for device in plan.devices],
        "host": [
            {"name": part.name, "bytes": bounds(part.bytes), "basis": part.bytes.basis, "note": part.note}
            for part in plan.host
        ],
        "refusals": [
            {"code": refusal.code, "message": refusal.message, "fix": refusal.fix}
            for refusal in plan.refusals
        ],
        **_remarks(plan),
    }


def limits_as_json(limits: Limits) -> dict[str, object]:
    """Return how far a plan stretches."""
    return {
        "max_context_tokens": limits.max_context_tokens,
        "max_sequences": limits.max_sequences,
        "kv_cache_tokens": limits.kv_cache_tokens,
        "max_concurrency": limits.max_concurrency,
        "binding": limits.binding,
    }


def show(answer: ShowAnswer, screen: Screen) -> str:  # noqa: ARG001
    """Return a model, its parameters and layers, and its cache under one engine."""
    model = answer.model
    structure = model.structure
    data: dict[str, object] = {
        **_head("show"),
        "exit_code": 0,
        **_plan(answer.plan, answer.plan.workload.context_source),
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
                "caches": [_cache(cache) for cache in group.layer.caches],
                "num_parameters": sum(tensor.num_elements for tensor in group.layer.tensors),
            }
            for group in structure.layers
        ],
        "num_layers": num_layers(structure),
        "provenance": dict(model.provenance),
        **_remarks(answer.plan),
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


def rate(amount: "Rate | None") -> dict[str, object] | None:
    """Return tokens a second with their bounds; None where they are not known."""
    if amount is None:
        return None
    return {
        "low": round(amount.low, 3),
        "expected": round(amount.expected, 3),
        "high": round(amount.high, 3),
        "basis": amount.basis,
        "why": amount.why,
    }


def _dump(data: Mapping[str, object]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=True) + "\n"


def _head(command: str) -> dict[str, object]:
    return {"schema": SCHEMA, "kvplan": __version__, "command": command}


def _plan(plan: Plan, context_source: str) -> dict[str, object]:
    cache = plan.cache
    return {
        "model": _model(plan.model, plan),
        "workload": {
            "context_tokens": plan.context_tokens,
            "context_source": context_source,
            "num_sequences": plan.num_sequences,
            "kv_cache_dtype": {"k": plan.kv_dtype_k, "v": plan.kv_dtype_v},
        },
        "engine": {
            "name": plan.engine_name,
            "version": plan.engine_version,
            "options": dict(plan.engine_options),
            "startup_lines": list(plan.startup_lines),
            "command_lines": list(plan.command_lines),
        },
        "parallel": {
            "tensor": plan.parallel.tensor,
            "pipeline": plan.parallel.pipeline,
            "data": plan.parallel.data,
            "expert": plan.parallel.expert,
        },
        "kv_cache": {
            "bytes_per_token": cache.bytes_per_token,
            "bytes_per_sequence": cache.bytes_per_sequence,
            "state_bytes_per_sequence": cache.state_bytes_per_sequence,
            "total_bytes": cache.total.expected,
            "bytes": bounds(cache.total),
            "basis": cache.total.basis,
            "peak_bytes": cache.peak_bytes,
            "block_size": cache.block_size,
            "page_size_bytes": cache.page_size_bytes,
            "num_blocks": cache.num_blocks,
            "groups": [
                {
                    "kind": group.kind,
                    "num_layers": group.num_layers,
                    "bytes_per_token": group.bytes_per_token,
                    "bytes_per_sequence": group.bytes_per_sequence,
                }
                for group in cache.groups
            ],
        },
    }


def _model(model: ModelSpec, plan: Plan) -> dict[str, object]:
    return {
        "id": model.name,
        "source": model.source,
        "repo": model.repo,
        "revision": model.revision,
        "architecture": model.architecture,
        "model_type": model.model_type,
        "num_parameters": num_parameters(model.structure),
        "num_active_parameters": num_active_parameters(model.structure),
        "weights_format": plan.weights_format,
        "weights_bytes": plan.weights.expected,
        "context_limit_tokens": model.context_limit_tokens or None,
    }


def _device(device: DevicePlan) -> dict[str, object]:
    return {
        "name": device.device.name,
        "rank": device.rank,
        "memory_bytes": device.device.memory_bytes,
        "usable_bytes": device.device.usable_bytes,
        "usable_basis": device.device.usable_basis,
        "budget_bytes": device.budget_bytes,
        "required_bytes": bounds(device.required),
        "headroom_bytes": device.headroom_bytes,
        "binding": device.binding,
        "components": [
            {
                "name": component.name,
                "bytes": bounds(component.bytes),
                "basis": component.bytes.basis,
                "note": component.note or component.bytes.why,
            }
            for component in device.components
        ],
        "checks": [
            {
                "name": check.name,
                "required_bytes": bounds(check.required),
                "limit_bytes": check.limit_bytes,
                "note": check.note,
            }
            for check in device.checks
        ],
        "notes": list(device.device.notes),
    }


def bounds(amount: Quantity) -> dict[str, int]:
    """Return an amount's interval."""
    return {"low": amount.low, "expected": amount.expected, "high": amount.high}


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


def _cache(cache: object) -> dict[str, object]:
    from dataclasses import asdict, is_dataclass

    from kvplan.layers import KIND_NAMES

    if not is_dataclass(cache) or isinstance(cache, type):
        return {}
    return {"kind": KIND_NAMES[type(cache)], **asdict(cache)}


def _remarks(plan: Plan) -> dict[str, object]:
    return {
        "assumptions": list(plan.assumptions),
        "warnings": [{"code": warning.code, "message": warning.message} for warning in plan.warnings],
    }
