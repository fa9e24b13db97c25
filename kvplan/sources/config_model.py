"""A config.json's data becomes a ModelSpec.

Picks the family by ``model_type``, the dtype from ``torch_dtype`` (or ``dtype``, also where it is
nested), and reads ``quantization_config`` in the forms that checkpoints use. An unknown
architecture raises UnsupportedArchitecture unless the caller assumes full attention, which marks
every number.
"""

from collections.abc import Mapping

from kvplan.config import Config
from kvplan.dtypes import DTYPE_BYTES, format_of_dtype
from kvplan.errors import InvalidSpec, UnsupportedArchitecture
from kvplan.families import family_of, structure_of, type_of_class
from kvplan.families.assumed import assumed_full_attention
from kvplan.model import ModelSpec, Structure
from kvplan.sources.quantization import quantization_of

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
MAX_KEYS = 20_000
SHORT_DTYPES = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16"}
DTYPE_ASSUMED = "the config names no dtype: taken as bfloat16"


def model_from_config(
    data: Mapping[str, object],
    *,
    name: str,
    source: str,
    repo: str | None = None,
    revision: str | None = None,
    published_total: int | None = None,
    published_relation: str = "",
    longer_context: str = "",
    notes: tuple[str, ...] = (),
    assume: str | None = None,
    quantization_data: Mapping[str, object] | None = None,
) -> ModelSpec:
    """Build a model from a config's data.

    ``quantization_data`` is a separate quantization file (``hf_quant_config.json``). Raises
    UnsupportedArchitecture, MissingFact or InvalidSpec, each naming ``name`` and the key.
    """
    check_plain(data, name)
    architecture = _architecture(data)
    config = Config(data, architecture=architecture, origin=name)
    model_type = config.text("model_type", "") or type_of_class(architecture)
    structure, assumptions = _structure(config, model_type, assume)
    dtype = dtype_of(config)
    quantization = quantization_of(config, quantization_data)
    if dtype is None:
        # A quantized checkpoint's plain part is small, and bfloat16 in all that leave it out.
        assumptions = assumptions if quantization else (*assumptions, DTYPE_ASSUMED)
        dtype = "bfloat16"
    return ModelSpec(
        name=name,
        architecture=architecture or model_type,
        model_type=model_type,
        structure=structure,
        dtype=dtype,
        weights_format=quantization.weights_format if quantization else format_of_dtype(dtype),
        source=source,
        revision=revision,
        repo=repo,
        quantization=quantization,
        published_total=published_total,
        published_relation=published_relation,
        assumptions=(*assumptions, *structure.assumptions),
        longer_context=longer_context,
        notes=notes,
        config=data,
    )


def check_plain(data: object, origin: str) -> None:
    """Refuse data that is no config: not a mapping, or larger or deeper than any config is.

    Walks without recursion, so that hostile nesting cannot exhaust the stack.
    """
    if not isinstance(data, Mapping):
        raise InvalidSpec(
            f"{origin}: not a config",
            why="a config.json is an object with keys such as hidden_size",
            hint="check that this is the model's config.json",
        )
    queue: list[tuple[object, int]] = [(data, 0)]
    num_seen = 0
    while queue:
        value, depth = queue.pop()
        num_seen += 1
        if depth > 32 or num_seen > 50 * MAX_KEYS:
            raise InvalidSpec(
                f"{origin}: nested or repeated beyond what any config is",
                why=f"more than {'32 levels' if depth > 32 else f'{50 * MAX_KEYS:,} values'}",
                hint="check that this is the model's config.json",
            )
        if isinstance(value, Mapping):
            queue += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            queue += [(item, depth + 1) for item in value]


def dtype_of(config: Config) -> str | None:
    """Return the model's own dtype, as torch names it; None where the config does not say."""
    for part in (config, *(sub for sub in (config.sub(key) for key in NESTED if config.has(key)) if sub)):
        for key in ("torch_dtype", "dtype"):
            if part.has(key):
                name = part.text(key).removeprefix("torch.")
                if name == "auto":
                    return None
                name = SHORT_DTYPES.get(name, name)
                if name not in DTYPE_BYTES:
                    raise part.invalid(key, f"is '{name[:40]}', no dtype that a model is kept in")
                return name
    return None


def _architecture(data: Mapping[str, object]) -> str:
    names = data.get("architectures")
    if isinstance(names, list | tuple) and names and isinstance(names[0], str):
        return names[0]
    return ""


def _structure(config: Config, model_type: str, assume: str | None) -> tuple[Structure, tuple[str, ...]]:
    if family_of(model_type) is not None or assume is None:
        if not model_type:
            raise UnsupportedArchitecture(
                f"{config.origin}: no model_type, and class '{config.architecture or '?'}' is not known",
                why="without either, its layers could cache anything",
                hint="add model_type to the config, or go on with --assume full-attention",
            )
        return structure_of(config, model_type), ()
    return assumed_full_attention(config), (
        f"'{model_type or config.architecture}' is not known: "
        "every layer is planned as full attention, an upper bound",
    )
