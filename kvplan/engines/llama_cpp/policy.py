"""llama.cpp: weights, cache and compute buffers laid out layer by layer, over one card or several.

llama.cpp 0c1e57098. ``kvplan`` plans ``-c CTX x BATCH -np BATCH``: every sequence has its own padded
share of the context. Layers, the cache of each, and the output go to the devices in order, split by
free memory; the token embedding stays in system memory, and a tied one is stored twice. What does
not fit can be left in system memory with ``--n-cpu-moe`` or ``-ngl``, which is an offload.
"""

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Self

from kvplan.device import Device
from kvplan.engines.base import (
    CacheUse,
    Component,
    DevicePlan,
    Engine,
    Notice,
    Parallel,
    Plan,
    context_or_limit,
)
from kvplan.engines.llama_cpp.cache import CELL_PADDING
from kvplan.engines.llama_cpp.commands import server_command, startup_lines
from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.converted import as_converted, is_causal
from kvplan.engines.llama_cpp.device_plan import cache_on, device_plan
from kvplan.engines.llama_cpp.extras import extra_components
from kvplan.engines.llama_cpp.fit import shortest, shrinks, shrunk
from kvplan.engines.llama_cpp.notices import BY_PARTS, notices_of
from kvplan.engines.llama_cpp.placement import Placed, layout_of, place, shares_of
from kvplan.engines.llama_cpp.refusals import refusals
from kvplan.engines.llama_cpp.settings import (
    ALL_LAYERS,
    CACHE_TYPES,
    GENERIC,
    Settings,
    cache_types,
    gguf_format,
    options_of,
    settings_of,
)
from kvplan.engines.llama_cpp.use import cache_use, cells_for
from kvplan.errors import InvalidValue
from kvplan.frozen import dataclass, replace
from kvplan.gguf.mix import mix_bytes
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import exact
from kvplan.weights import format_name_of, weight_bytes
from kvplan.workload import Workload

VERSIONS = ("b10488",)


@dataclass(frozen=True, slots=True)
class _Held:
    """What each device and system memory hold, and the placement and cache that it comes from."""

    devices: tuple[DevicePlan, ...]
    host: tuple[Component, ...]
    placed: Placed
    cache: CacheUse


