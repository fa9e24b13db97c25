"""A command written as one text, cut into words as Compose and the container runtimes do: no shell."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from kvplan.deploy.parameters import expand, lookup_in, parameter_end
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word, joined
from kvplan.deploy.yaml_values import Text

LineOf = Callable[[int], int]


def always(line: int) -> LineOf:
    """Return a LineOf for a text whose lines are not known any more."""
    return lambda _offset: line


def split_words(text: str, line_of: LineOf) -> list[Word]:
    """Cut a text at its blanks, quotes respected and removed. Raises ShellError for an open quote."""
    words: list[Word] = []
    for start, chunk in _chunks(text, line_of):
        plain = _unquoted(chunk)
        words.append(Word(plain, line_of(start)))
    return words


def interpolated_words(text: Text, variables: Mapping[str, Word]) -> list[Word]:
    """Cut a Compose command into words: its variables are replaced first, as Compose does.

    A variable whose value has blanks falls apart into several words.
    """
    found: list[Word] = []
    for start, chunk in _chunks(text, text.line_at):
        value = expand(chunk, lookup_in(variables), escape="$$")
        line = text.line_at(start)
        if value.undefined:
            found.append(Word(_unquoted(value.text), line, value.undefined))
            continue
        found += [
            Word(word.text, line, (), value.defaulted) for word in split_words(value.text, always(line))
        ]
    return found


def interpolated(text: Text, variables: Mapping[str, Word], escape: str = "$$") -> Word:
    """Return a whole text with its variables replaced, and the lines of its parts kept."""
    lookup = lookup_in(variables)
    return piecewise(text, lambda piece: expand(piece, lookup, escape=escape))


def piecewise(text: Text, change: Callable[[str], Word]) -> Word:
    """Return a text changed line by line, so that it is still known where each part stood."""
    bounds = [offset for offset, _ in text.spans] or [0]
    if bounds[0] != 0:
        bounds.insert(0, 0)
    raw = [text[start:end] for start, end in zip(bounds, [*bounds[1:], len(text)], strict=True)]
    if any(_opens(piece) for piece in raw):
        # A parameter that spans lines: replaced as a whole, its lines are lost.
        return replace(change(text), line=text.line)
    spans: list[tuple[int, int]] = []
    pieces: list[Word] = []
    length = 0
    for start, piece in zip(bounds, raw, strict=True):
        spans.append((length, text.line_at(start)))
        pieces.append(change(piece))
        length += len(pieces[-1].text)
    merged = joined(pieces, "")
    return replace(merged, line=text.line, spans=tuple(spans) if text.spans else ())


def _opens(text: str) -> bool:
    at = text.find("${")
    while at >= 0:
        end = parameter_end(text, at)
        if end < 0:
            return True
        at = text.find("${", end)
    return False


def _chunks(text: str, line_of: LineOf) -> list[tuple[int, str]]:
    """Return (offset, raw text) of each word, its quotes still there."""
    chunks: list[tuple[int, str]] = []
    index, start, quote = 0, -1, ""
    while index < len(text):
        char = text[index]
        if quote:
            if char == "\\" and quote == '"':
                index += 1
            elif char == quote:
                quote = ""
        elif text.startswith("${", index) and parameter_end(text, index) > 0:
            start = index if start < 0 else start
            index = parameter_end(text, index) - 1
        elif char.isspace():
            if start >= 0:
                chunks.append((start, text[start:index]))
                start = -1
        elif char == "\\" and text[index + 1 : index + 2] == "\n":
            index += 1
        else:
            start = index if start < 0 else start
            if char in "'\"":
                quote = char
            elif char == "\\":
                index += 1
        index += 1
    if quote:
        name = "single quote (')" if quote == "'" else 'double quote (")'
        raise ShellError(f"a {name} is never closed", line_of(max(0, start)))
    if start >= 0:
        chunks.append((start, text[start:]))
    return chunks


def _unquoted(chunk: str) -> str:
    plain: list[str] = []
    index, quote = 0, ""
    while index < len(chunk):
        char = chunk[index]
        if quote == "'":
            if char == "'":
                quote = ""
            else:
                plain.append(char)
        elif char == "\\" and index + 1 < len(chunk):
            following = chunk[index + 1]
            if quote and following not in '"\\$`\n':
                plain.append(char)
            plain.append("" if following == "\n" else following)
            index += 1
        elif quote == '"' and char == '"':
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            plain.append(char)
        index += 1
    return "".join(plain)
