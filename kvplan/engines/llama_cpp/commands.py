"""llama.cpp's own words for a plan: the command that starts it, and what it prints of its memory."""

from kvplan.engines.base import DevicePlan
from kvplan.engines.llama_cpp.devices import backend_of
from kvplan.engines.llama_cpp.placement import Placed
from kvplan.engines.llama_cpp.settings import ALL_LAYERS, DEFAULT_N_BATCH, DEFAULT_N_UBATCH, Settings
from kvplan.model import ModelSpec, num_layers
from kvplan.units import MIB

DEVICE_NAMES = {"cuda": "CUDA", "rocm": "ROCm", "metal": "MTL", "sycl": "SYCL", "vulkan": "Vulkan"}


def server_command(
    model: ModelSpec, format_name: str, settings: Settings, num_gpus: int, options: dict[str, object]
) -> str:
    """Return the ``llama-server`` command that starts this plan.

    ``-ngl`` is always given, because ``--fit`` moves layers only where it is not.
    """
    layers = num_layers(model.structure)
    words = ["llama-server", "-m", file_of(model, format_name), "-c", str(settings.n_ctx)]
    words += ["-np", str(settings.n_parallel)]
    if settings.kv_unified:
        words.append("-kvu")
    words += ["-ngl", str(min(settings.n_gpu_layers, layers + 1) if num_gpus else 0)]
    if settings.n_cpu_moe >= ALL_LAYERS:
        words.append("-cmoe")
    elif settings.n_cpu_moe:
        words += ["-ncmoe", str(settings.n_cpu_moe)]
    for pattern, buffer in settings.overrides:
        words += ["-ot", f"'{pattern}={buffer}'"]
    for flag, cache_type in (("-ctk", settings.type_k), ("-ctv", settings.type_v)):
        if cache_type != "f16":
            words += [flag, cache_type]
    words += ["-fa", "on" if settings.flash_attn else "off"]
    if settings.swa_full:
        words.append("--swa-full")
    if not settings.kv_offload:
        words.append("-nkvo")
    for flag, key, value, usual in (
        ("-b", "n_batch", settings.n_batch, DEFAULT_N_BATCH),
        ("-ub", "n_ubatch", settings.n_ubatch, DEFAULT_N_UBATCH),
    ):
        if key in options and value != usual:
            words += [flag, str(value)]
    for flag, key in (("-ts", "tensor_split"), ("-sm", "split_mode"), ("-mg", "main_gpu")):
        if key in options:
            words += [flag, str(options[key])]
    if model.draft is not None:
        from kvplan.engines.llama_cpp.draft import draft_format

        words += ["-md", file_of(model.draft, draft_format(model.draft, format_name))]
    elif "model_draft" in options:
        words += ["-md", str(options["model_draft"])]
    for flag, key in (("--mmproj", "mmproj"), ("--lora", "lora")):
        if key in options:
            words += [flag, str(options[key])]
    return " ".join(words)


def file_of(model: ModelSpec, format_name: str) -> str:
    """Return the file to load: the one that was read, else a name that says model and mix."""
    if model.gguf_metadata and model.source.casefold().endswith(".gguf") and "://" not in model.source:
        return model.source if " " not in model.source else f"'{model.source}'"
    return f"{model.name}-{format_name.removeprefix('gguf-')}.gguf"


def startup_lines(
    devices: tuple[DevicePlan, ...], placed: Placed, options: dict[str, object]
) -> tuple[str, ...]:
    """Return the buffer sizes as the server logs them, device by device."""
    lines = [f"CPU model buffer size = {placed.host.weight_bytes / MIB:.2f} MiB"]
    if placed.host.cache_bytes:
        lines.append(f"CPU KV buffer size = {placed.host.cache_bytes / MIB:.2f} MiB")
    for index, (device, held) in enumerate(zip(devices, placed.devices, strict=True)):
        name = f"{DEVICE_NAMES[backend_of(device.device, options.get('device'))]}{index}"
        lines.append(f"{name} model buffer size = {held.weight_bytes / MIB:.2f} MiB")
        if held.cache_bytes:
            lines.append(f"{name} KV buffer size = {held.cache_bytes / MIB:.2f} MiB")
        if held.state_bytes:
            lines.append(f"{name} RS buffer size = {held.state_bytes / MIB:.2f} MiB")
    return tuple(lines)
