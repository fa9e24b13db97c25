"""llama.cpp: weights, cache and compute buffers laid out layer by layer, over one card or several.

llama.cpp 0c1e57098. ``kvplan`` plans ``-c CTX x BATCH -np BATCH``: every sequence has its own padded
share of the context. Layers, the cache of each, and the output go to the devices in order, split by
free memory; the token embedding stays in system memory, and a tied one is stored twice. What does
not fit can be left in system memory with ``--n-cpu-moe`` or ``-ngl``, which is an offload.
"""

from collections.abc import Sequence
from copy import copy

from kvplan.device import Device
from kvplan.engines.base import (
    CacheUse,
    Check,
    Component,
    DevicePlan,
    Engine,
    Notice,
    Parallel,
    Plan,
    context_or_limit,
)
from kvplan.engines.llama_cpp_commands import server_command, startup_lines
from kvplan.engines.llama_cpp_compute import compute_buffers
from kvplan.engines.llama_cpp_devices import one_memory_check, runtime_of
from kvplan.engines.llama_cpp_extras import extra_components
from kvplan.engines.llama_cpp_fit import Room, fitted_context, min_context, shrinks, target_bytes
from kvplan.engines.llama_cpp_notices import BY_PARTS, notices_of
from kvplan.engines.llama_cpp_placement import Holding, Placed, layout_of, place, shares_of
from kvplan.engines.llama_cpp_refusals import refusals
from kvplan.engines.llama_cpp_settings import (
    ALL_LAYERS,
    CACHE_TYPES,
    GENERIC,
    Settings,
    cache_types,
    gguf_format,
    settings_of,
)
from kvplan.engines.llama_cpp_use import cache_use, cells_for
from kvplan.errors import InvalidValue
from kvplan.frozen import replace
from kvplan.gguf_mix import mix_bytes
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Quantity, exact, total
from kvplan.units import ceil_div, format_gib, format_tokens
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

VERSIONS = ("b10488",)


