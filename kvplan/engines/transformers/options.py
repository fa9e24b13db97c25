"""transformers' generation options that decide memory, read from GenerationConfig's own names.

transformers 5.23 generation/configuration_utils.py and generation/utils.py
(_prepare_cache_for_generation): ``cache_implementation`` with its ``cache_config``,
``max_cache_len``, ``num_beams``, ``num_return_sequences``, ``prefill_chunk_size``,
``max_new_tokens``.
"""

from typing import Literal

from kvplan.engines.transformers.cache import BACKEND_BITS, CacheKind
from kvplan.errors import InvalidValue, did_you_mean
from kvplan.frozen import dataclass
from kvplan.workload import Workload

STATIC_NAMES = (
    "static",
    "offloaded_static",
    "hybrid",
    "sliding_window",
    "hybrid_chunked",
    "offloaded_hybrid",
    "offloaded_hybrid_chunked",
)
DYNAMIC_NAMES = ("dynamic", "offloaded")
NAMES = (*DYNAMIC_NAMES, "static", "offloaded_static", "quantized")
QUANTIZED_KEYS = ("nbits", "axis_key", "axis_value", "q_group_size", "residual_length")
CONFIG_KEYS = ("max_cache_len", "backend", *QUANTIZED_KEYS)


@dataclass(frozen=True, slots=True)
class Generation:
    """What one call of ``generate`` asks for.

    ``num_copies`` are the beams or samples a sequence is expanded to; ``prefill_chunk_size`` 0 runs
    the prompt in one pass; ``offloads_cache`` keeps all but two layers' caches in system memory.
    """

    kind: CacheKind
    num_copies: int = 1
    prefill_chunk_size: int = 0
    offloads_cache: bool = False


def generation_of(
    workload: Workload,
    context_tokens: int,
    *,
    decompresses_mla: bool,
    broadcasts_heads: bool,
) -> Generation:
    """Read the options. Raises InvalidValue for names and values that transformers refuses."""
    asked = str(workload.option("cache_implementation") or "dynamic").casefold()
    config = workload.option("cache_config")
    settings: dict[object, object] = config if isinstance(config, dict) else {}
    for key in settings:
        if key not in CONFIG_KEYS:
            raise InvalidValue(
                f"cache_config: '{key}' is not known",
                why=did_you_mean(str(key), CONFIG_KEYS) or f"it takes {', '.join(CONFIG_KEYS)}",
                hint="write it like: -- --cache-config '{\"nbits\":4}'",
            )
    implementation = _implementation(asked)
    copies = max(_option(workload, "num_beams", 1), _option(workload, "num_return_sequences", 1))
    return Generation(
        kind=_kind(workload, settings, implementation, context_tokens, decompresses_mla, broadcasts_heads),
        num_copies=copies,
        prefill_chunk_size=_option(workload, "prefill_chunk_size", 0),
        offloads_cache=asked.startswith("offloaded"),
    )


def _implementation(asked: str) -> Literal["dynamic", "static", "quantized"]:
    if asked in STATIC_NAMES:
        return "static"
    if asked in DYNAMIC_NAMES:
        return "dynamic"
    if asked == "quantized":
        return "quantized"
    raise InvalidValue(
        f"--cache-implementation {asked} is not known",
        why=did_you_mean(asked, NAMES) or f"transformers has {', '.join(NAMES)}",
        hint="write it like: -- --cache-implementation static --cache-config '{\"max_cache_len\":4096}'",
    )


def _kind(
    workload: Workload,
    settings: dict[object, object],
    implementation: Literal["dynamic", "static", "quantized"],
    context_tokens: int,
    decompresses_mla: bool,
    broadcasts_heads: bool,
) -> CacheKind:
    backend = str(settings.get("backend", "quanto")).casefold()
    if backend not in BACKEND_BITS:
        raise InvalidValue(
            f"cache_config: backend '{backend}' is not known",
            why=did_you_mean(backend, BACKEND_BITS) or f"transformers has {', '.join(BACKEND_BITS)}",
            hint='write it like {"backend": "hqq", "nbits": 4}',
        )
    given = [key for key in QUANTIZED_KEYS if key in settings]
    if implementation == "quantized" and backend == "fp8" and given:
        raise InvalidValue(
            f"cache_config: the fp8 backend does not take {given[0]}",
            why="it has one scale a tensor",
            hint="leave it out, or use the quanto or hqq backend",
        )
    bits = 8 if backend == "fp8" else _whole(settings, "nbits", 4)
    if implementation == "quantized" and bits not in BACKEND_BITS[backend]:
        raise InvalidValue(
            f"cache_config: nbits is {bits}",
            why=f"{backend} packs {' or '.join(str(known) for known in BACKEND_BITS[backend])} bits",
            hint='write it like {"nbits": 4}',
        )
    residual_length = 1 if backend == "fp8" else _whole(settings, "residual_length", 128)
    reserved = max(_whole(settings, "max_cache_len", 1), _option(workload, "max_cache_len", 0))
    return CacheKind(
        implementation=implementation,
        # generate() reserves at least what the text needs, whatever max_cache_len says.
        max_cache_len=max(reserved, context_tokens) if implementation == "static" else 0,
        backend=backend,
        num_bits=bits,
        group_size=_whole(settings, "q_group_size", 64),
        axis_key=_axis(settings, "axis_key"),
        axis_value=_axis(settings, "axis_value"),
        residual_length=residual_length,
        # The prompt is packed whole; what follows is packed every residual_length tokens.
        num_residual=_option(workload, "max_new_tokens", 0) % residual_length,
        decompresses_mla=decompresses_mla,
        broadcasts_heads=broadcasts_heads,
    )


def _whole(settings: dict[object, object], key: str, default: int) -> int:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise InvalidValue(
            f"cache_config: {key} is {str(value)[:40]}",
            why="it must be a positive whole number",
            hint=f'write it like {{"{key}": {default}}}',
        )
    return value


def _axis(settings: dict[object, object], key: str) -> int:
    value = settings.get(key, 0)
    if isinstance(value, bool) or value not in (0, 1, -1):
        raise InvalidValue(
            f"cache_config: {key} is {str(value)[:40]}",
            why="quanto takes 0 or -1, hqq 0 or 1",
            hint=f'write it like {{"{key}": 0}}',
        )
    return 1 if value == 1 else 0


def _option(workload: Workload, name: str, default: int) -> int:
    value = workload.option(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise InvalidValue(
            f"--{name.replace('_', '-')} {str(value)[:40]} is not a count",
            why="it must be a whole number",
            hint=f"write it like: -- --{name.replace('_', '-')} {max(1, default)}",
        )
    return value
