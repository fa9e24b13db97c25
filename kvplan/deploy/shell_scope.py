"""A script's variables and arguments, and what its written words come to with them."""

import re
from collections.abc import Iterable, Mapping, Sequence

from kvplan.deploy.parameters import MAX_TEXT, arithmetic, expand, parameter
from kvplan.deploy.shell_lexer import Part, Token
from kvplan.deploy.words import Word, at_line, joined


class Scope:
    """The variables of a running script, each a tuple of words: one for a plain value, any for an array.

    ``arguments`` are its ``$1`` and on, None where they are not known.
    """

    def __init__(self, variables: Mapping[str, Word], arguments: Sequence[Word] | None) -> None:
        self.variables: dict[str, tuple[Word, ...]] = {name: (word,) for name, word in variables.items()}
        self.arguments = arguments

    def flat(self) -> dict[str, Word]:
        """Return every variable as one word."""
        return {name: joined(value) for name, value in self.variables.items()}

    def append(self, name: str, word: Word) -> Word:
        """Return what ``NAME+=word`` makes of a variable."""
        return bounded(joined([*self.variables.get(name, ()), word], ""))

    def _lookup(self, name: str) -> Word | None:
        if name.isdigit() and name != "0":
            if self.arguments is None:
                return None
            position = int(name) - 1
            return self.arguments[position] if position < len(self.arguments) else Word("")
        if name == "#":
            return None if self.arguments is None else Word(str(len(self.arguments)))
        found = self.variables.get(name)
        return None if found is None else joined(found)

    def _set(self, name: str, word: Word) -> None:
        self.variables[name] = (word,)

    def words(self, written: Iterable[Token]) -> list[Word]:
        """Return the words that written ones fall apart into."""
        return [word for token in written for word in self._split(token)]

    def whole(self, token: Token) -> Word:
        """Return a written word as one, blanks and all."""
        return bounded(at_line(joined((self._part(part) for part in token.parts), ""), token.line))

    def _split(self, token: Token) -> list[Word]:
        """Expand one written word: quoted parts stay whole, unquoted expansions fall apart at blanks."""
        several = self._all_of(token)
        if several is not None:
            return several
        pieces: list[list[Word]] = [[]]
        for part in token.parts:
            value = self._part(part)
            if part.quoted or part.kind == "text" or value.undefined:
                pieces[-1].append(value)
                continue
            fields = value.text.split()
            if value.text[:1].isspace() and pieces[-1]:
                pieces.append([])
            for number, field in enumerate(fields):
                if number:
                    pieces.append([])
                pieces[-1].append(Word(field, token.line, (), value.defaulted))
            if value.text[-1:].isspace() and fields:
                pieces.append([])
        quoted = any(part.quoted for part in token.parts)
        return [
            at_line(joined(piece, ""), token.line)
            for piece in pieces
            if piece and (quoted or joined(piece, "").text or joined(piece, "").undefined)
        ]

    def _all_of(self, token: Token) -> list[Word] | None:
        """Expand ``"$@"`` and ``"${NAME[@]}"``, alone in their word, to their own words."""
        live = [part for part in token.parts if part.kind != "text" or part.text]
        if len(live) != 1 or live[0].kind != "parameter":
            return None
        body = live[0].text
        if body in ("@", "*"):
            if self.arguments is None:
                return [Word("$@", token.line, ("the script's arguments",))]
            return list(self.arguments)
        name, bracket, rest = body.partition("[")
        if bracket and rest in ("@]", "*]"):
            return [at_line(word, token.line) for word in self.variables.get(name, ())]
        return None

    def _part(self, part: Part) -> Word:
        if part.kind == "text":
            return Word(part.text)
        if part.kind == "parameter":
            return self._element(part.text) or parameter(part.text, self._lookup, self._set)
        if part.kind == "arithmetic":
            written = _plain_names(part.text)
            value = expand(written, self._lookup)
            number = arithmetic(value.text) if value.known else None
            if number is not None:
                return Word(str(number))
            return Word(f"$(({part.text}))", undefined=value.undefined or (part.text.strip()[:40],))
        return Word(f"$({part.text})", undefined=(f"$({part.text[:40]})",))

    def _element(self, body: str) -> Word | None:
        """Return one element of an array that is known: ``${NAME[1]}``, ``${NAME[$i]}``."""
        name, bracket, rest = body.partition("[")
        if not bracket or not rest.endswith("]") or name not in self.variables:
            return None
        index = expand(_plain_names(rest[:-1]), self._lookup)
        number = arithmetic(index.text) if index.known else None
        elements = self.variables[name]
        return elements[number] if number is not None and 0 <= number < len(elements) else None


def bounded(word: Word) -> Word:
    """Give up on a value that grows without end."""
    return word if len(word.text) <= MAX_TEXT else Word("", word.line, ("a value that is too long",))


def _plain_names(text: str) -> str:
    """Write the bare names of a sum as parameters: ``A * $B`` is ``${A} * $B``."""
    return re.sub(r"(?<![\w${])([A-Za-z_]\w*)", r"${\1}", text)
