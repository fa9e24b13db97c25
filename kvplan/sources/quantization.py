"""How a checkpoint is quantized, from ``quantization_config`` in the forms that publishers use.

GPTQ, AWQ, bitsandbytes, fp8 (DeepSeek's blocks and per-tensor), compressed-tensors, ModelOpt
(``hf_quant_config.json`` or inline), MXFP4, Quark, torchao. A form that is not known raises
UnsupportedArchitecture: a guessed width is a silently wrong number.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.model import Quantization
from kvplan.module_patterns import is_pattern

GROUP_SIZE = 128
MAX_GROUP_SIZE = 2**16


def quantization_of(config: Config, separate: Mapping[str, object] | None = None) -> Quantization | None:
    """Return the checkpoint's quantization, or None where it has none.

    ``separate`` is ModelOpt's own file, whose ``quantization`` part says the same. Raises
    UnsupportedArchitecture for a form that is not known.
    """
    section = config.sub("quantization_config")
    if section is None and (text := config.sub("text_config")) is not None:
        section = text.sub("quantization_config")
    if section is None and separate is not None:
        section = Config(separate, architecture=config.architecture, origin=config.origin).sub("quantization")
        if section is not None:
            return _modelopt(section)
    if section is None:
        return None
    method = section.text("quant_method", "").casefold()
    if not method and section.has("quant_algo"):
        return _modelopt(section)
    reader = _READERS.get(method)
    if reader is None:
        raise _unknown(section, method or "without a quant_method")
    found = reader(section)
    if config.has("expert_dtype"):
        found = _with_experts(config, section, found)
    return found


def _with_experts(config: Config, section: Config, found: Quantization) -> Quantization:
    """Return the quantization with routed experts in a type of their own (DeepSeek-V4).

    ``fp4`` experts are packed with an 8-bit exponent per 32 elements, whatever the rest is in:
    the published tensor table of DeepSeek-V4-Flash (158,069,433,298 stored elements) says so.
    """
    dtype = config.text("expert_dtype")
    if section.has("moe_quant_algo"):
        dtype = section.text("moe_quant_algo").casefold()
    name = {"fp4": "mxfp4", "nvfp4": "nvfp4", "fp8": ""}.get(dtype)
    if name is None:
        raise _unknown(config, f"with experts in {dtype}")
    return replace(found, formats=(*found.formats, ("mlp.experts", name))) if name else found


def _modules(section: Config, key: str) -> tuple[str, ...]:
    """Return the patterns that a list of modules holds. Raises InvalidSpec for a broken expression."""
    patterns = section.texts(key) or ()
    broken = next((text for text in patterns if not is_pattern(text)), None)
    if broken is not None:
        raise section.invalid(key, f"holds '{broken[:40]}', which is no pattern")
    return patterns


def _bits(section: Config) -> int:
    for key in ("bits", "w_bit"):
        if section.has(key):
            return section.positive(key)
    raise _unknown(section, "that names no bits")


def _grouped(section: Config, base: str, group: object) -> str:
    """Return the format's name with its group size; -1 is one group a row."""
    if group is None or group == GROUP_SIZE:
        return base
    if group == -1:
        return f"{base}-grow"
    if isinstance(group, int) and not isinstance(group, bool) and 0 < group <= MAX_GROUP_SIZE:
        return f"{base}-g{group}"
    raise _unknown(section, f"in groups of {str(group)[:20]}")


def _gptq(section: Config) -> Quantization:
    bits = _bits(section)
    if bits not in (4, 8):
        raise _unknown(section, f"gptq with {bits} bits")
    base = "gptq-int4" if bits == 4 else "gptq-int8"
    skipped = _modules(section, "modules_to_not_convert")
    if section.has("dynamic"):
        raise _unknown(section, "gptq with rules of its own for some modules (dynamic)")
    return Quantization(_grouped(section, base, section.raw("group_size")), skipped)


