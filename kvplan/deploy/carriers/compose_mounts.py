"""Files that a Compose service mounts, where they are among the files given: settings and scripts."""

from collections.abc import Mapping, Sequence

from kvplan.deploy.carriers.context import Context
from kvplan.deploy.files import SourceFile
from kvplan.deploy.programs import Started, follow
from kvplan.deploy.splitting import interpolated
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Text, Value, listing, load_documents, table, text


def mounted_file(
    path: str, service: Table, context: Context, variables: Mapping[str, Word]
) -> SourceFile | None:
    """Return the file that a service finds at ``path``, None where it is not among those given."""
    for volume in listing(service.get("volumes")):
        if isinstance(volume, Text):
            source, _, rest = interpolated(volume, variables).text.partition(":")
            target = rest.partition(":")[0]
        else:
            source = str(text(table(volume).get("source")) or "")
            target = str(text(table(volume).get("target")) or "")
        inside = target.rstrip("/")
        if inside and (path == inside or path.startswith(f"{inside}/")):
            return context.file.beside(source + path[len(inside) :])
    return None


def mounted_yaml(
    path: str, service: Table, context: Context, variables: Mapping[str, Word]
) -> list[Value] | None:
    """Return the documents of a mounted file."""
    file = mounted_file(path, service, context, variables)
    return None if file is None else load_documents(file.text, file.name)


def mounted_script(
    words: Sequence[Word],
    service: Table,
    context: Context,
    variables: Mapping[str, Word],
    env: Mapping[str, Word],
) -> list[Started]:
    """Return what a mounted script starts, at the line that names it."""
    for index, word in enumerate(words[:3]):
        file = mounted_file(word.text, service, context, variables) if "/" in word.text else None
        if file is not None:
            script = Word(file.text, word.line, spans=((0, word.line),))
            return follow(script, env, words[index + 1 :])
    return []
