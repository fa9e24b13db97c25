"""Which files of a model's folder or repository hold its weights.

Safetensors are one file, or shards that an index names; GGUF repositories hold one model per
quantization, some split over files, beside vision projectors and importance matrices.
"""

import re
from collections.abc import Iterable, Mapping

from kvplan.errors import InvalidSpec
from kvplan.sources.gguf import SPLIT_NAME

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
SHARD_NAME = re.compile(r".*-\d{5}-of-\d{5}\.safetensors")
MAX_FILES = 4096
# Files that lie beside a GGUF model and are none.
_BESIDE = re.compile(r"(?:^|[/._-])(?:mmproj|imatrix|vocab)(?:[._-]|$)", re.IGNORECASE)
_QUANT = re.compile(r"(?:^|[._-])((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|BF16|F16|F32|MXFP4\w*))$", re.IGNORECASE)


def files_of_index(data: Mapping[str, object], origin: str) -> tuple[str, ...]:
    """Return the file names that a safetensors index names.

    Raises InvalidSpec for an index without a map, or that points outside its folder.
    """
    table = data.get("weight_map")
    if not isinstance(table, Mapping) or not table:
        raise _broken(origin, "no weight_map")
    names = set()
    for name in table.values():
        if not isinstance(name, str) or "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise _broken(origin, f"weight_map names '{str(name)[:60]}'")
        names.add(name)
    if len(names) > MAX_FILES:
        raise _broken(origin, f"weight_map names {len(names):,} files")
    return tuple(sorted(names))


def gguf_choices(names: Iterable[str]) -> tuple[str, ...]:
    """Return the GGUF models among file names: split ones by their first part, no projectors."""
    chosen = []
    for name in sorted(names):
        if not name.casefold().endswith(".gguf") or _BESIDE.search(name.rpartition("/")[2]):
            continue
        split = SPLIT_NAME.fullmatch(name)
        if split is None or int(split.group(2)) == 1:
            chosen.append(name)
    return tuple(chosen)


def quant_of(name: str) -> str:
    """Return the quantization in a GGUF file's name (``Q4_K_M``), or the name without its ending."""
    split = SPLIT_NAME.fullmatch(name)
    stem = split.group(1) if split is not None else name[: -len(".gguf")]
    match = _QUANT.search(stem)
    return match.group(1) if match is not None else stem.rpartition("/")[2]


def _broken(origin: str, what: str) -> InvalidSpec:
    return InvalidSpec(
        f"{origin}: {what}",
        why="a safetensors index maps tensors to files beside it",
        hint="download it again, or name the config.json alone",
    )
