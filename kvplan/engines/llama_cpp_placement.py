"""Where llama.cpp puts weights and caches: layers over devices, and what stays in system memory.

llama.cpp 0c1e57098 src/llama-model.cpp load_tensors: the token embedding and other looked-up tables
stay on the CPU; the last ``n_gpu_layers`` of the layers and the output (which counts as one) go to the
devices in order, layer ``i`` to the first whose cumulative share of free memory exceeds
``i / layers``; a tied head is a copy of the embedding there. ``--override-tensor`` moves tensors by
name, ``--cpu-moe`` and ``--n-cpu-moe`` the experts. Each layer's cache lies with its layer, or with
``--no-kv-offload`` in system memory. Rope frequencies are copied to every device with a layer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kvplan.device import Device
from kvplan.dtypes import KV_FORMATS
from kvplan.engines.base import Reads
from kvplan.engines.llama_cpp_cache import LayerCache, cells_of, layer_cache, split_layers, window_of
from kvplan.engines.llama_cpp_settings import Settings
from kvplan.gguf_mix import Layout, mix_bytes, named_bytes
from kvplan.gguf_names import llama_cpp_arch
from kvplan.model import ModelSpec, cache_kinds, expand_layers, num_layers
from kvplan.textbook import cache_bytes

# Loaders that create the head before the embedding, which then are two tensors even in one memory:
# src/models/gemma3n.cpp, gemma4.cpp.
COPIES_TIED_HEAD = frozenset(("gemma3n", "gemma4"))


@dataclass(frozen=True, slots=True)
class Holding:
    """What one place holds: weights by how they are read, caches and states, and its layers.

    ``dense_bytes`` are read by every token, of ``expert_bytes`` the router's choice, of
    ``table_bytes`` a row a token.
    """

    dense_bytes: int = 0
    expert_bytes: int = 0
    table_bytes: int = 0
    cache_bytes: int = 0
    state_bytes: int = 0
    num_layers: int = 0

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return self.dense_bytes + self.expert_bytes + self.table_bytes

    @property
    def reads(self) -> Reads:
        """What a decode step reads of it."""
        return Reads(
            self.dense_bytes, self.expert_bytes, self.cache_bytes + self.state_bytes, self.num_layers
        )


@dataclass(slots=True)
class _Tally:
    dense: int = 0
    expert: int = 0
    table: int = 0
    cache: int = 0
    state: int = 0
    layers: int = 0

    def held(self) -> Holding:
        return Holding(self.dense, self.expert, self.table, self.cache, self.state, self.layers)


@dataclass(frozen=True, slots=True)
class Placed:
    """What lies where: on each device, and in system memory.

    ``spilled`` says that layers, experts or caches lie in system memory though there is a device;
    ``unmodelled`` that some caches have no rule here.
    """

    devices: tuple[Holding, ...]
    host: Holding
    spilled: bool
    unmodelled: bool


def shares_of(settings: Settings, devices: Sequence[Device]) -> tuple[int, ...]:
    """Return the weights by which layers are split: ``--tensor-split``, else each device's free memory."""
    if settings.split_mode == "none":
        chosen = min(settings.main_gpu, len(devices) - 1)
        return tuple(int(index == chosen) for index in range(len(devices)))
    if settings.tensor_split:
        shares = settings.tensor_split[: len(devices)]
        return shares + (0,) * (len(devices) - len(shares))
    return tuple(max(0, device.usable_bytes - device.used_bytes) for device in devices)


def layout_of(device: Device) -> Layout:
    """Return how a device's buffers lay tensors out: CUDA's rules hold for ROCm too."""
    return "cuda" if device.vendor in ("nvidia", "amd") and not device.name.endswith("vulkan") else "cpu"


