"""How a checkpoint is quantized, from ``quantization_config`` in the forms that publishers use.

GPTQ, AWQ, bitsandbytes, fp8 (DeepSeek's blocks and per-tensor), compressed-tensors, ModelOpt
(``hf_quant_config.json`` or inline), MXFP4, Quark, torchao. A form that is not known raises
UnsupportedArchitecture: a guessed width is a silently wrong number.
"""

from collections.abc import Mapping

from kvplan.config import Config
from kvplan.errors import UnsupportedArchitecture
from kvplan.model import Quantization


def quantization_of(config: Config, separate: Mapping[str, object] | None = None) -> Quantization | None:
    """Return the checkpoint's quantization, or None where it has none.

    ``separate`` is ModelOpt's own file, whose ``quantization`` part says the same.
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
    return reader(section)


def _modules(section: Config, key: str) -> tuple[str, ...]:
    patterns = []
    for name in section.texts(key) or ():
        text = name.removeprefix("re:").replace(".*", "*").replace("\\", "")
        patterns.append(text.removeprefix("model.").removesuffix(".weight"))
    return tuple(patterns)


def _bits(section: Config) -> int:
    for key in ("bits", "w_bit"):
        if section.has(key):
            return section.positive(key)
    raise _unknown(section, "that names no bits")


def _gptq(section: Config) -> Quantization:
    bits = _bits(section)
    if bits not in (4, 8):
        raise _unknown(section, f"gptq with {bits} bits")
    return Quantization("gptq-int4" if bits == 4 else "gptq-int8")


def _awq(section: Config) -> Quantization:
    if _bits(section) != 4:
        raise _unknown(section, f"awq with {_bits(section)} bits")
    return Quantization("awq", _modules(section, "modules_to_not_convert"))


def _bitsandbytes(section: Config) -> Quantization:
    skipped = _modules(section, "llm_int8_skip_modules")
    if section.flag("load_in_4bit", False) or section.flag("_load_in_4bit", False):
        double = section.flag("bnb_4bit_use_double_quant", False)
        return Quantization("nf4-dq" if double else "nf4", skipped)
    return Quantization("bnb-int8", skipped)


def _fp8(section: Config) -> Quantization:
    skipped = _modules(section, "modules_to_not_convert")
    if section.has("weight_block_size"):
        return Quantization("fp8-block", skipped)
    return Quantization("fp8-per-tensor", skipped)


def _mxfp4(section: Config) -> Quantization:
    # The listed modules are not experts, which mxfp4's coverage leaves alone already.
    return Quantization("mxfp4", _modules(section, "modules_to_not_convert"))


def _compressed_tensors(section: Config) -> Quantization:
    skipped = _modules(section, "ignore")
    groups = section.sub("config_groups")
    if groups is None:
        raise _unknown(section, "compressed-tensors without config_groups")
    first = next((groups.sub(key) for key in ("group_0", "group_1") if groups.has(key)), None)
    weights = first.sub("weights") if first is not None else None
    if weights is None:
        raise _unknown(section, "compressed-tensors without weights")
    bits = weights.positive("num_bits")
    kind = weights.text("type", "int")
    group_size = weights.integer("group_size", 0) if weights.raw("group_size") != -1 else 0
    strategy = weights.text("strategy", "channel")
    name = {
        ("float", 8, "block"): "fp8-block",
        ("float", 8, "channel"): "fp8",
        ("float", 8, "tensor"): "fp8-per-tensor",
        ("float", 4, "tensor_group"): "nvfp4",
        ("int", 8, "channel"): "int8",
        ("int", 8, "tensor"): "int8",
    }.get((kind, bits, strategy))
    if name is None and kind == "int" and bits == 4 and strategy == "group":
        name = {128: "w4a16", 32: "w4a16-g32"}.get(group_size)
    if name is None and kind == "float" and bits == 4 and group_size in (16, 32):
        name = "nvfp4" if group_size == 16 else "mxfp4"
    if name is None:
        raise _unknown(section, f"compressed-tensors {kind}{bits} by {strategy} {group_size or ''}".rstrip())
    return Quantization(name, skipped, _kv_dtype(section))


def _kv_dtype(section: Config) -> str | None:
    scheme = section.sub("kv_cache_scheme")
    if scheme is None:
        return None
    return "fp8" if scheme.integer("num_bits", 8) == 8 else None


def _modelopt(section: Config) -> Quantization:
    algorithm = section.text("quant_algo", "").upper()
    skipped = (*_modules(section, "exclude_modules"), *_modules(section, "ignore"))
    kv_dtype = {"FP8": "fp8", "NVFP4": "nvfp4"}.get(section.text("kv_cache_quant_algo", "").upper())
    if kv_dtype is None:
        kv_dtype = _kv_dtype(section)
    name = {
        "NVFP4": "nvfp4",
        "FP8": "fp8-per-tensor",
        "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
        "FP8_PB_WO": "fp8-block",
        "W4A16_AWQ": "awq",
        "INT4_AWQ": "awq",
        "INT8_SQ": "int8",
        "MIXED_PRECISION": "nvfp4",
    }.get(algorithm)
    if name is None:
        raise _unknown(section, f"ModelOpt {algorithm or 'without a quant_algo'}")
    return Quantization(name, skipped, kv_dtype)


def _quark(section: Config) -> Quantization:
    scheme = section.sub("global_quant_config")
    weight = scheme.sub("weight") if scheme is not None else None
    if weight is None:
        raise _unknown(section, "quark without a weight scheme")
    dtype = weight.text("dtype", "")
    name = {"fp8_e4m3": "fp8-per-tensor", "fp4": "mxfp4", "int8": "int8"}.get(dtype)
    if name is None:
        raise _unknown(section, f"quark {dtype}")
    return Quantization(name, _modules(section, "exclude"))


def _torchao(section: Config) -> Quantization:
    text = str(section.raw("quant_type")).casefold()
    if "int4" in text:
        return Quantization("w4a16")
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
    "fbgemm_fp8": _fp8,
    "mxfp4": _mxfp4,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "quark": _quark,
    "torchao": _torchao,
}
