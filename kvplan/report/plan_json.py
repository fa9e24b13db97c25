"""A plan as JSON: model, workload, engine, devices, cache, limits; integers in bytes, bounds spelled out."""

from typing import TYPE_CHECKING

from kvplan.engines.base import DevicePlan, Plan
from kvplan.judge import Verdict
from kvplan.model import ModelSpec, num_active_parameters, num_parameters
from kvplan.quantity import Quantity
from kvplan.solve import Limits

if TYPE_CHECKING:
    from kvplan.speed import Rate


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
        **plan_facts(plan, context_source),
        "devices": [_device(device) for device in plan.devices],
        "host": [
            {"name": part.name, "bytes": bounds(part.bytes), "basis": part.bytes.basis, "note": part.note}
            for part in plan.host
        ],
        "refusals": [
            {"code": refusal.code, "message": refusal.message, "fix": refusal.fix}
            for refusal in plan.refusals
        ],
        **remarks(plan),
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


def plan_facts(plan: Plan, context_source: str) -> dict[str, object]:
    """Return the question as it was planned: model, workload, engine, layout, cache."""
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


def cache_facts(cache: object) -> dict[str, object]:
    """Return what one kind of layer caches, its kind and its sizes."""
    from dataclasses import asdict, is_dataclass

    from kvplan.layers import KIND_NAMES

    if not is_dataclass(cache) or isinstance(cache, type):
        return {}
    return {"kind": KIND_NAMES[type(cache)], **asdict(cache)}


def remarks(plan: Plan) -> dict[str, object]:
    """Return the assumptions and the warnings."""
    return {
        "assumptions": list(plan.assumptions),
        "warnings": [{"code": warning.code, "message": warning.message} for warning in plan.warnings],
    }
