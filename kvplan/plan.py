"""plan(): a model, a workload, devices and an engine become a Plan.

The engine's policy does the arithmetic; here is what holds under every engine: which engine the
weights call for, how many devices a parallel layout needs, and what to say of a context beyond the
one the model was trained for.
"""

from collections.abc import Sequence

from kvplan.adapters import adapters_bytes
from kvplan.device import Device
from kvplan.engines import engine_named
from kvplan.engines.base import Component, DevicePlan, Engine, Notice, Plan, Trial
from kvplan.errors import OptionClash
from kvplan.frozen import replace
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity, total
from kvplan.units import format_tokens
from kvplan.weight_formats import weight_format
from kvplan.weights import format_name_of
from kvplan.workload import Workload

# What each engine says to a context above the model's limit, and how it is overruled.
BEYOND_LIMIT: dict[str, str] = {
    "vllm": "vLLM refuses {asked} without VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",
    "sglang": "SGLang refuses {asked} without SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1",
    "tensorrt-llm": "TensorRT-LLM refuses {asked} above max_position_embeddings",
    "lmdeploy": "LMDeploy runs {asked} with degraded positions",
    "tgi": "TGI runs {asked} with degraded positions",
    "llama.cpp": "llama.cpp runs {asked} with a warning",
    "ollama": "Ollama cuts {asked} to the model's limit",
    "transformers": "transformers runs {asked} with degraded positions",
}

# What a draft model adds to a device; the runtime is there already.
DRAFT_PARTS = ("weights", "kv_cache", "recurrent_state", "activations")

# The engine of last resort for weights that neither vLLM nor llama.cpp loads.
_ENGINE_OF_FAMILY: dict[str, str] = {"gguf": "llama.cpp", "mlx": "ideal", "exl": "ideal"}


def default_engine(model: ModelSpec, weights: str | None, *, has_gpu: bool = True) -> Engine:
    """Return the engine that the weights call for: GGUF -> llama.cpp, others -> vLLM.

    Without a GPU it is llama.cpp, whose CPU backend is the one people run.

    MLX and ExLlama weights have no policy of their own yet and are planned by the textbook.
    """
    family = weight_format(format_name_of(model, weights)).family
    if not has_gpu and family not in _ENGINE_OF_FAMILY:
        return engine_named("llama.cpp")
    return engine_named(_ENGINE_OF_FAMILY.get(family, "vllm"))


def as_it_is(engine: Engine) -> Engine:
    """Return the engine itself: what stands for measurements where there are none."""
    return engine


def spread(devices: Sequence[Device], tensor: int, pipeline: int, *, multiplied: bool) -> tuple[Device, ...]:
    """Return as many devices as ``--tp`` and ``--pp`` need.

    One unmultiplied ``--gpu`` is repeated; otherwise tensor x pipeline must equal the count.
    Raises OptionClash when it does not.
    """
    needed = max(1, tensor) * max(1, pipeline)
    if needed == 1 or not devices:
        return tuple(devices)
    if len(devices) == 1 and not multiplied:
        return tuple(devices) * needed
    stated = needed if tensor and pipeline else None
    if (stated is not None and stated != len(devices)) or len(devices) % needed:
        layout = " x ".join(
            part
            for part in (f"--tp {tensor}" if tensor else "", f"--pp {pipeline}" if pipeline else "")
            if part
        )
        raise OptionClash(
            f"{layout} needs {needed} GPUs, but --gpu names {len(devices)}",
            why="tensor x pipeline ranks take one GPU each",
            hint=f"name {needed} GPUs, or leave out --tp and --pp",
        )
    if stated is None and needed != len(devices):
        raise OptionClash(
            f"{'--tp' if tensor else '--pp'} {needed} leaves {len(devices) - needed} "
            f"of {len(devices)} GPUs idle",
            why="tensor x pipeline ranks take one GPU each",
            hint=f"add {'--pp' if tensor else '--tp'} {len(devices) // needed}, or name {needed} GPUs",
        )
    return tuple(devices)