def _awq(section: Config) -> Quantization:
    if _bits(section) != 4:
        raise _unknown(section, f"awq with {_bits(section)} bits")
    group = section.raw("group_size") if section.has("group_size") else section.raw("q_group_size")
    return Quantization(_grouped(section, "awq", group), _modules(section, "modules_to_not_convert"))


def _bitsandbytes(section: Config) -> Quantization:
    skipped = _modules(section, "llm_int8_skip_modules")
    if section.flag("load_in_4bit", False) or section.flag("_load_in_4bit", False):
        double = section.flag("bnb_4bit_use_double_quant", False)
        return Quantization("nf4-dq" if double else "nf4", skipped)
    return Quantization("bnb-int8", skipped)


def _fp8(section: Config) -> Quantization:
    skipped = _modules(section, "modules_to_not_convert")
    block = section.integers("weight_block_size")
    if block is None:
        return Quantization("fp8-per-tensor", skipped)
    if block != (GROUP_SIZE, GROUP_SIZE):
        raise _unknown(section, f"fp8 in blocks of {' x '.join(str(size) for size in block)}")
    return Quantization("fp8-block", skipped)


def _fbgemm(section: Config) -> Quantization:
    return Quantization("fp8", _modules(section, "modules_to_not_convert"))


def _mxfp4(section: Config) -> Quantization:
    # The listed modules are not experts, which mxfp4's coverage leaves alone already.
    return Quantization("mxfp4", _modules(section, "modules_to_not_convert"))


def _compressed_tensors(section: Config) -> Quantization:
    skipped = _modules(section, "ignore")
    groups = section.sub("config_groups")
    if groups is None:
        raise _unknown(section, "compressed-tensors without config_groups")
    return _by_groups(section, groups, skipped, _kv_dtype(section))


def _by_groups(
    section: Config, groups: Config, skipped: tuple[str, ...], kv_dtype: str | None
) -> Quantization:
    """Read one or several groups of modules, each with its own scheme.

    A group that targets ``Linear`` is for all that no other group names.
    """
    formats: list[tuple[str, str]] = []
    rest = ""
    for key in groups.names():
        group = groups.sub(key)
        weights = group.sub("weights") if group is not None else None
        if group is None or weights is None:
            raise _unknown(section, f"with config_groups.{key} without weights")
        name = _scheme(section, weights)
        targets = _modules(group, "targets") or ("Linear",)
        if "Linear" in targets:
            rest = rest or name
        else:
            formats += [(target, name) for target in targets]
    if not rest and not formats:
        raise _unknown(section, "with config_groups that hold no group")
    # mxfp4 by itself means experts alone; here it is what every linear layer has.
    if rest == "mxfp4":
        formats.append(("re:.*", "mxfp4"))
    name = rest or formats[0][1]
    return Quantization(name, skipped, kv_dtype, tuple(formats), only_listed=not rest)


def _scheme(section: Config, weights: Config) -> str:
    """Return the format of a weights scheme of compressed-tensors or ModelOpt."""
    bits = weights.positive("num_bits")
    kind = weights.text("type", "int")
    group_size = weights.raw("group_size")
    default = "tensor_group" if kind == "float" and bits == 4 else "tensor" if kind == "float" else "channel"
    strategy = weights.text("strategy", default)
    symmetric = weights.flag("symmetric", True)
    if kind == "int" and bits == 4 and strategy in ("group", "channel"):
        group = -1 if strategy == "channel" else group_size
        return _grouped(section, "w4a16" if symmetric else "awq", group)
    if kind == "float" and bits == 4 and group_size in (16, 32):
        return "nvfp4" if group_size == 16 else "mxfp4"
    name = {
        ("float", 8, "block"): "fp8-block",
        ("float", 8, "channel"): "fp8",
        ("float", 8, "tensor"): "fp8-per-tensor",
        ("int", 8, "channel"): "int8",
        ("int", 8, "tensor"): "int8",
    }.get((kind, bits, strategy))
    if name is None:
        raise _unknown(section, f"{kind}{bits} by {strategy} {group_size or ''}".rstrip())
    return name


