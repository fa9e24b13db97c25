"""Where llama.cpp puts weights and caches: layers over devices, and what stays in system memory.

llama.cpp 0c1e57098 src/llama-model.cpp load_tensors: the token embedding and other looked-up tables
stay on the CPU; the last ``n_gpu_layers`` of the layers and the output (which counts as one) go to the
devices in order, layer ``i`` to the first whose cumulative share of free memory exceeds
``i / layers``; a tied head is a copy of the embedding there. ``--override-tensor`` moves tensors by
name, ``--cpu-moe`` and ``--n-cpu-moe`` the experts. Each layer's cache lies with its layer, or with
``--no-kv-offload`` in system memory. Rope frequencies are copied to every device with a layer.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from kvplan.device import Device
from kvplan.engines.base import Reads
from kvplan.engines.llama_cpp.cache import (
    LayerCache,
    cells_of,
    layer_cache,
    split_layers,
    value_width_of,
    window_of,
)
from kvplan.engines.llama_cpp.settings import Settings
from kvplan.engines.llama_cpp.state_weights import kept_in_ram
from kvplan.frozen import dataclass
from kvplan.gguf.mix import Layout, mix_bytes, named_bytes
from kvplan.gguf.names import llama_cpp_arch
from kvplan.kv_formats import KV_FORMATS
from kvplan.layers import Layer
from kvplan.model import ModelSpec, cache_kinds, expand_layers, num_layers
from kvplan.textbook import cache_bytes

# Loaders that create the head before the embedding, which then are two tensors even in one memory:
# src/models/gemma3n.cpp, gemma4.cpp.
COPIES_TIED_HEAD = frozenset(("gemma3n", "gemma4"))
# Loaders that make no head, nor one of the embedding.
WITHOUT_HEAD = frozenset(
    ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
     "eurobert", "bitnet")
)  # fmt: skip


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
    def num_bytes(self) -> int:
        """Weights, caches and states together."""
        return self.weight_bytes + self.cache_bytes + self.state_bytes

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
    layers: int = 0


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


def place(
    model: ModelSpec, format_name: str, settings: Settings, shares: tuple[int, ...], layout: Layout
) -> Placed:
    """Place a model over ``len(shares)`` devices (0: CPU only) whose buffers are of one layout."""
    weights = _placed_weights(
        model, format_name, settings.n_gpu_layers, settings.n_cpu_moe, settings.overrides, shares, layout
    )
    num_gpus = len(shares)
    caches, unmodelled = _kind_caches(model, settings, layout)
    in_ram, _ = _kind_caches(model, settings, "cpu")
    totals = [(0, 0)] * (num_gpus + 1)
    for index, counts in enumerate(weights.kinds):
        cache = state = 0
        at = index if settings.kv_offload else num_gpus
        laid_out = in_ram if at == num_gpus else caches
        for kind, count in counts:
            cache += (laid_out[kind].key_bytes + laid_out[kind].value_bytes) * count
            state += laid_out[kind].state_bytes * count
        totals[at] = (totals[at][0] + cache, totals[at][1] + state)
    held = [
        Holding(each.dense, each.expert, each.table, cache, state, each.layers)
        for each, (cache, state) in zip(weights.tallies, totals, strict=True)
    ]
    spilled = weights.spilled or (num_gpus > 0 and not settings.kv_offload and any(weights.kinds[:-1]))
    return Placed(tuple(held[:-1]), held[-1], spilled, unmodelled)


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weights by place (system memory last), and how many layers of each kind lie in each."""

    tallies: tuple[_Tally, ...]
    kinds: tuple[tuple[tuple[int, int], ...], ...]
    spilled: bool


