"""What a model's name in a deployment file means: a Hub id, an Ollama tag, a path of the server's.

Bundled models are looked up first and never touch the network. A path of the server's own says
nothing that can be relied on: it needs a mapping, and where its last part looks like a known model the
mapping is proposed, not made.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import field, replace
from pathlib import Path

from kvplan.deploy.format_words import (
    OLLAMA_QUANT,
    format_said,
    gguf_format,
    sounds_quantized,
    without_format,
    without_mix,
)
from kvplan.deploy.launch import Launch
from kvplan.deploy.settings import ModelChoice, Settings
from kvplan.errors import CannotTell, HubError, KvplanError, UnknownFormat
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.sources.catalog import find

Opener = Callable[[str, bool], ModelSpec]

SIXTEEN_BIT = ("bf16", "fp16", "fp32")


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a launch's model is not known, and what to type."""

    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A launch's model, opened; ``weights`` where the mapping or a file's name says which format."""

    model: ModelSpec
    weights: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Models:
    """Opens models, each once; the Hub is left alone after it was out of reach."""

    open_model: Opener
    opened: dict[tuple[str, bool], ModelSpec | KvplanError] = field(default_factory=dict)
    hub_is_out: bool = False

    def open(self, ref: str, *, offline: bool) -> ModelSpec:
        """Return a model. Raises KvplanError as opening it did."""
        key = (ref, offline or self.hub_is_out)
        if key not in self.opened:
            try:
                self.opened[key] = self.open_model(*key)
            except KvplanError as error:
                self.opened[key] = error
                if isinstance(error, HubError) and re.search(
                    r"reach|timed? ?out|connect", error.message + error.why
                ):
                    self.hub_is_out = True
        found = self.opened[key]
        if isinstance(found, KvplanError):
            raise found
        return found

    def resolve(self, launch: Launch, settings: Settings) -> Resolved | Unresolved:
        """Return the model of a launch, or why it is not known."""
        choice = next((settings.models[name] for name in _names(launch) if name in settings.models), None)
        if choice is not None:
            return self._chosen(choice, launch, settings)
        word = launch.model
        if word is None:
            return Unresolved("no model is named", f"--model {launch.name}=ID")
        if word.undefined:
            names = ", ".join(word.undefined)
            first = word.undefined[0]
            return Unresolved(
                f"{names} is not defined",
                f"--env {first}=VALUE" if first.isidentifier() else _mapping(launch),
            )
        if is_local(word.text, launch.engine) or lies_here(_hub_name(word.text)):
            return self._local(word.text, launch)
        if launch.engine == "ollama":
            return self._tagged(word.text, launch, settings)
        return self._opened(ModelChoice(_hub_name(word.text)), launch, settings)

    def drafted(self, resolved: Resolved, draft: str, launch: Launch, settings: Settings) -> Resolved:
        """Return the model with the draft its flags name; as it is where that draft is not known."""
        choice = settings.models.get(draft)
        if not draft or (choice is None and (is_local(draft, launch.engine) or lies_here(draft))):
            return resolved
        try:
            found = self.open(choice.ref if choice else _hub_name(draft), offline=settings.offline)
        except KvplanError:
            return resolved
        return replace(resolved, model=replace(resolved.model, draft=found))

    def _tagged(self, tag: str, launch: Launch, settings: Settings) -> Resolved | Unresolved:
        """Return the model of an Ollama tag, in the format that the tag names or Ollama ships."""
        name = tag.removeprefix("library/").removesuffix(":latest")
        match = OLLAMA_QUANT.search(name)
        plain = name[: match.start()] if match else name
        shorter = re.sub(r"-(instruct|chat|it|text)$", "", plain)
        known = next((each for each in (name, plain, shorter) if is_bundled(each)), name)
        found = self._opened(ModelChoice(known), launch, settings)
        return found if isinstance(found, Unresolved) else _as_ollama_ships(found, name)

    def _chosen(self, choice: ModelChoice, launch: Launch, settings: Settings) -> Resolved | Unresolved:
        written = launch.model.text if launch.model else ""
        found = self._opened(choice, launch, settings)
        if isinstance(found, Unresolved) or choice.weights is not None:
            return found
        quant = gguf_format(written)
        if quant is not None:
            return Resolved(found.model, quant[0], quant[1])
        if launch.engine == "ollama" and not is_local(written, "ollama"):
            return _as_ollama_ships(found, written)
        last = written.rstrip("/").rpartition("/")[2]
        if sounds_quantized(last) and found.model.quantization is None and not sounds_quantized(choice.ref):
            return Unresolved(
                f"'{last}' sounds quantized, {found.model.name} is {found.model.weights_format}",
                f"--model {written}={choice.ref},weights=FORMAT",
            )
        return found

    def _opened(self, choice: ModelChoice, launch: Launch, settings: Settings) -> Resolved | Unresolved:
        try:
            model = self.open(choice.ref, offline=settings.offline)
        except HubError as error:
            why = f"{choice.ref} is not bundled; {error.why or error.message}"
            return Unresolved(why, _proposed(choice.ref, launch))
        except CannotTell as error:
            return Unresolved(f"{error.message}: {error.why}" if error.why else error.message, error.hint)
        except UnknownFormat as error:
            return Unresolved(error.message, error.hint)
        except KvplanError as error:
            return Unresolved(error.message, _mapping(launch))
        return Resolved(model, choice.weights)

    def _local(self, written: str, launch: Launch) -> Unresolved:
        guess = next((name for name in _candidates(written) if is_bundled(name)), None)
        if guess is not None:
            return Unresolved(
                f"'{written}' is a path of the server's own; its name looks like {guess}",
                f"--model {written}={guess}",
            )
        return Unresolved(f"'{written}' is a path of the server's own", _mapping(launch))


def is_bundled(name: str) -> bool:
    """Tell whether a model of that name comes with kvplan; nothing else is looked at."""
    return bool(name.strip()) and find(name) is not None


def lies_here(name: str) -> bool:
    """Tell whether a name from a file would open something on this machine: it means the server's.

    What a deployment names is never read here, standard input included.
    """
    if is_bundled(name):
        return False
    try:
        return name.strip() == "-" or Path(name).exists()
    except (OSError, ValueError):
        return True


def _as_ollama_ships(found: Resolved, tag: str) -> Resolved:
    """Return the model in the format that an Ollama tag names, or in that of Ollama's library."""
    if found.model.weights_format not in SIXTEEN_BIT:
        return found
    match = OLLAMA_QUANT.search(tag)
    if match:
        quant = match.group(1).casefold()
        return Resolved(found.model, {"fp16": "gguf-f16", "bf16": "gguf-bf16"}.get(quant, quant))
    note = "weights read as q4_k_m, which Ollama's library ships where a tag names none (older tags: q4_0)"
    return Resolved(found.model, "q4_k_m", (note,))


