"""A shell script as tokens: words made of parts, operators, line ends. Nothing is expanded here."""

from collections.abc import Callable
from typing import Literal

from kvplan.frozen import dataclass

PartKind = Literal["text", "parameter", "substitution", "arithmetic"]
OPERATORS = ("&&", "||", ";;&", ";;", ";&", "|&", "<<<", "<<-", "<<", ">>", ">&", "<&", "&>", ">|", "<>")
SINGLE = "&|;<>()"
LineOf = Callable[[int], int]


class ShellError(Exception):
    """A script that cannot be read: what is wrong, and on which line."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a word: text as it stands, or something to expand; quoted ones are never split."""

    kind: PartKind
    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A word (its parts), an operator, a line end, or the end."""

    kind: Literal["word", "operator", "newline", "end"]
    text: str
    line: int
    parts: tuple[Part, ...] = ()

    def is_word(self, *texts: str) -> bool:
        """Tell whether this is one of these words, unquoted."""
        return self.kind == "word" and self.text in texts and all(not part.quoted for part in self.parts)

    def is_operator(self, *texts: str) -> bool:
        """Tell whether this is one of these operators."""
        return self.kind == "operator" and self.text in texts


def tokens(source: str, line_of: LineOf) -> list[Token]:
    """Cut a script into tokens. Raises ShellError for a quote or bracket that never closes."""
    return _Lexer(source, line_of).run()


class _Lexer:
    def __init__(self, source: str, line_of: LineOf) -> None:
        self.source = source
        self.line_of = line_of
        self.at = 0
        self.found: list[Token] = []
        self.heredocs: list[tuple[str, bool]] = []
        self.word_end = -1

    def run(self) -> list[Token]:
        source = self.source
        while self.at < len(source):
            char = source[self.at]
            if char == "\n":
                self._put("newline", "\n", 1)
                self._skip_heredocs()
            elif char in " \t\r":
                self.at += 1
            elif source.startswith(("\\\n", "\\\r\n"), self.at):
                self.at = source.index("\n", self.at) + 1
            elif char == "#":
                end = source.find("\n", self.at)
                self.at = len(source) if end < 0 else end
            elif char in SINGLE or source.startswith("&>", self.at):
                self._operator()
            else:
                self._word()
        self.found.append(Token("end", "", self.line_of(len(source))))
        return self.found

    def _put(self, kind: Literal["operator", "newline"], text: str, length: int) -> None:
        self.found.append(Token(kind, text, self.line_of(self.at)))
        self.at += length

    def _operator(self) -> None:
        text = next((op for op in OPERATORS if self.source.startswith(op, self.at)), self.source[self.at])
        if text[0] in "<>" and self.at == self.word_end and self.found[-1].text.isdigit():
            # 2>file: the digit belongs to the redirection.
            self.found.pop()
        self._put("operator", text, len(text))
        if text in ("<<", "<<-"):
            self._heredoc(strip=text == "<<-")

    def _heredoc(self, *, strip: bool) -> None:
        rest = self.source[self.at :].split("\n", 1)[0].lstrip()
        word = rest.split()[0].strip("'\"\\;)") if rest.split() else ""
        if word:
            self.heredocs.append((word, strip))

    def _skip_heredocs(self) -> None:
        for word, strip in self.heredocs:
            while self.at < len(self.source):
                end = self.source.find("\n", self.at)
                end = len(self.source) if end < 0 else end
                line = self.source[self.at : end]
                self.at = end + 1
                if (line.strip() if strip else line.rstrip("\r")) == word:
                    break
        self.heredocs.clear()

    def _word(self) -> None:
        start, parts, source = self.at, [], self.source
        plain: list[str] = []

        def flush() -> None:
            if plain:
                parts.append(Part("text", "".join(plain)))
                plain.clear()

        while self.at < len(source):
            char = source[self.at]
            if char == "(" and plain and plain[-1] == "=" and not parts:
                # NAME=( … ): an array, kept as an operator that the parser meets next.
                break
            if char in " \t\r\n" or char in SINGLE:
                break
            if char == "\\":
                if source.startswith(("\\\n", "\\\r\n"), self.at):
                    self.at = source.index("\n", self.at) + 1
                    continue
                flush()
                parts.append(Part("text", source[self.at + 1 : self.at + 2], quoted=True))
                self.at += 2
            elif char == "'":
                flush()
                end = self._closing("'", self.at + 1, start)
                parts.append(Part("text", source[self.at + 1 : end], quoted=True))
                self.at = end + 1
            elif char == '"':
                flush()
                self.at += 1
                parts += self._double_quoted(start)
            elif char in "$`":
                flush()
                parts.append(self._dollar(quoted=False, start=start))
            else:
                plain.append(char)
                self.at += 1
        flush()
        self.word_end = self.at
        self.found.append(Token("word", source[start : self.at], self.line_of(start), tuple(parts)))

    def _double_quoted(self, start: int) -> list[Part]:
        source, parts, plain = self.source, [Part("text", "", quoted=True)], []
        while True:
            if self.at >= len(source):
                raise ShellError('a double quote (") is never closed', self.line_of(start))
            char = source[self.at]
            if char == '"':
                self.at += 1
                break
            if char == "\\" and source[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`", "\n"):
                escaped = source[self.at + 1]
                plain.append("" if escaped == "\n" else escaped)
                self.at += 2
            elif char in "$`":
                parts.append(Part("text", "".join(plain), quoted=True))
                plain.clear()
                parts.append(self._dollar(quoted=True, start=start))
            else:
                plain.append(char)
                self.at += 1
        parts.append(Part("text", "".join(plain), quoted=True))
        return parts

    def _dollar(self, *, quoted: bool, start: int) -> Part:
        source = self.source
        if source[self.at] == "`":
            end = self._closing("`", self.at + 1, start)
            body, self.at = source[self.at + 1 : end], end + 1
            return Part("substitution", body, quoted)
        if source.startswith("$((", self.at):
            end = self._bracket(self.at + 1, "(", ")", start)
            body, self.at = source[self.at + 3 : end - 2], end
            return Part("arithmetic", body, quoted)
        if source.startswith("$(", self.at):
            end = self._bracket(self.at + 1, "(", ")", start)
            body, self.at = source[self.at + 2 : end - 1], end
            return Part("substitution", body, quoted)
        if source.startswith("${", self.at):
            end = self._bracket(self.at + 1, "{", "}", start)
            body, self.at = source[self.at + 2 : end - 1], end
            return Part("parameter", body, quoted)
        if source.startswith("$'", self.at):
            end = self._closing("'", self.at + 2, start)
            body, self.at = source[self.at + 2 : end], end + 1
            return Part("text", body, quoted=True)
        end = self.at + 1
        if end < len(source) and (source[end] in "@*#?!$-" or source[end].isdigit()):
            end += 1
        else:
            while end < len(source) and (source[end].isalnum() or source[end] == "_"):
                end += 1
        name, self.at = source[self.at + 1 : end], end
        return Part("parameter", name, quoted) if name else Part("text", "$", quoted)

    def _closing(self, quote: str, start: int, word_start: int) -> int:
        end = self.source.find(quote, start)
        if end < 0:
            name = "single quote (')" if quote == "'" else "backquote (`)"
            raise ShellError(f"a {name} is never closed", self.line_of(word_start))
        return end

    def _bracket(self, start: int, opening: str, closing: str, word_start: int) -> int:
        """Return the index behind the bracket that closes the one at ``start``, quotes respected."""
        depth, index, source = 0, start, self.source
        while index < len(source):
            char = source[index]
            if char == "\\":
                index += 1
            elif char == "'" and opening == "(":
                index = self._closing("'", index + 1, word_start)
            elif char == opening:
                depth += 1
            elif char == closing:
                depth -= 1
                if depth == 0:
                    return index + 1
            index += 1
        raise ShellError(f"'{opening}' is never closed", self.line_of(word_start))