def cpu_device(memory_bytes: int) -> Device:
    """Return a machine's memory as a device, for engines that keep everything in one place."""
    return Device("cpu", memory_bytes, memory_bytes, memory_bytes, "exact", kind="cpu", source="--cpu-memory")


def plan(model: ModelSpec, workload: Workload, devices: Sequence[Device], engine: Engine) -> Plan:
    """Plan ``workload`` of ``model`` on ``devices`` under ``engine``.

    Raises KvplanError for what no engine could accept; what this engine refuses is in the plan.
    """
    if not devices and workload.cpu_memory_bytes is not None and engine.runs_on_cpu:
        devices = (cpu_device(workload.cpu_memory_bytes),)
    result = engine.plan(model, workload, devices)
    if model.structure.is_assumed:
        result = _assumed(result)
    if model.draft is not None and engine.loads_beside:
        own = replace(workload, weights_format=None, engine_options=(), overhead_bytes=None)
        result = _with_draft(result, engine.plan(model.draft, own, devices))
    if workload.adapters and engine.loads_beside:
        part = Component("adapters", adapters_bytes(model, workload.adapters), "LoRA")
        result = replace(result, devices=tuple(_with_part(device, part) for device in result.devices))
    warnings = list(result.warnings)
    limit = model.context_limit_tokens
    if limit and result.context_tokens > limit:
        warnings.insert(0, Notice("context-exceeds-model", _beyond(model, result)))
    if workload.unread_flags:
        warnings.insert(0, Notice("unknown-engine-flags", f"not read: {' '.join(workload.unread_flags)}"))
    if not model.assumptions and len(warnings) == len(result.warnings):
        return result
    return replace(result, warnings=tuple(warnings), assumptions=(*model.assumptions, *result.assumptions))


def trial(model: ModelSpec, workload: Workload, devices: Sequence[Device], engine: Engine) -> Plan | Trial:
    """Return what ``judge`` asks of ``plan``'s answer; the whole of it where that is no dearer.

    Raises what ``plan`` raises.
    """
    found = None
    if devices and not (model.structure.is_assumed or model.draft or workload.adapters):
        found = engine.trial(model, workload, devices)
    return plan(model, workload, devices, engine) if found is None else found


def _with_draft(result: Plan, draft: Plan) -> Plan:
    """Return the plan with a draft model's weights, cache and activations on the same devices."""
    note = f"{draft.model.name} {draft.weights_format}: weights, cache, activations"
    devices = []
    for device, other in zip(result.devices, draft.devices, strict=True):
        amount = total(part.bytes for part in other.components if part.name in DRAFT_PARTS)
        devices.append(_with_part(device, Component("draft_model", amount, note)))
    return replace(result, devices=tuple(devices))


def _with_part(device: DevicePlan, part: Component) -> DevicePlan:
    """Return a device that holds one part more, which every test counts."""
    checks = tuple(replace(check, required=check.required + part.bytes) for check in device.checks)
    return replace(device, components=(*device.components, part), checks=checks)


def _assumed(result: Plan) -> Plan:
    """Return the plan with every amount marked assumed: its model's layers are a guess of the user's."""

    def marked(amount: Quantity) -> Quantity:
        return replace(amount, basis="assumed")

    devices = tuple(
        replace(
            device,
            components=tuple(replace(part, bytes=marked(part.bytes)) for part in device.components),
            checks=tuple(replace(check, required=marked(check.required)) for check in device.checks),
        )
        for device in result.devices
    )
    return replace(
        result,
        weights=marked(result.weights),
        cache=replace(result.cache, total=marked(result.cache.total)),
        devices=devices,
        host=tuple(replace(part, bytes=marked(part.bytes)) for part in result.host),
    )


def _beyond(model: ModelSpec, result: Plan) -> str:
    asked = format_tokens(result.context_tokens)
    text = f"trained for {format_tokens(model.context_limit_tokens)} tokens"
    if result.engine_name in BEYOND_LIMIT:
        text += f"; {BEYOND_LIMIT[result.engine_name].format(asked=asked)}"
    if model.longer_context:
        text += f"; {model.longer_context} has the same KV bytes"
    return text
