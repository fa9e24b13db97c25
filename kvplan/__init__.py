"""kvplan: does this model fit on this GPU at this context length, and what makes it fit?

    from kvplan import Workload, engine_named, judge, open_model, parse_gpus, plan

    result = plan(open_model("llama-3-8b"), Workload(8192), parse_gpus(["24GB"]), engine_named("vllm"))
    judge(result).status

The names are imported when they are first used, so that importing kvplan costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvplan.device import Device
    from kvplan.engines import engine_named
    from kvplan.engines.base import Plan
    from kvplan.errors import KvplanError
    from kvplan.hardware.parse import parse_gpus
    from kvplan.judge import Rules, Verdict, judge
    from kvplan.model import ModelSpec
    from kvplan.plan import plan
    from kvplan.quantity import Quantity
    from kvplan.solve import max_context, max_sequences
    from kvplan.sources import open_model
    from kvplan.workload import Workload

__version__ = "0.1.0"

_HOMES = {
    "Device": "kvplan.device",
    "KvplanError": "kvplan.errors",
    "ModelSpec": "kvplan.model",
    "Plan": "kvplan.engines.base",
    "Quantity": "kvplan.quantity",
    "Rules": "kvplan.judge",
    "Verdict": "kvplan.judge",
    "Workload": "kvplan.workload",
    "engine_named": "kvplan.engines",
    "judge": "kvplan.judge",
    "max_context": "kvplan.solve",
    "max_sequences": "kvplan.solve",
    "open_model": "kvplan.sources",
    "parse_gpus": "kvplan.hardware.parse",
    "plan": "kvplan.plan",
}

__all__ = [
    "Device",
    "KvplanError",
    "ModelSpec",
    "Plan",
    "Quantity",
    "Rules",
    "Verdict",
    "Workload",
    "__version__",
    "engine_named",
    "judge",
    "max_context",
    "max_sequences",
    "open_model",
    "parse_gpus",
    "plan",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kvplan' has no attribute '{name}'")
