"""YAML that keeps its line numbers: every document as mappings, sequences and texts, nothing else.

The parser's events are folded with a stack, so nothing recurses, no tag is obeyed and no scalar is
turned into a number or a date: a flag's value is the text that somebody wrote. Aliases share one
value; how large a document would be with all of them written out is counted while it is read, so
that an alias bomb is refused, as is a document that contains itself.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import yaml

from kvplan.errors import UnreadableDeployment

MAX_YAML_BYTES = 4 * 1024**2
MAX_DEPTH = 64
MAX_VALUES = 200_000
LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NULLS = ("", "~", "null", "Null", "NULL")


class Text(str):
    """A scalar: the text, its first line, and the lines its later parts stand on."""

    line: int = 0
    spans: tuple[tuple[int, int], ...] = ()

    def line_at(self, offset: int) -> int:
        """Return the line on which the character at ``offset`` stands."""
        index = bisect_right(self.spans, (offset, 1 << 60)) - 1
        return self.spans[index][1] if index >= 0 else self.line


class Listing(list["Value"]):
    """A sequence and its first line."""

    line: int = 0


class Table(dict[str, "Value"]):
    """A mapping with text keys, its first line; keys are Text and carry theirs."""

    line: int = 0

    def key_line(self, name: str) -> int:
        """Return the line of a key, or of the mapping."""
        for key in self:
            if key == name and isinstance(key, Text):
                return key.line
        return self.line


Value = Text | Table | Listing | None


def table(value: Value) -> Table:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, Table) else Table()


def listing(value: Value) -> Listing:
    """Return the value if it is a sequence, else an empty one."""
    return value if isinstance(value, Listing) else Listing()


def text(value: Value) -> Text | None:
    """Return the value if it is a text that is not empty, else None."""
    return value if isinstance(value, Text) and value.strip() else None


def dig(value: Value, *path: str) -> Value:
    """Return what lies at a path of keys, None where a step is missing."""
    for key in path:
        value = table(value).get(key)
    return value


def is_true(value: Value, *, default: bool = False) -> bool:
    """Read a YAML truth value, as 1.1 and 1.2 spell it."""
    if not isinstance(value, Text):
        return default
    return value.casefold() in ("true", "yes", "on", "1")


@dataclass(slots=True)
class _Open:
    """A collection being read: its value, the key that waits, its anchor, and its written-out size."""

    value: Table | Listing
    anchor: str | None
    key: Text | None = None
    merges: list[Value] = field(default_factory=list)
    size: int = 1


def load_documents(source: str, origin: str) -> list[Value]:
    """Return the documents of a YAML text.

    Raises UnreadableDeployment, with the line, for text that is too large, too deep, a bomb, or no
    YAML.
    """
    if len(source) > MAX_YAML_BYTES:
        raise UnreadableDeployment(origin, 0, f"larger than {MAX_YAML_BYTES // 1024**2} MiB")
    try:
        return _Reader(source, origin).documents()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        raise UnreadableDeployment(origin, mark.line + 1 if mark else 0, str(problem)) from None
    except (ValueError, RecursionError) as error:
        raise UnreadableDeployment(origin, 0, f"not YAML: {error}") from None


class _Reader:
    def __init__(self, source: str, origin: str) -> None:
        self.source = source
        self.lines = source.splitlines()
        self.origin = origin
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Value, int]] = {}
        self.found: list[Value] = []

    def documents(self) -> list[Value]:
        for event in yaml.parse(self.source, Loader=LOADER):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors.clear()
            elif isinstance(event, yaml.ScalarEvent):
                self._add(self._scalar(event, line), 1, event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(str(event.anchor), line)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event, line)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = self.stack.pop()
                _merge(done)
                self._add(done.value, done.size, done.anchor)
        return self.found

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise UnreadableDeployment(self.origin, line, f"nested more than {MAX_DEPTH} deep")
        value: Table | Listing = Table() if isinstance(event, yaml.MappingStartEvent) else Listing()
        value.line = line
        if event.anchor:
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Open(value, event.anchor))

    def _alias(self, name: str, line: int) -> None:
        if any(open_.anchor == name for open_ in self.stack):
            raise UnreadableDeployment(self.origin, line, f"*{name} contains itself")
        if name not in self.anchors:
            raise UnreadableDeployment(self.origin, line, f"*{name} is not defined")
        value, size = self.anchors[name]
        self._add(value, size, None)

    def _add(self, value: Value, size: int, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = (value, size)
        if not self.stack:
            self.found.append(value)
            return
        parent = self.stack[-1]
        parent.size += size
        if parent.size > MAX_VALUES:
            raise UnreadableDeployment(
                self.origin, parent.value.line, f"more than {MAX_VALUES:,} values, aliases written out"
            )
        if isinstance(parent.value, Listing):
            parent.value.append(value)
        elif parent.key is None:
            # A mapping's key may be anything; only texts can be meant here.
            parent.key = value if isinstance(value, Text) else Text("" if value is None else "?")
        else:
            if parent.key == "<<":
                parent.merges.append(value)
            else:
                parent.value[parent.key] = value
            parent.key = None

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Text | None:
        inside_key = (
            bool(self.stack) and isinstance(self.stack[-1].value, Table) and self.stack[-1].key is None
        )
        if not event.style and event.value in NULLS and not inside_key:
            return None
        scalar = Text(event.value)
        scalar.line = line
        last = event.end_mark.line if event.end_mark else line
        if last >= line:
            scalar.spans = self._spans(event.value, event.style, line, last + 1)
        return scalar

    def _spans(self, value: str, style: str | None, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """Return (offset, line) for each source line of a scalar that has several."""
        spans: list[tuple[int, int]] = []
        offset = 0
        block = style in ("|", ">")
        for number in range(first + 1 if block else first, min(last, len(self.lines)) + 1):
            piece = self.lines[number - 1].strip()
            if number == first and not block:
                spans.append((0, number))
                continue
            at = value.find(piece.strip("'\""), offset) if piece else -1
            if at >= 0:
                spans.append((at, number))
                offset = at + len(piece)
        return tuple(spans)


def _merge(done: _Open) -> None:
    """Apply ``<<``: keys that are not there yet, the first of several mappings winning."""
    if not isinstance(done.value, Table):
        return
    for merged in done.merges:
        for source in merged if isinstance(merged, Listing) else (merged,):
            for key, value in table(source).items():
                done.value.setdefault(key, value)
