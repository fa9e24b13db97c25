"""Where model facts come from: bundled specs, files, headers, the Hub.

``open_model`` tells by the form of the reference: a bundled name first (it never touches the
network), then what lies on disk, then ``org/repo[@revision]`` on the Hub.
"""

from kvplan.errors import InvalidValue, OptionClash
from kvplan.model import ModelSpec

FILE_ENDINGS = (".json", ".yaml", ".yml", ".gguf", ".safetensors")


ASSUMABLE = ("full-attention",)


def check_assumption(assume: str | None) -> None:
    """Refuse an assumption that nobody can make. Raises InvalidValue naming those that can be."""
    if assume is not None and assume not in ASSUMABLE:
        raise InvalidValue(
            f"--assume {assume} is not known",
            why=f"it takes {', '.join(ASSUMABLE)}",
            hint="leave it out, or write --assume full-attention",
        )


def open_model(
    ref: str, *, offline: bool = False, assume: str | None = None, revision: str | None = None
) -> ModelSpec:
    """Return the model that ``ref`` names: ``revision`` is the Hub's, as ``org/repo@revision`` is.

    Raises UnknownModel for a name that is nothing, InvalidSpec for a broken file, HubError for a
    Hub that cannot answer, UnsupportedArchitecture for a model kvplan does not know.
    """
    from kvplan.sources import catalog

    text = ref.strip()
    if revision is not None:
        text = _at_revision(text, revision)
    found = catalog.find(text) if text else None
    if found is not None:
        return found
    if _is_path(text):
        from kvplan.sources.local import open_local

        return open_local(text, assume=assume)
    if _is_repo(text):
        from kvplan.sources.hub_model import open_hub

        return open_hub(text, offline=offline, assume=assume)
    raise catalog.unknown_model(ref)


def _at_revision(text: str, revision: str) -> str:
    name, _, written = text.partition("@")
    if written and written != revision:
        raise OptionClash(
            f"two revisions: {written} and {revision}",
            why=f"{text} names one already",
            hint=f"leave one of them out: {name}@{revision}",
        )
    return f"{name}@{revision}"


def _is_path(text: str) -> bool:
    from pathlib import Path

    if text == "-" or text.startswith((".", "/", "~")):
        return True
    try:
        if text != "" and Path(text).exists():
            return True
    except (OSError, ValueError):
        return False
    # org/repo/name.gguf is a file of a repository; any other name with such an ending is a path.
    return text.casefold().endswith(FILE_ENDINGS) and not _is_repo(text)


def _is_repo(text: str) -> bool:
    name, _, _ = text.partition("@")
    parts = name.split("/")
    if len(parts) > 2 and not name.casefold().endswith(".gguf"):
        return False
    if len(parts) == 2 and name.casefold().endswith(FILE_ENDINGS):
        return False
    return len(parts) >= 2 and all(part and not part.startswith(".") for part in parts)
