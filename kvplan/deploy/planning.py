"""From a launch to a plan: its flags read, its workload built, its engine's own refusals applied."""

from collections.abc import Mapping
from dataclasses import replace

from kvplan.calibration import CalibratedEngine
from kvplan.deploy.flags import TABLES, Scan, scan
from kvplan.deploy.flags.environment import options_of_environment
from kvplan.deploy.launch import Launch
from kvplan.deploy.lifting import lift_all
from kvplan.deploy.model_names import Resolved
from kvplan.deploy.settings import Settings
from kvplan.device import Device
from kvplan.engines import engine_named
from kvplan.engines.base import Engine, Notice, Plan, Refusal
from kvplan.errors import InvalidValue, UnknownEngine
from kvplan.frozen import dataclass
from kvplan.judge import Rules
from kvplan.offload import plan_or_offload
from kvplan.solve import limits
from kvplan.workload import Workload

TAKES_ALL = ("llama.cpp", "ollama")
# Options that hold the ranks of a launch, by engine: tensor, pipeline, data.
RANKS: dict[str, tuple[str, str, str]] = {
    "vllm": ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    "sglang": ("tp_size", "pp_size", "dp_size"),
    "tensorrt-llm": ("tp_size", "pp_size", ""),
    "lmdeploy": ("tp", "", ""),
    "tgi": ("num_shard", "", ""),
}
# The variable that lets an engine go beyond the model's limit.
BEYOND: dict[str, str] = {
    "vllm": "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    "sglang": "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN",
}
CONTEXT_OPTIONS = ("max_model_len", "context_length", "max_seq_len", "ctx_size", "session_len")
# Options that fix the length of engines that otherwise take what their pool holds.
LENGTH_OPTIONS = ("session_len", "max_total_tokens", "max_seq_len")
# Flags that change the model's limit itself; what comes out is not worked out.
STRETCHING = ("--rope-scaling", "--hf-overrides", "--json-model-override-args", "--rope-theta")
TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Command:
    """A launch's flags as read: options by the engine's names, and where each stands."""

    launch: Launch
    scan: Scan
    options: Mapping[str, object]
    wrong_variable: str = ""

    def line_of(self, *names: str) -> tuple[str, int] | None:
        """Return (flag as written, line) of the first of these options that was given."""
        for name in names:
            index = self.scan.flag_at.get(name)
            if index is not None:
                word = self.launch.flags[index]
                return word.text.partition("=")[0], word.line
        return None

    def undefined(self) -> tuple[str, ...]:
        """Return the variables that decide something here and that nobody defines."""
        names: list[str] = []
        for word, role in zip(self.launch.flags, self.scan.roles, strict=True):
            if word.undefined and role != "":
                names += word.undefined
        return tuple(dict.fromkeys(names))

    def unreadable(self) -> tuple[str, str, int] | None:
        """Return (flag, value, line) of the first value that the engine could not read."""
        for index in self.scan.unreadable:
            word = self.launch.flags[index]
            spelling, joined, value = word.text.partition("=")
            if not joined and index + 1 < len(self.launch.flags):
                value = self.launch.flags[index + 1].text
            return spelling, value, word.line
        return None

    def unknown_flags(self) -> tuple[tuple[str, int], ...]:
        """Return the flags nobody knows, with their lines; none for an engine without a table."""
        if self.launch.engine not in TABLES:
            return ()
        return tuple(
            (self.launch.flags[index].text.partition("=")[0], self.launch.flags[index].line)
            for index in self.scan.unknown
        )

    def ranks(self) -> tuple[int, int]:
        """Return (GPUs the launch takes in all, GPUs it takes on this machine)."""
        names = RANKS.get(self.launch.engine)
        if names is None:
            split = str(self.options.get("tensor_split", ""))
            shares = [part for part in split.replace("/", ",").split(",") if part.strip() not in ("", "0")]
            return max(1, len(shares)), max(1, len(shares))
        tensor, pipeline, data = (_count(self.options.get(name)) for name in names)
        if self.launch.engine == "tgi" and not self.options.get("num_shard"):
            tensor = self._all_gpus()
        if self.launch.engine == "sglang" and self.options.get("enable_dp_attention"):
            data = 1
        local = _count(_flag_value(self.launch, "--data-parallel-size-local")) if data > 1 else data
        per_replica = tensor * pipeline
        return per_replica * data, per_replica * (local if local > 1 else data)

    def _all_gpus(self) -> int:
        """Return the GPUs that TGI shards over by itself: all it sees, unless told not to."""
        return 1 if self.options.get("sharded") is False else max(1, self.launch.gpus.count or 1)


def read_command(launch: Launch) -> Command:
    """Take a launch's flags apart, and the variables that stand for flags: a flag wins."""
    found = scan(launch.engine, [word.text for word in launch.flags])
    environment, wrong = _from_environment(launch)
    return Command(launch, found, {**environment, **found.options}, wrong)


def _from_environment(launch: Launch) -> tuple[dict[str, object], str]:
    """Return (options that variables set, why one of them cannot be read)."""
    known = {name: word.text for name, word in launch.env.items() if word.known}
    try:
        options = options_of_environment(launch.engine, known).options
    except InvalidValue as error:
        return {}, error.message
    return {name: value for name, value in options if name not in ("model", "hf_repo", "hf_file")}, ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def _flag_value(launch: Launch, flag: str) -> object:
    for index, word in enumerate(launch.flags):
        spelling, joined, value = word.text.partition("=")
        if spelling.replace("_", "-") == flag:
            text = value if joined else launch.flags[index + 1].text if index + 1 < len(launch.flags) else ""
            return int(text) if text.isdigit() else None
    return None