class LlamaCppEngine(Engine):
    """llama.cpp's server."""

    name = "llama.cpp"
    versions = VERSIONS
    kv_formats = (*CACHE_TYPES, *GENERIC)
    weight_families = ("plain", "gguf")
    about = "GGUF files on one card or several, with layers or experts in system memory"

    # Whether the lower bound over several cards is worked out: it takes a graph of its own.
    _is_narrow = True

    def __init__(self, version: str = VERSIONS[-1]) -> None:
        self.version = version

    def searching(self) -> Engine:
        """Return the same with a wide lower bound for compute buffers over several cards."""
        wide = copy(self)
        wide._is_narrow = False
        return wide

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price one server. Raises UnknownFormat for weights or caches llama.cpp does not take."""
        workload, settings, notices = self._settled(model, workload, devices)
        result = self._priced(model, workload, devices, settings, notices)
        if result.offloaded:
            whole = replace(settings, n_gpu_layers=ALL_LAYERS, n_cpu_moe=0, overrides=(), kv_offload=True)
            return replace(result, on_devices=self._priced(model, workload, devices, whole, ()))
        return result

    def spilled(self, plan: Plan, devices: Sequence[Device]) -> Plan | None:
        """Return the plan with the fewest experts, then layers, in system memory that fits."""
        from kvplan.engines.llama_cpp_offload import least_spilled

        model, workload = plan.model, plan.workload
        type_k, type_v, _ = cache_types(workload)
        settings = settings_of(workload, plan.context_tokens, type_k, type_v)
        if settings.placement_is_given or plan.refusals or not plan.devices:
            return None
        has_experts = any(mix_bytes(model, plan.weights_format).expert_bytes)

        def may_fit(tried: Settings) -> bool:
            return self._spare_bytes(model, workload, devices, tried, plan.weights_format) >= 0

        for strict in (True, False):

            def fits(tried: Settings, *, strict: bool = strict) -> bool:
                result = self._priced(model, workload, devices, tried, ())
                checks = [check for device in result.devices for check in device.checks]
                return all(
                    (check.required.high if strict else check.required.expected) <= check.limit_bytes
                    for check in checks
                )

            found = least_spilled(
                settings,
                num_layers(model.structure),
                has_experts=has_experts,
                may_fit=may_fit,
                fits=fits,
            )
            if found is not None:
                kept = tuple(notice for notice in plan.warnings if notice.code != "windows-spills")
                result = self._priced(model, workload, devices, found, kept)
                return replace(result, on_devices=plan)
        return None

    def most_spare_bytes(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> int | None:
        """Return what weights and caches leave of the fullest card: compute buffers are simulated."""
        on_gpu = _gpus(devices)
        if not on_gpu:
            return None
        workload, settings, _ = self._settled(model, workload, devices)
        placed = self._laid_out(model, settings, on_gpu, _format_of(model, workload))
        return None if placed.unmodelled else self._spare_on(placed, workload, on_gpu)

    def _spare_bytes(
        self,
        model: ModelSpec,
        workload: Workload,
        devices: Sequence[Device],
        settings: Settings,
        format_name: str,
    ) -> int:
        on_gpu = _gpus(devices)
        return self._spare_on(self._laid_out(model, settings, on_gpu, format_name), workload, on_gpu)

    @staticmethod
    def _laid_out(
        model: ModelSpec, settings: Settings, on_gpu: tuple[Device, ...], format_name: str
    ) -> Placed:
        return place(model, format_name, settings, shares_of(settings, on_gpu), layout_of(on_gpu[0]))

    def _spare_on(self, placed: Placed, workload: Workload, on_gpu: tuple[Device, ...]) -> int:
        """Return what weights and caches leave of the fullest card; what was not modelled counts for 0."""
        return min(
            self.budget_bytes(device, workload) - (held.weight_bytes if placed.unmodelled else held.num_bytes)
            for device, held in zip(on_gpu, placed.devices, strict=True)
        )

    def _settled(
        self, model: ModelSpec, workload: Workload, devices: Sequence[Device]
    ) -> tuple[Workload, Settings, tuple[Notice, ...]]:
        workload, notices = self.resolved(model, workload, devices)
        type_k, type_v, mapped = cache_types(workload)
        context_tokens, _ = context_or_limit(model, workload)
        return workload, settings_of(workload, context_tokens, type_k, type_v), (*notices, *mapped)

    def resolved(
        self, model: ModelSpec, workload: Workload, devices: Sequence[Device]
    ) -> tuple[Workload, tuple[Notice, ...]]:
        """Return the workload with this engine's own flags and defaults read into it."""
        parallel, n_ctx = workload.option("parallel"), workload.option("ctx_size")
        slots = parallel if isinstance(parallel, int) and parallel > 0 else 0
        notices: tuple[Notice, ...] = ()
        if slots:
            if workload.num_sequences > slots:
                text = f"-np {slots} serves {slots} at once, not {workload.num_sequences}: the rest waits"
                notices = (Notice("batch-capped", text),)
            workload = without_options(replace(workload, num_sequences=slots), "parallel")
        if isinstance(n_ctx, int) and n_ctx > 0:
            each = max(1, n_ctx // workload.num_sequences)
            workload = replace(workload, context_tokens=each, context_source="flag")
            workload = without_options(workload, "ctx_size")
        if shrinks(workload) and model.context_limit_tokens and any(each.kind == "gpu" for each in devices):
            workload, shrunk = self._shrunk(model, workload, devices)
            notices += shrunk
        return workload, notices

    def _shrunk(
        self, model: ModelSpec, workload: Workload, devices: Sequence[Device]
    ) -> tuple[Workload, tuple[Notice, ...]]:
        """Return the workload with the context that ``--fit`` takes."""
        type_k, type_v, _ = cache_types(workload)
        limit = model.context_limit_tokens
        settings = settings_of(workload, limit, type_k, type_v)
        # In one pool of cells the sequences share what a single one could have.
        sharing = workload.num_sequences if settings.kv_unified else 1

        def priced(tokens: int) -> Plan:
            tried = replace(workload, context_tokens=max(1, tokens // sharing))
            tried_settings = settings_of(tried, tried.context_tokens, type_k, type_v)
            return self._priced(model, tried, devices, tried_settings, ())

        def used_bytes(tokens: int) -> tuple[int, ...]:
            return tuple(
                sum(part.bytes.expected for part in each.components if part.name != "runtime")
                for each in priced(tokens).devices
            )

        first = priced(limit)
        runtimes = [
            sum(part.bytes.expected for part in each.components if part.name == "runtime")
            for each in first.devices
        ]
        free = tuple(
            max(0, each.budget_bytes - runtime) for each, runtime in zip(first.devices, runtimes, strict=True)
        )
        has_experts = any(mix_bytes(model, first.weights_format).expert_bytes)
        room = Room(
            free,
            target_bytes(workload, len(free)),
            1 if settings.kv_unified else settings.n_parallel,
            first.weights.expected // max(1, num_layers(model.structure)),
            has_experts,
        )
        tokens, is_shorter = fitted_context(limit, min_context(workload), room, used_bytes)
        if not is_shorter:
            return workload, ()
        text = (
            f"no context named: --fit takes {format_tokens(tokens)} of the model's {format_tokens(limit)}, "
            f"so that {format_gib(room.target_bytes[0])} stay free (-fit off: all of it)"
        )
        workload = replace(workload, context_tokens=max(1, tokens // sharing), context_source="engine")
        return workload, (Notice("context-shrunk", text),)

    def _priced(
        self,
        model: ModelSpec,
        workload: Workload,
        devices: Sequence[Device],
        settings: Settings,
        notices: tuple[Notice, ...],
    ) -> Plan:
        asked, format_name = format_name_of(model, workload.weights_format), _format_of(model, workload)
        context_tokens, _ = context_or_limit(model, workload)
        options = dict(workload.engine_options)
        on_gpu = _gpus(devices)
        layout = layout_of(on_gpu[0]) if on_gpu else "cpu"
        shares = shares_of(settings, on_gpu)
        placed = place(model, format_name, settings, shares, layout)
        cache = cache_use(model, workload, settings, context_tokens)
        compute = compute_buffers(
            model,
            format_name,
            settings,
            cells_for(model, settings),
            shares,
            is_cuda=layout == "cuda" and settings.split_mode not in BY_PARTS,
            is_narrow=self._is_narrow,
        )
        extras, on_host = extra_components(model, workload, settings)
        host = [
            Component("weights", exact(placed.host.weight_bytes), "token embedding, and what stays in RAM")
        ]
        if placed.host.cache_bytes:
            host.append(Component("kv_cache", exact(placed.host.cache_bytes)))
        if placed.host.state_bytes:
            host.append(Component("recurrent_state", exact(placed.host.state_bytes)))
        host.append(Component("activations", compute.host, "compute buffer"))
        host += on_host if on_gpu else (*on_host, *extras)
        beside: list[tuple[Component, ...]] = [extras, *[()] * (len(on_gpu) - 1)]
        if model.draft is not None:
            from kvplan.engines.llama_cpp_draft import drafting

            draft = drafting(model.draft, workload, settings, format_name, shares, layout)
            beside = [(*parts, part) for parts, part in zip(beside, draft.devices, strict=False)]
            host.append(draft.host)
        plans = tuple(
            _device_plan(
                device,
                self.budget_bytes(device, workload),
                placed.devices[index],
                _cache_on(placed, index, cache),
                compute.cards[index],
                workload,
                host,
                beside[index],
                settings.split_mode in BY_PARTS and len(on_gpu) > 1,
            )
            for index, device in enumerate(on_gpu)
        )
        return Plan(
            model=model,
            workload=workload,
            engine_name=self.name,
            engine_version=self.version,
            engine_options=self.options(settings),
            parallel=Parallel(pipeline=max(1, len(on_gpu))),
            weights_format=format_name,
            weights=weight_bytes(model, format_name),
            kv_dtype_k=settings.type_k,
            kv_dtype_v=settings.type_v,
            context_tokens=context_tokens,
            num_sequences=workload.num_sequences,
            devices=plans,
            cache=cache,
            host=tuple(host),
            offloaded=placed.spilled and bool(on_gpu),
            host_reads=placed.host.reads,
            refusals=refusals(model, settings, on_gpu[0].vendor if on_gpu else ""),
            warnings=(*notices, *notices_of(model, asked, format_name, workload, settings, placed, plans)),
            startup_lines=startup_lines(plans, placed, options),
            command_lines=self.commands(model, format_name, settings, workload, len(on_gpu)),
        )

    def budget_bytes(self, device: Device, workload: Workload) -> int:
        """Return what may be used of a device."""
        return max(0, device.usable_bytes - workload.reserve_bytes - device.used_bytes)

    def options(self, settings: Settings) -> tuple[tuple[str, object], ...]:
        """Return the settings under the engine's own names."""
        return _options(settings)

    def commands(
        self, model: ModelSpec, format_name: str, settings: Settings, workload: Workload, num_gpus: int
    ) -> tuple[str, ...]:
        """Return how to start this plan."""
        return (server_command(model, format_name, settings, num_gpus, dict(workload.engine_options)),)


def engine(version: str | None) -> LlamaCppEngine:
    """Return the policy; builds are named like b10488."""
    if version is None:
        return LlamaCppEngine()
    if not version.removeprefix("b").isdigit():
        raise InvalidValue(
            f"'llama.cpp@{version}' is not a build",
            why=f"the rules are those of {VERSIONS[-1]}",
            hint=f"write it like --engine llama.cpp@{VERSIONS[-1]}",
        )
    return LlamaCppEngine(f"b{version.removeprefix('b')}")


def _gpus(devices: Sequence[Device]) -> tuple[Device, ...]:
    return tuple(device for device in devices if device.kind == "gpu")


def _format_of(model: ModelSpec, workload: Workload) -> str:
    asked = format_name_of(model, workload.weights_format)
    return gguf_format(asked, explicit=workload.weights_format is not None)


def without_options(workload: Workload, *names: str) -> Workload:
    """Return the workload without some of the engine's options, which now stand in its own fields."""
    kept = tuple((key, value) for key, value in workload.engine_options if key not in names)
    return replace(workload, engine_options=kept)


def _cache_on(placed: Placed, index: int, cache: CacheUse) -> Quantity:
    if not placed.unmodelled:
        return exact(placed.devices[index].cache_bytes)
    whole, num_gpus = cache.total, len(placed.devices)
    return Quantity(
        ceil_div(whole.low, num_gpus),
        ceil_div(whole.expected, num_gpus),
        ceil_div(whole.high, num_gpus),
        "assumed",
    )


def _by_share(amount: Quantity) -> Quantity:
    why = "a part of every layer, taken to be the device's share"
    return Quantity(amount.low * 85 // 100, amount.expected, amount.high * 115 // 100, "assumed", why)


def _device_plan(
    device: Device,
    budget_bytes: int,
    held: Holding,
    kv_cache: Quantity,
    compute: Quantity,
    workload: Workload,
    host: Sequence[Component],
    extras: Sequence[Component],
    by_parts: bool,
) -> DevicePlan:
    weights = exact(held.weight_bytes)
    if by_parts:
        weights, kv_cache = _by_share(weights), _by_share(kv_cache)
    parts = [Component("weights", weights), Component("kv_cache", kv_cache)]
    if held.state_bytes:
        parts.append(Component("recurrent_state", exact(held.state_bytes)))
    parts.append(Component("activations", compute, "compute buffer"))
    parts += extras
    runtime = runtime_of(device, workload.option("device"))
    if workload.overhead_bytes is not None:
        runtime = exact(workload.overhead_bytes, "--overhead")
    parts.append(Component("runtime", runtime))
    components = tuple(parts)
    required = total(part.bytes for part in components)
    checks = [Check("budget", required, budget_bytes, "the card is full")]
    if device.unified_memory:
        checks.append(one_memory_check(device, components, host))
    return DevicePlan(device, budget_bytes, components, tuple(checks), reads=held.reads)


def _options(settings: Settings) -> tuple[tuple[str, object], ...]:
    return (
        ("n_ctx", settings.n_ctx),
        ("n_parallel", settings.n_parallel),
        ("n_batch", settings.n_batch),
        ("n_ubatch", settings.n_ubatch),
        ("flash_attn", settings.flash_attn),
        ("kv_unified", settings.kv_unified),
        ("swa_full", settings.swa_full),
        ("n_gpu_layers", settings.n_gpu_layers),
        ("type_k", settings.type_k),
        ("type_v", settings.type_v),
        ("n_cpu_moe", settings.n_cpu_moe),
        ("kv_offload", settings.kv_offload),
    )
