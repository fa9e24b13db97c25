"""kvplan: does this model fit on this GPU at this context length, and what makes it fit?

    from kvplan import Workload, engine_named, make_plan, open_model, parse_gpus, verdict_of

    result = make_plan(open_model("llama-3-8b"), Workload(8192), parse_gpus(["24GB"]), engine_named("vllm"))
    verdict_of(result).status

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
    from kvplan.judge import Rules, Verdict
    from kvplan.judge import judge as verdict_of
    from kvplan.model import ModelSpec
    from kvplan.plan import plan as make_plan
    from kvplan.quantity import Quantity
    from kvplan.solve import max_context, max_sequences
    from kvplan.sources import open_model
    from kvplan.workload import Workload

__version__ = "0.1.0"

# Where each name lives; plan and judge are modules here, so their functions have names of their own.
_HOMES = {
    "Device": ("kvplan.device", "Device"),
    "KvplanError": ("kvplan.errors", "KvplanError"),
    "ModelSpec": ("kvplan.model", "ModelSpec"),
    "Plan": ("kvplan.engines.base", "Plan"),
    "Quantity": ("kvplan.quantity", "Quantity"),
    "Rules": ("kvplan.judge", "Rules"),
    "Verdict": ("kvplan.judge", "Verdict"),
    "Workload": ("kvplan.workload", "Workload"),
    "engine_named": ("kvplan.engines", "engine_named"),
    "make_plan": ("kvplan.plan", "plan"),
    "max_context": ("kvplan.solve", "max_context"),
    "max_sequences": ("kvplan.solve", "max_sequences"),
    "open_model": ("kvplan.sources", "open_model"),
    "parse_gpus": ("kvplan.hardware.parse", "parse_gpus"),
    "verdict_of": ("kvplan.judge", "judge"),
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
    "make_plan",
    "max_context",
    "max_sequences",
    "open_model",
    "parse_gpus",
    "verdict_of",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'kvplan' has no attribute '{name}'")
