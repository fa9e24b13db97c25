"""A GGUF file becomes a ModelSpec: exact bytes from its table of tensors, caches from its keys."""

from collections import Counter
from dataclasses import replace

from kvplan.errors import InvalidSpec, UnsupportedArchitecture
from kvplan.model import ModelSpec, num_parameters
from kvplan.sources.config_model import model_from_config
from kvplan.sources.gguf import Header
from kvplan.sources.gguf_archs import KNOWN
from kvplan.sources.gguf_config import config_is_known, config_of_keys, usually_tied
from kvplan.sources.gguf_keys import Keys
from kvplan.sources.gguf_layers import loaded_tensors, structure_of_header

# llama.h llama_ftype -> the mix's name.
FILE_TYPES: dict[int, str] = {
    0: "gguf-f32", 1: "gguf-f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k",
    11: "q3_k_s", 12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m",
    18: "q6_k", 19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s",
    25: "iq4_nl", 26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m",
    32: "gguf-bf16", 36: "tq1_0", 37: "tq2_0", 38: "mxfp4_moe",
}  # fmt: skip
# Where the header names no mix: the mix whose base type most of the bytes are in.
OF_BLOCK: dict[str, str] = {
    "f32": "gguf-f32", "f16": "gguf-f16", "bf16": "gguf-bf16", "q3_k": "q3_k_m", "q4_k": "q4_k_m",
    "q5_k": "q5_k_m", "mxfp4": "mxfp4_moe",
}  # fmt: skip
GUESSED = 1024
KEPT = (str, int, float, bool, tuple)


def model_from_gguf(
    header: Header,
    *,
    name: str,
    source: str,
    origin: str,
    repo: str | None = None,
    revision: str | None = None,
    assume: str | None = None,
    file_bytes: int | None = None,
) -> ModelSpec:
    """Build a model from a GGUF header (of all parts of a split file).

    ``origin`` names the file in errors; ``file_bytes`` is its size where known, to tell a cut
    download. Raises UnsupportedArchitecture for an architecture that is not known, unless ``assume``
    plans it as full attention.
    """
    arch = header.metadata.get("general.architecture")
    if not isinstance(arch, str) or not arch:
        raise InvalidSpec(
            f"{origin}: no general.architecture",
            why="without it the other keys cannot be found",
            hint="convert the model again, or name the original: org/repo",
        )
    if arch == "clip" or header.metadata.get("general.type", "model") != "model":
        raise InvalidSpec(
            f"{origin}: a {'vision projector' if arch == 'clip' else 'part'}, not a model",
            why="it is loaded beside a model",
            hint="name the model's own .gguf file",
        )
    if header.num_block_tensors == 0 and arch in KNOWN and config_is_known(arch):
        return _from_keys_alone(header, arch, name=name, source=source, origin=origin)
    structure = structure_of_header(header, arch, origin, assume=assume is not None)
    stored = loaded_tensors(header, arch, origin)
    notes: tuple[str, ...] = ()
    left = sum(tensor.num_bytes for tensor in header.tensors) - sum(tensor.num_bytes for tensor in stored)
    if left:
        notes += (f"{left:,} bytes of layers for speculation lie in the file and are not loaded",)
    if file_bytes is not None and file_bytes < header.data_end:
        notes += (f"the file ends {header.data_end - file_bytes:,} bytes early: an incomplete download",)
    assumptions: tuple[str, ...] = ()
    if arch not in KNOWN:
        assumptions = (
            f"'{arch[:40]}' is not known: every layer is planned as full attention, an upper bound",
        )
    return ModelSpec(
        name=name,
        architecture=arch,
        model_type=arch,
        structure=structure,
        dtype="float16",
        weights_format=_mix_of(header, origin),
        source=source,
        revision=revision,
        repo=repo,
        stored=stored,
        gguf_metadata=tuple(
            (key, value)
            for key, value in header.metadata.items()
            if isinstance(value, KEPT) and key.startswith(("general.", f"{arch}."))
        ),
        assumptions=assumptions,
        notes=notes,
        provenance=(("weights", "the file's own table of tensors"), ("layers", "the file's own keys")),
    )


def _from_keys_alone(header: Header, arch: str, *, name: str, source: str, origin: str) -> ModelSpec:
    """Plan a header that lists no layer's tensors: those that llama.cpp would create from its keys."""
    listed = {tensor.name: tensor.shape for tensor in header.tensors}
    is_tied = None if "token_embd.weight" not in listed else "output.weight" not in listed
    keys = Keys(header, arch, origin)
    config = config_of_keys(keys, is_tied=is_tied)
    rows = header.lengths.get("tokenizer.ggml.tokens", 0)
    if len(shape := listed.get("token_embd.weight", ())) == 2:
        rows = shape[1]
    if rows:
        config["vocab_size"] = rows
    if "rope_freqs.weight" in listed:
        config["rope_scaling"] = {"rope_type": "llama3"}
    elif listed:
        config.pop("rope_scaling", None)
    file_type = header.metadata.get("general.file_type")
    mix = FILE_TYPES.get(file_type % GUESSED, "gguf-f16") if isinstance(file_type, int) else "gguf-f16"
    model = model_from_config({**config, "torch_dtype": "float16"}, name=name, source=source)
    if is_tied is None:
        # The embedding's share of a model with a head of its own is counted without that head.
        structure = model.structure
        table = structure.vocab_size * structure.hidden_size
        body = num_parameters(structure) - (0 if structure.tie_word_embeddings else table)
        config["tie_word_embeddings"] = usually_tied(arch, table, body)
        model = model_from_config({**config, "torch_dtype": "float16"}, name=name, source=source)
    why = "the header lists no layer's tensors: they are those llama.cpp creates from its keys"
    if is_tied is None:
        why += ", its head tied or not as models of its size usually have it"
    return replace(
        model,
        architecture=arch,
        weights_format=mix,
        assumptions=(why,),
        provenance=(("layers", "the file's own keys"), ("weights", "llama.cpp's loader and quantizer rules")),
    )


def _mix_of(header: Header, origin: str) -> str:
    file_type = header.metadata.get("general.file_type")
    if isinstance(file_type, int) and file_type % GUESSED in FILE_TYPES:
        return FILE_TYPES[file_type % GUESSED]
    sizes: Counter[str] = Counter()
    for tensor in header.tensors:
        sizes[tensor.dtype] += tensor.num_bytes
    if not sizes:
        raise InvalidSpec(
            f"{origin}: no tensors",
            why="a vocabulary alone is no model",
            hint="name the file that holds the weights",
        )
    most = sizes.most_common(1)[0][0]
    mix = OF_BLOCK.get(most, most)
    if mix not in FILE_TYPES.values():
        raise UnsupportedArchitecture(
            f"{origin}: most of it is {most}, which no known mix is made of",
            why="its bytes are known, but not what an engine makes of them",
            hint="name the original model and a format: org/repo --weights q4_k_m",
        )
    return mix