def engine_of(launch: Launch, settings: Settings) -> tuple[Engine, tuple[str, ...]]:
    """Return the policy of a launch's engine and version, and what to say of the version.

    Raises UnknownEngine for an engine without rules.
    """
    engine, notes = _policy_of(launch, settings)
    return with_measurements(engine, settings), notes


def with_measurements(engine: Engine, settings: Settings) -> Engine:
    """Return the engine with what was measured on this machine, itself where nothing was."""
    return CalibratedEngine(engine, settings.measurements) if settings.measurements else engine


def _policy_of(launch: Launch, settings: Settings) -> tuple[Engine, tuple[str, ...]]:
    asked = settings.engine
    if asked is not None and asked.partition("@")[0].casefold() == launch.engine:
        return engine_named(asked), ()
    if not launch.version:
        return engine_named(launch.engine), ()
    newest = engine_named(launch.engine)
    oldest = newest.versions[0]
    if len(newest.versions) > 1 and _numbers(launch.version) < _numbers(oldest):
        note = f"{launch.engine} {launch.version} is older than the rules kvplan has: planned as {oldest}"
        return engine_named(f"{launch.engine}@{oldest}"), (note,)
    try:
        return engine_named(f"{launch.engine}@{launch.version}"), ()
    except UnknownEngine:
        raise
    except InvalidValue as error:
        return newest, (f"{launch.engine} {launch.version}: {error.why}; planned as {newest.version}",)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, to compare by."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def workload_of(command: Command, resolved: Resolved, settings: Settings) -> Workload:
    """Return what a launch asks of its model.

    That is one request of full length, unless its engine reserves more (llama.cpp's slots) or the
    policy asks for more.
    """
    options = command.options
    num_sequences = settings.num_sequences or 1
    workload = Workload(
        num_sequences=num_sequences,
        context_source="file",
        weights_format=resolved.weights,
        reserve_bytes=settings.reserve_bytes,
        cpu_memory_bytes=settings.cpu_memory_bytes,
        engine_options=tuple((key, value) for key, value in options.items() if key != "model"),
    )
    workload = lift_all(workload, workload.engine_options, "file")
    if command.launch.engine in TAKES_ALL:
        n_ctx = _count(options.get("ctx_size") or options.get("num_ctx"))
        slots = _count(options.get("parallel") or options.get("num_parallel"))
        if n_ctx > 1:
            per_slot = (
                n_ctx if options.get("kv_unified") or command.launch.engine == "ollama" else n_ctx // slots
            )
            workload = replace(workload, context_tokens=max(1, per_slot), num_sequences=slots)
    if command.launch.engine in RANKS and not command.launch.spreads:
        # What is not said is 1: an engine does not spread by itself, but for TGI.
        tensor = workload.tensor_parallel or (command.ranks()[0] if command.launch.engine == "tgi" else 1)
        workload = replace(
            workload, tensor_parallel=tensor, pipeline_parallel=workload.pipeline_parallel or 1
        )
    return workload


def planned(
    command: Command,
    resolved: Resolved,
    devices: tuple[Device, ...],
    engine: Engine,
    workload: Workload,
    rules: Rules,
) -> Plan:
    """Plan a launch as its engine would start it.

    A length left to the engine (vLLM's ``--max-model-len auto``) is the longest that fits.
    """
    result = plan_or_offload(resolved.model, workload, devices, engine, rules)
    if _length_is_open(command, engine):
        longest = limits(result, devices, engine).max_context_tokens
        if 0 < longest < result.context_tokens:
            shorter = replace(workload, context_tokens=longest, context_source="engine")
            result = plan_or_offload(resolved.model, shorter, devices, engine, rules)
    refusal = _beyond_limit(command, result)
    if refusal is not None:
        result = replace(result, refusals=(*result.refusals, refusal))
    notes = _stretched(command)
    return replace(result, warnings=(*result.warnings, *notes)) if notes else result


def _length_is_open(command: Command, engine: Engine) -> bool:
    if command.launch.engine == "vllm":
        return command.options.get("max_model_len") == -1
    return engine.takes_what_fits and not any(command.options.get(name) for name in LENGTH_OPTIONS)


def _beyond_limit(command: Command, result: Plan) -> Refusal | None:
    """Return the engine's refusal of a context above the model's limit, unless it was told to go on."""
    launch, limit = command.launch, result.model.context_limit_tokens
    variable = BEYOND.get(launch.engine)
    if variable is None or not limit or result.context_tokens <= limit or _stretched(command):
        return None
    if launch.variable(variable).casefold() in TRUE:
        return None
    return Refusal(
        "context-exceeds-model",
        f"{result.context_tokens:,} tokens are above the model's limit of {limit:,}; "
        f"{launch.engine} refuses that without {variable}=1",
        f"at most {limit} tokens, or {variable}=1",
    )


def _stretched(command: Command) -> tuple[Notice, ...]:
    found = [
        word.text.partition("=")[0]
        for word in command.launch.flags
        if word.text.partition("=")[0].replace("_", "-") in STRETCHING
    ]
    text = f"{', '.join(found)} changes the model's own limit: not held against it"
    return (Notice("context-limit-overridden", text),) if found else ()
