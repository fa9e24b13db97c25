"""A shell script as statements: commands, conditions, loops, functions. Nothing is expanded here.

Of the shell's grammar this reads what decides which engine is started with which words; the rest
(redirections, here-documents, background marks) is skipped.
"""

from typing import Union

from kvplan.deploy.shell_lexer import LineOf, ShellError, Token, tokens
from kvplan.frozen import dataclass

MAX_DEPTH = 40
REDIRECTIONS = (">", ">>", "<", "<<", "<<-", "<<<", ">&", "<&", "&>", ">|", "<>")
SEPARATORS = (";", "&", "|", "|&")


@dataclass(frozen=True, slots=True)
class Simple:
    """A command's words, with an array's elements kept apart: ``(name token, elements)``."""

    words: tuple[Token, ...]
    arrays: tuple[tuple[Token, tuple[Token, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class If:
    """Conditions with their bodies, and what else."""

    branches: tuple[tuple["Script", "Script"], ...]
    otherwise: "Script"


@dataclass(frozen=True, slots=True)
class Case:
    """A word and the patterns it is held against."""

    word: Token
    branches: tuple[tuple[tuple[Token, ...], "Script"], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """``for NAME in words`` or, without a name, ``while`` and ``until``."""

    name: str
    words: tuple[Token, ...]
    body: "Script"


@dataclass(frozen=True, slots=True)
class Function:
    """A named body."""

    name: str
    body: "Script"


# A statement and the operator before it ("", "&&" or "||"); a tuple of them is a group.
Node = Union[Simple, If, Case, Loop, Function, "Script"]
Script = tuple[tuple[str, Node], ...]


def parse(source: str, line_of: LineOf) -> Script:
    """Read a script. Raises ShellError for quotes and brackets that do not close."""
    return _Parser(tokens(source, line_of)).script(())


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self.tokens = found
        self.at = 0
        self.depth = 0

    @property
    def now(self) -> Token:
        return self._peek(0)

    def _at_end(self) -> bool:
        return self.now.kind == "end"

    def script(self, ends: tuple[str, ...]) -> Script:
        """Read statements up to one of the words or operators in ``ends``, which stays."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ShellError(f"nested more than {MAX_DEPTH} deep", self.now.line)
        statements: list[tuple[str, Node]] = []
        operator = ""
        while not self._at_end() and not self.now.is_word(*ends) and not self.now.is_operator(*ends):
            if self.now.kind == "newline":
                self.at += 1
            elif self.now.is_operator("&&", "||"):
                operator = self.now.text
                self.at += 1
            elif self.now.is_operator(*SEPARATORS):
                operator = ""
                self.at += 1
            elif self.now.kind == "operator" and not self.now.is_operator("("):
                # A stray operator (a case's ;; without its case, a lone bracket) ends nothing here.
                self.at += 1
            else:
                statements.append((operator, self._statement()))
                operator = ""
        self.depth -= 1
        return tuple(statements)

    def _statement(self) -> Node:
        now = self.now
        if now.is_word("if"):
            return self._if()
        if now.is_word("case"):
            return self._case()
        if now.is_word("for", "select"):
            return self._for()
        if now.is_word("while", "until"):
            self.at += 1
            self.script(("do",))
            return Loop("", (), self._body())
        if now.is_word("{"):
            self.at += 1
            inner = self.script(("}",))
            self.at += 1
            return inner
        if now.is_operator("("):
            self.at += 1
            inner = self.script((")",))
            self.at += 1
            return inner
        if now.is_word("function"):
            self.at += 1
            return self._function()
        called = self._peek(1).is_operator("(") and self._peek(2).is_operator(")")
        if now.kind == "word" and called and not now.text.endswith("="):
            return self._function()
        return self._simple()

    def _peek(self, ahead: int) -> Token:
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def _skip_newlines(self) -> None:
        while self.now.kind == "newline":
            self.at += 1

    def _body(self) -> Script:
        if self.now.is_word("do"):
            self.at += 1
        body = self.script(("done",))
        self.at += 1
        return body

    def _if(self) -> If:
        branches: list[tuple[Script, Script]] = []
        otherwise: Script = ()
        while self.now.is_word("if", "elif"):
            self.at += 1
            condition = self.script(("then",))
            self.at += 1
            branches.append((condition, self.script(("elif", "else", "fi"))))
        if self.now.is_word("else"):
            self.at += 1
            otherwise = self.script(("fi",))
        self.at += 1
        return If(tuple(branches), otherwise)

    def _case(self) -> Case:
        self.at += 1
        word = self.now
        self.at += 1
        self._skip_newlines()
        if self.now.is_word("in"):
            self.at += 1
        branches: list[tuple[tuple[Token, ...], Script]] = []
        while not self._at_end() and not self.now.is_word("esac"):
            self._skip_newlines()
            if self.now.is_word("esac"):
                break
            patterns: list[Token] = []
            while not self._at_end() and not self.now.is_operator(")"):
                if self.now.kind == "word":
                    patterns.append(self.now)
                self.at += 1
            self.at += 1
            body = self.script((";;", ";;&", ";&", "esac"))
            if self.now.kind == "operator":
                self.at += 1
            branches.append((tuple(patterns), body))
            self._skip_newlines()
        self.at += 1
        return Case(word, tuple(branches))

    def _for(self) -> Loop:
        self.at += 1
        name = self.now.text if self.now.kind == "word" else ""
        words: list[Token] = []
        while self.now.kind not in ("end", "newline") and not self.now.is_operator(";"):
            self.at += 1
            if self.now.kind == "word" and not self.now.is_word("in", "do"):
                words.append(self.now)
            if self.now.is_word("do"):
                break
        while self.now.kind == "newline" or self.now.is_operator(";"):
            self.at += 1
        return Loop(name, tuple(words), self._body())

    def _function(self) -> Function:
        name = self.now.text
        self.at += 1
        while self.now.is_operator("(", ")"):
            self.at += 1
        self._skip_newlines()
        body = () if self._at_end() else self._statement()
        return Function(name, body if isinstance(body, tuple) else (("", body),))

    def _simple(self) -> Simple:
        words: list[Token] = []
        arrays: list[tuple[Token, tuple[Token, ...]]] = []
        closing = "]]" if self.now.is_word("[[") else ""
        while not self._at_end():
            now = self.now
            if closing:
                self.at += 1
                if now.kind in ("word", "operator"):
                    words.append(now)
                if now.is_word("]]") or now.kind == "newline":
                    break
                continue
            if now.is_operator(*REDIRECTIONS):
                self.at += 2 if self._peek(1).kind == "word" else 1
                continue
            if now.is_operator("(") and words and words[-1].text.endswith("="):
                arrays.append((words.pop(), self._array()))
                continue
            if now.kind != "word":
                break
            words.append(now)
            self.at += 1
        return Simple(tuple(words), tuple(arrays))

    def _array(self) -> tuple[Token, ...]:
        self.at += 1
        elements: list[Token] = []
        while not self._at_end() and not self.now.is_operator(")"):
            if self.now.kind == "word":
                elements.append(self.now)
            self.at += 1
        self.at += 1
        return tuple(elements)
