"""What a carrier is given: the file, the variables the user defined, and what other documents hold."""

from collections.abc import Mapping, Sequence
from dataclasses import field

from kvplan.deploy.files import SourceFile
from kvplan.deploy.gpu_names import INSTANCE_LABELS, LABELS, MIG_RESOURCE, RESOURCES, of_instance
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.model_words import split_model
from kvplan.deploy.programs import Started
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Value, listing, table, text
from kvplan.frozen import dataclass

VISIBLE = ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Context:
    """A file being read.

    ``variables`` are those the user gave (``--env``); ``documents`` all of the file, so that one may
    refer to another; ``notes`` collects what was left out and why, as (line, text).
    """

    file: SourceFile
    variables: Mapping[str, Word] = field(default_factory=dict)
    documents: Sequence[Value] = ()
    notes: list[tuple[int, str]] = field(default_factory=list)

    def note(self, line: int, message: str) -> None:
        """Record something that was not read."""
        self.notes.append((line, message))


def launches_of(
    started: Sequence[Started],
    context: Context,
    name: str,
    gpus: GpuHint,
    *,
    groups: tuple[str, ...] = (),
    order: int = 0,
    extra_notes: tuple[str, ...] = (),
    visible: bool = True,
) -> list[Launch]:
    """Turn started engines into launches of this file."""
    found: list[Launch] = []
    for number, item in enumerate(started):
        model, flags, aliases = split_model(item.engine, item.words, item.env)
        label = name if len(started) == 1 else f"{name}-{number + 1}" if name else ""
        hint = item.gpus or gpus
        found.append(
            Launch(
                name=item.name or label or (model.text if model else item.engine),
                file=context.file.name,
                line=item.line,
                engine=item.engine,
                model=model,
                flags=flags,
                version=item.version,
                env=item.env,
                gpus=visible_gpus(item.env, hint) if visible else hint,
                groups=groups,
                order=order,
                notes=extra_notes,
                aliases=aliases,
            )
        )
    return found


def visible_gpus(env: Mapping[str, Word], hint: GpuHint) -> GpuHint:
    """Narrow what a container is given by the variables that hide GPUs from a process."""
    for name in VISIBLE:
        word = env.get(name)
        if word is None or hint.exclusive:
            continue
        value = word.text.strip()
        if not word.known or word.defaulted:
            hint = _replace(hint, chosen_elsewhere=True)
        if value in ("", "all") or not word.known:
            continue
        if value in ("-1", "none", "void", "NoDevFiles"):
            return _replace(hint, count=0, indices=(), cpu=True)
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if all(part.isdigit() for part in parts):
            numbers = tuple(int(part) for part in parts)
            # CUDA's numbers count among those the runtime lets in.
            mapped = name != VISIBLE[0] and hint.indices and max(numbers) < len(hint.indices)
            indices = tuple(hint.indices[number] for number in numbers) if mapped else numbers
            hint = _replace(hint, count=len(indices), indices=indices)
        else:
            hint = _replace(hint, count=len(parts), indices=())
    return hint


def _replace(hint: GpuHint, **changes: object) -> GpuHint:
    from dataclasses import replace

    return replace(hint, **changes)  # type: ignore[arg-type]


def environment(value: Value) -> dict[str, Word]:
    """Read ``env``: a list of name and value, or a mapping. What comes from elsewhere is undefined."""
    found: dict[str, Word] = {}
    for item in listing(value):
        entry = table(item)
        name = text(entry.get("name"))
        if name is None:
            continue
        given = entry.get("value")
        if isinstance(given, str):
            found[name] = Word(str(given), given.line)
        elif "valueFrom" in entry:
            found[name] = Word(f"${name}", name.line, (str(name),))
        else:
            found[name] = Word("", name.line)
    for key, given in table(value).items():
        if isinstance(given, str):
            found[str(key)] = Word(str(given), given.line)
        elif isinstance(given, Table):
            inner = given.get("value")
            found[str(key)] = (
                Word(str(inner), inner.line)
                if isinstance(inner, str)
                else Word(f"${key}", given.line, (str(key),))
            )
        elif given is None:
            found[str(key)] = Word("")
    return found


def whole_number(value: Value) -> int | None:
    """Read a count, None where it is not there or not a plain number."""
    word = text(value)
    return int(word) if word is not None and word.strip().isdigit() and len(word) < 10 else None


def resource_gpus(resources: Value) -> tuple[int | None, str, int]:
    """Return (count, MIG profile, line) from a container's ``resources``."""
    for kind in ("limits", "requests"):
        for key, value in table(table(resources).get(kind)).items():
            line = key.line if hasattr(key, "line") else 0
            if key in RESOURCES:
                return whole_number(value), "", line
            sliced = MIG_RESOURCE.fullmatch(key)
            if sliced:
                return whole_number(value), sliced.group(1), line
    return None, "", 0


def node_gpu(*places: Value) -> tuple[tuple[str, ...], int]:
    """Return (GPU names, line) from node selectors and affinities, empty where none names a GPU."""
    for place in places:
        selectors = [table(place).get("nodeSelector"), place]
        for selector in selectors:
            for key, value in table(selector).items():
                named = text(value)
                if named is None:
                    continue
                if key in LABELS and not named.isdigit() and named not in ("true", "false", "nvidia", "gpu"):
                    return (str(named),), named.line
                if key in INSTANCE_LABELS and of_instance(named):
                    return (of_instance(named),), named.line
        names, line = _affinity(place)
        if names:
            return names, line
    return (), 0


def _affinity(place: Value) -> tuple[tuple[str, ...], int]:
    required = table(
        table(table(table(place).get("affinity")).get("nodeAffinity")).get(
            "requiredDuringSchedulingIgnoredDuringExecution"
        )
    )
    for term in listing(required.get("nodeSelectorTerms")):
        for expression in listing(table(term).get("matchExpressions")):
            rule = table(expression)
            key, operator = text(rule.get("key")), text(rule.get("operator"))
            values = [value for value in listing(rule.get("values")) if isinstance(value, str)]
            if operator == "In" and values and key in LABELS:
                return tuple(str(value) for value in values), values[0].line
            if operator == "In" and values and key in INSTANCE_LABELS:
                gpus = tuple(dict.fromkeys(of_instance(value) for value in values))
                if all(gpus):
                    return gpus, values[0].line
    return (), 0