def _kv_dtype(section: Config) -> str | None:
    scheme = section.sub("kv_cache_scheme")
    if scheme is None:
        return None
    return "fp8" if scheme.integer("num_bits", 8) == 8 else None


MODELOPT_FORMATS = {
    "NVFP4": "nvfp4",
    "FP8": "fp8-per-tensor",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8-block",
    "INT8_SQ": "int8",
    "MXFP4": "mxfp4",
    "W4A16_NVFP4": "nvfp4",
}


def _modelopt(section: Config) -> Quantization:
    algorithm = section.text("quant_algo", "").upper()
    skipped = (*_modules(section, "exclude_modules"), *_modules(section, "ignore"))
    kv_dtype = {"FP8": "fp8", "NVFP4": "nvfp4"}.get(section.text("kv_cache_quant_algo", "").upper())
    if kv_dtype is None:
        kv_dtype = _kv_dtype(section)
    layers = section.sub("quantized_layers")
    if layers is not None:
        formats = tuple((key, _modelopt_scheme(section, layers.sub(key))) for key in layers.names())
        if not formats:
            raise _unknown(section, "ModelOpt with no quantized_layers")
        return Quantization(formats[0][1], (), kv_dtype, formats, only_listed=True)
    groups = section.sub("config_groups")
    if algorithm == "MIXED_PRECISION" and groups is not None:
        return _by_groups(section, groups, skipped, kv_dtype)
    if algorithm in ("W4A16_AWQ", "INT4_AWQ"):
        return Quantization(_grouped(section, "w4a16", section.raw("group_size")), skipped, kv_dtype)
    name = MODELOPT_FORMATS.get(algorithm)
    if name is None:
        raise _unknown(section, f"ModelOpt {algorithm or 'without a quant_algo'}")
    return Quantization(name, skipped, kv_dtype)


def _modelopt_scheme(section: Config, layer: Config | None) -> str:
    algorithm = layer.text("quant_algo", "").upper() if layer is not None else ""
    name = MODELOPT_FORMATS.get(algorithm)
    if name is None:
        raise _unknown(section, f"ModelOpt {algorithm or 'without a quant_algo'} in quantized_layers")
    return name


def _quark(section: Config) -> Quantization:
    scheme = section.sub("global_quant_config")
    weight = scheme.sub("weight") if scheme is not None else None
    if weight is None:
        raise _unknown(section, "quark without a weight scheme")
    for key in ("layer_quant_config", "layer_type_quant_config"):
        own = section.sub(key)
        if own is not None and own.names():
            raise _unknown(section, f"quark with schemes of their own for some layers ({key})")
    dtype = weight.text("dtype", "")
    name = {"fp8_e4m3": "fp8-per-tensor", "fp4": "mxfp4", "int8": "int8"}.get(dtype)
    if name is None:
        raise _unknown(section, f"quark {dtype}")
    formats = (("re:.*", "mxfp4"),) if name == "mxfp4" else ()
    return Quantization(name, _modules(section, "exclude"), formats=formats)


def _torchao(section: Config) -> Quantization:
    text = str(section.raw("quant_type")).casefold()
    if "int4" in text:
        found = re.search(r"group_size'?\"?: *(\d+)", text)
        return Quantization(_grouped(section, "torchao-int4", int(found.group(1)) if found else None))
    if "float8" in text:
        return Quantization("fp8")
    if "int8" in text:
        return Quantization("int8")
    raise _unknown(section, "torchao of an unknown quant_type")


def _unknown(section: Config, what: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"{section.origin}: quantization {what} is not known",
        why="a guessed width would be a silently wrong number",
        hint="say what the weights take: --weights fp8, --weights awq … (kvplan list formats)",
    )


_READERS = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "mxfp4": _mxfp4,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "quark": _quark,
    "torchao": _torchao,
}
