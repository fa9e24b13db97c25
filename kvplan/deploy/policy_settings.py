"""From a policy to the settings of one launch: general keys, then the file's, then the deployment's."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from kvplan.deploy.launch import Launch
from kvplan.deploy.policy import Budgets, Deployment, Loaded, Machine, Model
from kvplan.deploy.settings import ModelChoice, Settings
from kvplan.deploy.words import Word
from kvplan.units import GIB, parse_size, parse_tokens

# The flags that say a context, ranks and cache formats, by engine.
SPELLED: dict[str, dict[str, str]] = {
    "vllm": {
        "ctx": "--max-model-len",
        "tp": "--tensor-parallel-size",
        "pp": "--pipeline-parallel-size",
        "kv": "--kv-cache-dtype",
    },
    "sglang": {"ctx": "--context-length", "tp": "--tp-size", "pp": "--pp-size", "kv": "--kv-cache-dtype"},
    "tensorrt-llm": {"ctx": "--max_seq_len", "tp": "--tp_size", "pp": "--pp_size", "kv": "--kv_cache_dtype"},
    "lmdeploy": {"ctx": "--session-len", "tp": "--tp", "kv": "--quant-policy"},
    "tgi": {"ctx": "--max-total-tokens", "tp": "--num-shard", "kv": "--kv-cache-dtype"},
    "llama.cpp": {
        "ctx": "--ctx-size",
        "slots": "--parallel",
        "kv_k": "--cache-type-k",
        "kv_v": "--cache-type-v",
    },
    "ollama": {"ctx": "--ctx-size", "kv_k": "--cache-type-k", "kv_v": "--cache-type-v"},
}
GGUF_PREFIXES = ("q", "iq", "gguf", "mxfp4_moe", "tq")


def layered(launch: Launch, loaded: Loaded) -> Settings:
    """Return what a policy says of a launch."""
    policy = loaded.policy
    base = replace(_machine(Settings(), policy), offline=bool(policy.offline))
    # What holds for a whole repository is the default; what names a file means it.
    base = replace(base, gpus=(), default_gpus=base.gpus)
    for pattern, section in policy.files.items():
        if _matches(pattern, launch):
            base = _machine(base, section)
    own = policy.deployments.get(launch.name) if launch.file == loaded.origin else None
    return base if own is None else _deployment(base, own, launch)


def _matches(pattern: str, launch: Launch) -> bool:
    glob, hash_, name = pattern.partition("#")
    file = launch.file.removeprefix("./")
    file_fits = not glob or fnmatchcase(file, glob) or fnmatchcase(file, f"*/{glob}")
    return file_fits and (not hash_ or fnmatchcase(launch.name, name))


def _machine(base: Settings, section: Machine) -> Settings:
    changes: dict[str, Any] = {}
    if section.gpu is not None:
        changes["gpus"] = (section.gpu,) if isinstance(section.gpu, str) else tuple(section.gpu)
    if section.engine is not None:
        changes["engine"] = section.engine
    if section.reserve is not None:
        changes["reserve_bytes"] = parse_size(section.reserve).num_bytes
    if section.cpu_memory is not None:
        changes["cpu_memory_bytes"] = parse_size(section.cpu_memory).num_bytes
    if section.batch is not None:
        changes["num_sequences"] = section.batch
    models = {name: _choice(value) for name, value in section.models.items()}
    changes["models"] = {**base.models, **models}
    changes["gpu_names"] = {**base.gpu_names, **section.gpus}
    return _budgets(replace(base, **changes), section)


def _choice(value: str | Model) -> ModelChoice:
    return ModelChoice(value) if isinstance(value, str) else ModelChoice(value.id, value.weights)


def _budgets(base: Settings, section: Budgets) -> Settings:
    rules, budget = base.rules, base.budget
    for name in ("strict", "allow_offload", "allow_unknown"):
        value = getattr(section, name)
        if value is not None:
            rules = replace(rules, **{name: value})
    if section.min_headroom is not None:
        budget = replace(budget, min_headroom_bytes=parse_size(section.min_headroom).num_bytes)
    if section.max_kv_gib is not None:
        budget = replace(budget, max_kv_bytes=int(section.max_kv_gib * GIB))
    if section.min_concurrency is not None:
        budget = replace(budget, min_concurrency=section.min_concurrency)
    if section.min_context is not None:
        budget = replace(budget, min_context_tokens=parse_tokens(str(section.min_context)))
    return replace(base, rules=rules, budget=budget)


def _deployment(base: Settings, own: Deployment, launch: Launch) -> Settings:
    changes: dict[str, Any] = {"models": {**base.models, launch.name: ModelChoice(own.model, own.weights)}}
    if own.gpu is not None:
        changes["gpus"] = (own.gpu,) if isinstance(own.gpu, str) else tuple(own.gpu)
    if own.engine is not None and "@" in own.engine:
        changes["engine"] = own.engine
    if own.reserve is not None:
        changes["reserve_bytes"] = parse_size(own.reserve).num_bytes
    if own.cpu_memory is not None:
        changes["cpu_memory_bytes"] = parse_size(own.cpu_memory).num_bytes
    if own.batch is not None:
        changes["num_sequences"] = own.batch
    return _budgets(replace(base, **changes), own)


def deployments_of(loaded: Loaded) -> list[Launch]:
    """Return a policy's own deployments as launches."""
    return [
        replace(_launch(name, entry, loaded.origin, loaded.lines.get(name, 0)), policy=loaded)
        for name, entry in loaded.policy.deployments.items()
    ]


def _launch(name: str, entry: Deployment, origin: str, line: int) -> Launch:
    engine, _, version = (entry.engine or _default_engine(entry.weights)).partition("@")
    engine = {"llamacpp": "llama.cpp", "llama-cpp": "llama.cpp", "trtllm": "tensorrt-llm"}.get(engine, engine)
    flags = [Word(flag, line) for flag in entry.flags]
    for key, value in _words(entry, engine).items():
        flag = SPELLED.get(engine, {}).get(key)
        if flag is not None:
            flags += [Word(flag, line), Word(value, line)]
    return Launch(
        name=name,
        file=origin,
        line=line,
        engine=engine,
        model=Word(entry.model, line),
        flags=tuple(flags),
        version=version,
    )


def _default_engine(weights: str | None) -> str:
    return "llama.cpp" if weights is not None and weights.casefold().startswith(GGUF_PREFIXES) else "vllm"


def _words(entry: Deployment, engine: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    slots = entry.batch or 1
    if entry.ctx is not None:
        tokens = parse_tokens(str(entry.ctx))
        # llama.cpp shares its context among its slots.
        found["ctx"] = str(tokens * slots if engine == "llama.cpp" else tokens)
        found["slots"] = str(slots)
    if entry.kv is not None:
        found["kv"] = found["kv_k"] = found["kv_v"] = entry.kv
    found |= {
        key: str(value)
        for key, value in (("kv_k", entry.kv_k), ("kv_v", entry.kv_v), ("tp", entry.tp), ("pp", entry.pp))
        if value is not None
    }
    return found
