"""llama-server's presets: an INI file, one section a model, keys that are flags without dashes."""

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.words import Word

SHORT = ("c", "m", "b", "ub", "np", "ngl", "fa", "ctk", "ctv", "ts", "sm", "mg", "hf", "md", "ot", "t", "kvu")
SWITCHES = (
    "swa-full",
    "kv-unified",
    "kvu",
    "cpu-moe",
    "cmoe",
    "no-kv-offload",
    "nkvo",
    "no-mmap",
    "jinja",
    "mlock",
)
NOT_FLAGS = ("load-on-startup", "stop-timeout", "version")
TYPICAL = frozenset(
    [
        "ctx-size",
        "n-gpu-layers",
        "model",
        "hf-repo",
        "hf",
        "cache-type-k",
        "cache-type-v",
        "flash-attn",
        "parallel",
        "mmproj",
        "m",
        "c",
        "ngl",
    ]
)


def is_preset(text: str) -> bool:
    """Tell whether an INI text is such a preset."""
    keys = {line.partition("=")[0].strip() for line in text.splitlines() if "=" in line}
    return bool(keys & TYPICAL) and any(line.strip().startswith("[") for line in text.splitlines())


def launches(text: str, context: Context) -> list[Launch]:
    """Return one launch a section; ``[*]`` and what stands before the first hold for all."""
    shared: dict[str, Word] = {}
    sections: list[tuple[str, int, dict[str, Word]]] = []
    into = shared
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        if not content or content[0] in "#;":
            continue
        if content.startswith("[") and content.endswith("]"):
            name = content[1:-1].strip()
            into = shared
            if name not in ("*", "default"):
                into = {}
                sections.append((name, number, into))
            continue
        key, equals, value = content.partition("=")
        if equals:
            into[key.strip().lstrip("-")] = Word(value.strip(), number)
    found: list[Launch] = []
    for name, number, own in sections:
        settings = {**shared, **own}
        words = [word for key, value in settings.items() for word in _flag(key, value)]
        if not {"model", "m", "hf", "hf-repo", "hfr"}.intersection(settings):
            # A section without a model is named after the repository it comes from.
            words = [Word("-hf", number), Word(name, number), *words]
        started = Started("llama.cpp", tuple(words), number)
        found += launches_of([started], context, name, GpuHint())
    return found


def _flag(key: str, value: Word) -> list[Word]:
    if key in NOT_FLAGS or key.startswith("LLAMA_ARG"):
        return []
    flag = f"-{key}" if key in SHORT else f"--{key}"
    if key in SWITCHES or (
        value.text.casefold() in ("true", "on") and key not in ("flash-attn", "fa", "fit")
    ):
        return [Word(flag, value.line)] if value.text.casefold() in ("1", "true", "on") else []
    if value.text.casefold() == "false":
        return []
    return [Word(flag, value.line), value]