def _mapping(launch: Launch) -> str:
    """Return the mapping to type: by the path, or by the service where a path like /model tells nothing."""
    written = launch.model.text if launch.model and launch.model.known else ""
    is_telling = bool(written) and ("/" in written.strip("/") or not written.startswith("/"))
    return f"--model {written if is_telling else launch.name}=ID"


def _proposed(ref: str, launch: Launch) -> str:
    """Return the mapping to type for a release of a bundled model in another format, by its name."""
    guess = next((name for name in _candidates(ref) if is_bundled(name)), None)
    if guess is None:
        return _mapping(launch)
    said = ref.rpartition("/")[2]
    if not sounds_quantized(said):
        return f"--model {ref}={guess}"
    return f"--model {ref}={guess},weights={format_said(said) or 'FORMAT'}"


def _names(launch: Launch) -> Iterator[str]:
    """Yield the names by which a mapping may mean a launch's model, the most specific first."""
    yield launch.name
    yield from launch.aliases
    if launch.model is not None:
        written = launch.model.text
        yield written
        yield written.rstrip("/").rpartition("/")[2]


def is_local(written: str, engine: str) -> bool:
    """Tell whether a model is named by a path or a place that only the server knows."""
    if written.startswith(("/", ".", "~", "\\")) or "://" in written or "{{" in written:
        return True
    parts = written.split("@", maxsplit=1)[0].split("/")
    if written.casefold().endswith((".gguf", ".safetensors", ".json", ".bin")):
        return len(parts) < 3 or parts[0] in ("path", "models", "model")
    if engine == "ollama":
        return False
    if len(parts) > 2:
        return True
    return len(parts) == 2 and parts[0] in ("models", "model", "weights", "checkpoints", "data")


def _hub_name(written: str) -> str:
    """Spell a name as kvplan opens it: the Hub's cache folders undone."""
    if written.startswith("models--"):
        return written.removeprefix("models--").replace("--", "/", 1)
    return written


def _candidates(written: str) -> Iterator[str]:
    """Yield what the last part of a path may be a name of, without its quantization."""
    last = written.rstrip("/").rpartition("/")[2]
    last = without_mix(last)
    for name in (last.strip("-_."), without_format(last)):
        yield name
        yield re.sub(r"^[A-Za-z]+_", "", name)
        yield re.sub(r"-(instruct|it|chat|hf|base)$", "", name, flags=re.IGNORECASE)