@lru_cache(maxsize=8192)
def _placed_weights(
    model: ModelSpec,
    format_name: str,
    n_gpu_layers: int,
    n_cpu_moe: int,
    overrides: tuple[tuple[str, str], ...],
    shares: tuple[int, ...],
    layout: Layout,
) -> _Weights:
    num_gpus, layers = len(shares), num_layers(model.structure)
    on_device = mix_bytes(model, format_name, layout)
    on_host = mix_bytes(model, format_name, "cpu")
    distinct, kind_of = _kinds(model)
    arch = llama_cpp_arch(model)
    first_on_gpu = max(0, layers + 1 - n_gpu_layers) if num_gpus else layers + 1
    offloaded = layers + 1 - first_on_gpu
    places = split_layers(max(0, offloaded - 1), shares) if num_gpus and offloaded > 0 else ()
    tallies = [_Tally() for _ in range(num_gpus)]
    counts: list[Counter[int]] = [Counter() for _ in range(num_gpus + 1)]
    host = _Tally(table=on_host.embedding_bytes + on_host.input_bytes)
    spilled = first_on_gpu > 0 and num_gpus > 0
    for index in range(layers):
        on_gpu = index >= first_on_gpu
        at = places[index - first_on_gpu] if on_gpu else num_gpus
        tally = tallies[at] if on_gpu else host
        file = on_device if on_gpu else on_host
        expert = file.expert_bytes[index]
        tally.dense += file.layer_bytes[index] - expert
        if on_gpu and layout == "cuda":
            spared, held = kept_in_ram(distinct[kind_of[index]], arch)
            tally.dense -= spared
            host.dense += held
        tally.layers += 1
        counts[at][kind_of[index]] += 1
        if on_gpu and expert and index < n_cpu_moe:
            host.expert += on_host.expert_bytes[index]
            spilled = True
        else:
            tally.expert += expert
    if overrides:
        moving = _Moving(overrides, n_cpu_moe, places, first_on_gpu)
        spilled = _move_by_name(model, format_name, layout, moving, tallies, host) or spilled
    if offloaded > 0 and num_gpus:
        _place_output(model, format_name, layout, tallies[places[-1]], on_host=False)
    else:
        _place_output(model, format_name, "cpu", host, on_host=True)
    for tally in (*tallies, host):
        if tally.layers:
            tally.dense += on_device.shared_bytes
    return _Weights((*tallies, host), tuple(tuple(sorted(count.items())) for count in counts), spilled)


def _place_output(
    model: ModelSpec, format_name: str, layout: Layout, tally: _Tally, *, on_host: bool
) -> None:
    file = mix_bytes(model, format_name, layout)
    if llama_cpp_arch(model) in WITHOUT_HEAD:
        tally.dense += file.output_norm_bytes
        return
    tally.dense += file.output_norm_bytes + (file.output_bytes or file.embedding_bytes)
    if on_host and not file.output_bytes and llama_cpp_arch(model) not in COPIES_TIED_HEAD:
        # In one memory a tied head and the embedding are one tensor, which every token reads.
        tally.table -= file.embedding_bytes


@dataclass(frozen=True, slots=True)
class _Moving:
    """What ``--override-tensor`` says, and where layers lie without it."""

    overrides: tuple[tuple[str, str], ...]
    n_cpu_moe: int
    places: tuple[int, ...]
    first_on_gpu: int


def _move_by_name(
    model: ModelSpec,
    format_name: str,
    layout: Layout,
    moving: _Moving,
    tallies: list[_Tally],
    host: _Tally,
) -> bool:
    """Move what ``--override-tensor`` names; tell whether anything left a device for system memory."""
    patterns = [(re.compile(pattern), _target(buffer, tallies, host)) for pattern, buffer in moving.overrides]
    first_on_gpu = moving.first_on_gpu
    left = False
    on_host = named_bytes(model, format_name, "cpu")
    for number, (name, layer, num_bytes, is_expert) in enumerate(named_bytes(model, format_name, layout)):
        target = next((to for pattern, to in patterns if pattern.search(name)), None)
        on_gpu = layer >= first_on_gpu
        spilled_already = is_expert and on_gpu and layer < moving.n_cpu_moe
        source = tallies[moving.places[layer - first_on_gpu]] if on_gpu and not spilled_already else host
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


@lru_cache(maxsize=256)
def _kinds(model: ModelSpec) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
    """Return the distinct layers and, for each layer in order, which of them it is."""
    numbers: dict[int, int] = {}
    distinct: list[Layer] = []
    kind_of = []
    for layer in expand_layers(model):
        number = numbers.get(id(layer))
        if number is None:
            number = numbers[id(layer)] = len(distinct)
            distinct.append(layer)
        kind_of.append(number)
    return tuple(distinct), tuple(kind_of)


def _kind_caches(model: ModelSpec, settings: Settings, layout: Layout) -> tuple[tuple[LayerCache, ...], bool]:
    """Return each kind of layer's cache, and whether some had no rule and count as the textbook has them."""
    window = window_of(cache_kinds(model), llama_cpp_arch(model))
    cells = cells_of(
        settings.n_ctx,
        settings.n_parallel,
        settings.n_ubatch,
        window,
        kv_unified=settings.kv_unified,
        swa_full=settings.swa_full,
    )
    value_width = value_width_of(cache_kinds(model), flash_attn=settings.flash_attn)
    wide = KV_FORMATS["fp16"]
    unmodelled = False
    listed: list[LayerCache] = []
    for layer in _kinds(model)[0]:
        keys = values = states = 0
        for cache in layer.caches:
            part = layer_cache(
                cache,
                cells,
                settings.type_k,
                settings.type_v,
                honours_window=window > 0,
                cuda=layout == "cuda",
                value_width=value_width,
            )
            if part is None:
                unmodelled = True
                keys += cache_bytes(cache, cells.full, wide, wide) * cells.num_streams
                continue
            keys += part.key_bytes
            values += part.value_bytes
            states += part.state_bytes
        listed.append(LayerCache(keys, values, states))
    return tuple(listed), unmodelled