@lru_cache(maxsize=16_384)
def place(
    model: ModelSpec, format_name: str, settings: Settings, shares: tuple[int, ...], layout: Layout
) -> Placed:
    """Place a model over ``len(shares)`` devices (0: CPU only) whose buffers are of one layout."""
    num_gpus, layers = len(shares), num_layers(model.structure)
    on_device = mix_bytes(model, format_name, layout)
    on_host = mix_bytes(model, format_name, "cpu")
    caches, unmodelled = layer_caches(model, settings)
    first_on_gpu = max(0, layers + 1 - settings.n_gpu_layers) if num_gpus else layers + 1
    offloaded = layers + 1 - first_on_gpu
    places = split_layers(max(0, offloaded - 1), shares) if num_gpus and offloaded > 0 else ()
    tallies = [_Tally() for _ in range(num_gpus)]
    host = _Tally(table=on_host.embedding_bytes + on_host.input_bytes)
    spilled = first_on_gpu > 0 and num_gpus > 0
    for index in range(layers):
        on_gpu = index >= first_on_gpu
        tally = tallies[places[index - first_on_gpu]] if on_gpu else host
        file = on_device if on_gpu else on_host
        expert = file.expert_bytes[index]
        tally.dense += file.layer_bytes[index] - expert
        tally.layers += 1
        if on_gpu and expert and index < settings.n_cpu_moe:
            host.expert += on_host.expert_bytes[index]
            spilled = True
        else:
            tally.expert += expert
        keeps_cache = tally if on_gpu and settings.kv_offload else host
        keeps_cache.cache += caches[index].key_bytes + caches[index].value_bytes
        keeps_cache.state += caches[index].state_bytes
        spilled = spilled or (on_gpu and not settings.kv_offload)
    if settings.overrides:
        moved = _move_by_name(model, format_name, settings, layout, places, first_on_gpu, tallies, host)
        spilled = spilled or moved
    if offloaded > 0 and num_gpus:
        _place_output(model, format_name, layout, tallies[places[-1]], on_host=False)
    else:
        _place_output(model, format_name, "cpu", host, on_host=True)
    for tally in (*tallies, host):
        if tally.layers:
            tally.dense += on_device.shared_bytes
    return Placed(tuple(tally.held() for tally in tallies), host.held(), spilled, unmodelled)


def _place_output(
    model: ModelSpec, format_name: str, layout: Layout, tally: _Tally, *, on_host: bool
) -> None:
    file = mix_bytes(model, format_name, layout)
    tally.dense += file.output_norm_bytes + (file.output_bytes or file.embedding_bytes)
    if on_host and not file.output_bytes and llama_cpp_arch(model) not in COPIES_TIED_HEAD:
        # In one memory a tied head and the embedding are one tensor, which every token reads.
        tally.table -= file.embedding_bytes


def _move_by_name(
    model: ModelSpec,
    format_name: str,
    settings: Settings,
    layout: Layout,
    places: tuple[int, ...],
    first_on_gpu: int,
    tallies: list[_Tally],
    host: _Tally,
) -> bool:
    """Move what ``--override-tensor`` names; tell whether anything left a device for system memory."""
    patterns = [
        (re.compile(pattern), _target(buffer, tallies, host)) for pattern, buffer in settings.overrides
    ]
    left = False
    on_host = named_bytes(model, format_name, "cpu")
    for number, (name, layer, num_bytes, is_expert) in enumerate(named_bytes(model, format_name, layout)):
        target = next((to for pattern, to in patterns if pattern.search(name)), None)
        on_gpu = layer >= first_on_gpu
        spilled_already = is_expert and on_gpu and layer < settings.n_cpu_moe
        source = tallies[places[layer - first_on_gpu]] if on_gpu and not spilled_already else host
        if target is None or target is source:
            continue
        left = left or target is host
        for tally, sign in ((source, -1), (target, 1)):
            amount = sign * (on_host[number][2] if tally is host else num_bytes)
            if is_expert:
                tally.expert += amount
            else:
                tally.dense += amount
    return left


def _target(buffer: str, tallies: list[_Tally], host: _Tally) -> _Tally:
    match = re.fullmatch(r"[A-Za-z]+(\d+)", buffer)
    index = int(match.group(1)) if match else -1
    return tallies[index] if 0 <= index < len(tallies) else host


@lru_cache(maxsize=16_384)
def layer_caches(model: ModelSpec, settings: Settings) -> tuple[tuple[LayerCache, ...], bool]:
    """Return each layer's cache in order, and whether some had no rule and count as the textbook has them."""
    arch = llama_cpp_arch(model)
    window = window_of(cache_kinds(model), arch)
    cells = cells_of(
        settings.n_ctx,
        settings.n_parallel,
        settings.n_ubatch,
        window,
        kv_unified=settings.kv_unified,
        swa_full=settings.swa_full,
    )
    wide = KV_FORMATS["fp16"]
    unmodelled = False
    made: dict[int, LayerCache] = {}
    listed: list[LayerCache] = []
    for layer in expand_layers(model):
        held = made.get(id(layer))
        if held is None:
            keys = values = states = 0
            for cache in layer.caches:
                part = layer_cache(
                    cache,
                    cells,
                    settings.type_k,
                    settings.type_v,
                    honours_window=window > 0,
                    cuda=settings.kv_offload,
                )
                if part is None:
                    unmodelled = True
                    keys += cache_bytes(cache, cells.full, wide, wide) * cells.num_streams
                    continue
                keys += part.key_bytes
                values += part.value_bytes
                states += part.state_bytes
            held = made[id(layer)] = LayerCache(keys, values, states)
        listed.append(held)
    return tuple(listed), unmodelled