class LlamaCppEngine(Engine):
    """llama.cpp's server."""

    name = "llama.cpp"
    versions = VERSIONS
    kv_formats = (*CACHE_TYPES, *GENERIC)
    weight_families = ("plain", "gguf")
    about = "GGUF files on one card or several, with layers or experts in system memory"
    block_size = CELL_PADDING

    # Whether the lower bound over several cards is worked out: it takes a graph of its own.
    _is_narrow = True

    def __init__(self, version: str = VERSIONS[-1]) -> None:
        self.version = version

    def searching(self) -> Self:
        """Return the same with a wide lower bound for compute buffers over several cards."""
        wide = copy(self)
        wide._is_narrow = False
        return wide

    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price one server. Raises UnknownFormat for weights or caches llama.cpp does not take."""
        model = as_converted(model)
        workload, settings, notices = self._settled(model, workload, devices)
        result = self._priced(model, workload, devices, settings, notices)
        if result.offloaded:
            whole = replace(settings, n_gpu_layers=ALL_LAYERS, n_cpu_moe=0, overrides=(), kv_offload=True)
            return replace(result, on_devices=self._priced(model, workload, devices, whole, ()))
        return result

    def spilled(self, plan: Plan, devices: Sequence[Device], *, least: bool = True) -> Plan | None:
        """Return the plan with the fewest experts, then layers, in system memory that fits."""
        from kvplan.engines.llama_cpp.offload import least_spilled, most_spilled

        model, workload = plan.model, plan.workload
        type_k, type_v, _ = cache_types(workload)
        settings = settings_of(workload, plan.context_tokens, type_k, type_v, is_causal=is_causal(model))
        if settings.placement_is_given or plan.refusals or not plan.devices:
            return None
        has_experts = any(mix_bytes(model, plan.weights_format).expert_bytes)
        searching, on_gpu = self.searching(), _gpus(devices)

        def most_room(tried: Settings) -> int:
            return self._spare_bytes(model, workload, devices, tried, plan.weights_format)

        def room(tried: Settings, *, strict: bool) -> int:
            held = searching._held(model, workload, on_gpu, tried)
            return min(
                check.limit_bytes - (check.required.high if strict else check.required.expected)
                for device in held.devices
                for check in device.checks
            )

        found: Settings | None = None
        if not least:
            found = most_spilled(
                settings, has_experts=has_experts, room=partial(room, strict=True), most_room=most_room
            )
        for strict in (True, False):
            found = found or least_spilled(
                settings,
                num_layers(model.structure),
                has_experts=has_experts,
                room=partial(room, strict=strict),
                most_room=most_room,
            )
        if found is None:
            return None
        kept = tuple(notice for notice in plan.warnings if notice.code != "windows-spills")
        return replace(self._priced(model, workload, devices, found, kept), on_devices=plan)

    def most_spare_bytes(
        self, model: ModelSpec, workload: Workload, devices: Sequence[Device], *, spilling: bool = False
    ) -> int | None:
        """Return what weights and caches leave: compute buffers are simulated."""
        on_gpu = _gpus(devices)
        if not on_gpu or (spilling and workload.cpu_memory_bytes is None):
            return None
        model = as_converted(model)
        workload, settings, _ = self._settled(model, shortest(model, workload), devices)
        if spilling:
            # In one place nothing is stored twice or padded for a card.
            settings = replace(settings, n_gpu_layers=0, n_cpu_moe=0, overrides=())
        placed = self._laid_out(model, settings, on_gpu, _format_of(model, workload))
        if placed.unmodelled:
            return None
        if not spilling:
            return self._spare_on(placed, workload, on_gpu)
        num_bytes = workload.cpu_memory_bytes or 0
        return num_bytes + sum(self.budget_bytes(each, workload) for each in on_gpu) - placed.host.num_bytes

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
        settings = settings_of(workload, context_tokens, type_k, type_v, is_causal=is_causal(model))
        return workload, settings, (*notices, *mapped)

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
            workload, said = self._shrunk(model, workload, devices)
            notices += said
        return workload, notices

    def _shrunk(
        self, model: ModelSpec, workload: Workload, devices: Sequence[Device]
    ) -> tuple[Workload, tuple[Notice, ...]]:
        """Return the workload with the context that ``--fit`` takes."""
        on_gpu, searching = _gpus(devices), self.searching()

        def held(tried: Workload, settings: Settings) -> tuple[DevicePlan, ...]:
            return searching._held(model, tried, on_gpu, settings).devices

        return shrunk(model, workload, _format_of(model, workload), held)

    def _priced(
        self,
        model: ModelSpec,
        workload: Workload,
        devices: Sequence[Device],
        settings: Settings,
        notices: tuple[Notice, ...],
    ) -> Plan:
        asked, format_name = format_name_of(model, workload.weights_format), _format_of(model, workload)
        on_gpu = _gpus(devices)
        held = self._held(model, workload, on_gpu, settings)
        plans, placed = held.devices, held.placed
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
            context_tokens=context_or_limit(model, workload)[0],
            num_sequences=workload.num_sequences,
            devices=plans,
            cache=held.cache,
            host=held.host,
            offloaded=placed.spilled and bool(on_gpu),
            host_reads=placed.host.reads,
            refusals=refusals(
                model, settings, on_gpu[0].vendor if on_gpu else "", is_older=_is_older(self.version)
            ),
            warnings=(*notices, *notices_of(model, asked, format_name, workload, settings, placed, plans)),
            startup_lines=startup_lines(plans, placed, dict(workload.engine_options)),
            command_lines=self.commands(model, format_name, settings, workload, len(on_gpu)),
        )

    def _held(
        self, model: ModelSpec, workload: Workload, on_gpu: tuple[Device, ...], settings: Settings
    ) -> _Held:
        format_name = _format_of(model, workload)
        layout = layout_of(on_gpu[0]) if on_gpu else "cpu"
        shares = shares_of(settings, on_gpu)
        placed = place(model, format_name, settings, shares, layout)
        # Rows of quantized caches are padded on cards only.
        laid_out = settings if layout == "cuda" else replace(settings, kv_offload=False)
        cache = cache_use(model, workload, laid_out, context_or_limit(model, workload)[0])
        if not placed.unmodelled:
            held = sum(each.cache_bytes + each.state_bytes for each in (*placed.devices, placed.host))
            cache = replace(cache, total=exact(held), peak_bytes=held)
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
            from kvplan.engines.llama_cpp.draft import drafting

            draft = drafting(model.draft, workload, settings, format_name, shares, layout)
            beside = [(*parts, part) for parts, part in zip(beside, draft.devices, strict=False)]
            host.append(draft.host)
        plans = tuple(
            device_plan(
                device,
                self.budget_bytes(device, workload),
                placed.devices[index],
                cache_on(placed, index, cache),
                compute.cards[index],
                workload,
                host,
                beside[index],
                settings.split_mode in BY_PARTS and len(on_gpu) > 1,
            )
            for index, device in enumerate(on_gpu)
        )
        return _Held(plans, tuple(host), placed, cache)

    def budget_bytes(self, device: Device, workload: Workload) -> int:
        """Return what may be used of a device."""
        return max(0, device.usable_bytes - workload.reserve_bytes - device.used_bytes)

    def options(self, settings: Settings) -> tuple[tuple[str, object], ...]:
        """Return the settings under the engine's own names."""
        return options_of(settings)

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


def _is_older(version: str) -> bool:
    """Tell whether a build is older than the one whose rules these are; Ollama's versions are not builds."""
    return version.startswith("b") and int(version[1:]) < int(VERSIONS[-1][1:])


def without_options(workload: Workload, *names: str) -> Workload:
    """Return the workload without some of the engine's options, which now stand in its own fields."""
    kept = tuple((key, value) for key, value in workload.engine_options if key not in names)
    return replace(workload, engine_options=kept)
