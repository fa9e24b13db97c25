"""Which commands a shell script would run, with which words. Nothing is executed.

The script is followed as far as its own text allows: variables, arrays, defaults, functions, sums,
``case`` and ``[ … ]`` whose words are known. Where a condition cannot be known both ways are taken,
and a variable that they leave different counts as undefined.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from kvplan.deploy.parameters import MAX_TEXT, arithmetic, expand, parameter
from kvplan.deploy.shell_lexer import LineOf, Part, ShellError, Token
from kvplan.deploy.shell_syntax import Case, Function, If, Loop, Node, Script, Simple, parse
from kvplan.deploy.shell_tests import Truth, test_of
from kvplan.deploy.words import Word, at_line, joined
from kvplan.frozen import dataclass

MAX_STEPS = 20_000
MAX_ROUNDS = 64
MAX_CALLS = 20
TESTS = ("[", "[[", "test")
DECLARING = ("export", "local", "declare", "readonly", "typeset")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that would run: its words, and the variables set in front of it."""

    words: tuple[Word, ...]
    env: tuple[tuple[str, Word], ...] = ()


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """What a script comes to: its commands in order, and the variables it leaves."""

    commands: tuple[Command, ...]
    variables: Mapping[str, Word]


def commands_of(
    source: str,
    line_of: LineOf,
    variables: Mapping[str, Word] | None = None,
    arguments: Sequence[Word] | None = None,
) -> ScriptRun:
    """Follow a script and return what it would run.

    ``arguments`` are its ``$1`` and on, None where they are not known. Raises ShellError for text that
    no shell would read, or that goes on too long.
    """
    follower = _Follower(dict(variables or {}), arguments)
    try:
        follower.run(parse(source, line_of))
    except _Ended:
        pass
    except RecursionError:
        raise ShellError("nested too deep", line_of(0)) from None
    flat = {name: joined(value) for name, value in follower.variables.items()}
    return ScriptRun(tuple(follower.commands), flat)


class _Ended(Exception):
    """The script exits here."""


class _Follower:
    def __init__(self, variables: Mapping[str, Word], arguments: Sequence[Word] | None) -> None:
        # A variable is a tuple of words: one for a plain value, any number for an array.
        self.variables: dict[str, tuple[Word, ...]] = {name: (word,) for name, word in variables.items()}
        self.arguments = arguments
        self.functions: dict[str, Script] = {}
        self.commands: list[Command] = []
        self.steps = 0
        self.calls = 0
        self.certain = True

    def run(self, script: Script) -> Truth:
        status: Truth = True
        after_test = False
        for operator, node in script:
            if operator and status is None and after_test:
                status = self._one_of([(("", node),), ()])
                continue
            # A program is taken to succeed: what follows && runs, what follows || does not.
            if (operator == "&&" and status is False) or (operator == "||" and status is not False):
                continue
            status = self._node(node)
            after_test = isinstance(node, Simple) and bool(node.words) and node.words[0].is_word(*TESTS)
        return status

    def _node(self, node: Node) -> Truth:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ShellError(f"runs more than {MAX_STEPS:,} steps", 0)
        if isinstance(node, Simple):
            return self._simple(node)
        if isinstance(node, If):
            return self._if(node)
        if isinstance(node, Case):
            return self._case(node)
        if isinstance(node, Loop):
            return self._loop(node)
        if isinstance(node, Function):
            self.functions[node.name] = node.body
            return True
        return self.run(node)

    # Conditions

    def _if(self, node: If) -> Truth:
        possible: list[Script] = []
        for condition, body in node.branches:
            verdict = self.run(condition)
            if verdict is True:
                possible.append(body)
                break
            if verdict is None:
                possible.append(body)
        else:
            possible.append(node.otherwise)
        return self._one_of(possible)

    def _case(self, node: Case) -> Truth:
        word = self._joined(node.word)
        possible: list[Script] = []
        for patterns, body in node.branches:
            if word.known:
                if any(fnmatchcase(word.text, self._joined(pattern).text) for pattern in patterns):
                    possible.append(body)
                    break
            else:
                possible.append(body)
        else:
            possible.append(())
        return self._one_of(possible)

    def _one_of(self, bodies: Sequence[Script]) -> Truth:
        """Run the body that is certain, or all that are possible, and keep what they agree on."""
        if len(bodies) == 1:
            return self.run(bodies[0])
        before, was_certain = dict(self.variables), self.certain
        ends: list[dict[str, tuple[Word, ...]]] = []
        self.certain = False
        for body in bodies:
            self.variables = dict(before)
            self.run(body)
            ends.append(self.variables)
        self.certain = was_certain
        self.variables = {
            name: ends[0].get(name, ())
            if all(end.get(name) == ends[0].get(name) for end in ends)
            else (Word(f"${name}", undefined=(name,)),)
            for name in dict.fromkeys(name for end in ends for name in end)
        }
        return None

    def _loop(self, node: Loop) -> Truth:
        was_certain = self.certain
        rounds: Iterable[Word] = (Word("", undefined=(node.name or "the loop",)),)
        if node.name and node.words:
            words = self._words(node.words)
            if all(word.known for word in words):
                rounds = words[:MAX_ROUNDS]
        else:
            self.certain = False
        for word in rounds:
            if node.name:
                self.variables[node.name] = (word,)
            self.run(node.body)
        self.certain = was_certain
        return None

    # Commands

    def _simple(self, node: Simple) -> Truth:
        for token, elements in node.arrays:
            name = token.text.rstrip("=").rstrip("+")
            earlier = self.variables.get(name, ()) if token.text.endswith("+=") else ()
            self.variables[name] = (*earlier, *self._words(elements))
        words = list(node.words)
        if words and words[0].is_word("!"):
            status = self._simple(Simple(tuple(words[1:])))
            return None if status is None else not status
        own: dict[str, Word] = {}
        while words and (assigned := _assignment(words[0])):
            self._assign(assigned, words.pop(0), own)
        if not words:
            for name, word in own.items():
                self.variables[name] = (word,)
            return True
        if words[0].is_word(*TESTS):
            return test_of(words, self._words(words))
        return self._command(self._words(words), own, words)

    def _command(self, words: list[Word], own: dict[str, Word], written: Sequence[Token]) -> Truth:
        if not words:
            return True
        name = words[0].text
        if name in DECLARING:
            for token in written[1:]:
                if assigned := _assignment(token):
                    kept: dict[str, Word] = {}
                    self._assign(assigned, token, kept)
                    self.variables.update({key: (word,) for key, word in kept.items()})
            return True
        if name == "set" and len(words) > 1 and words[1].text == "--":
            self.arguments = words[2:]
            return True
        if name in (":", "true", "false"):
            return name != "false"
        if name in ("exit", "return"):
            if self.certain:
                raise _Ended
            return None
        if name == "eval" and len(words) > 1:
            line = words[0].line
            return self.run(parse(joined(words[1:]).text, lambda _offset: line))
        if name in self.functions and self.calls < MAX_CALLS:
            return self._call(name, words[1:])
        # What was exported earlier is part of the command's environment.
        env = {key: joined(value) for key, value in self.variables.items()} | own
        self.commands.append(Command(tuple(words), tuple(env.items())))
        if name == "exec" and len(words) > 1 and self.certain:
            raise _Ended
        return None

    def _call(self, name: str, arguments: list[Word]) -> Truth:
        outer, self.arguments = self.arguments, arguments
        self.calls += 1
        status = self.run(self.functions[name])
        self.calls -= 1
        self.arguments = outer
        return status

    def _assign(self, assigned: tuple[str, bool, Token], _: Token, into: dict[str, Word]) -> None:
        name, appended, value = assigned
        word = self._joined(value)
        if appended:
            word = _bounded(joined([*self.variables.get(name, ()), word], ""))
        into[name] = word

    # Expansion

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

    def _words(self, written: Sequence[Token]) -> list[Word]:
        return [word for token in written for word in self._split(token)]

    def _joined(self, token: Token) -> Word:
        return _bounded(at_line(joined((self._part(part) for part in token.parts), ""), token.line))

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


def _bounded(word: Word) -> Word:
    """Give up on a value that grows without end."""
    return word if len(word.text) <= MAX_TEXT else Word("", word.line, ("a value that is too long",))


def _plain_names(text: str) -> str:
    """Write the bare names of a sum as parameters: ``A * $B`` is ``${A} * $B``."""
    import re

    return re.sub(r"(?<![\w${])([A-Za-z_]\w*)", r"${\1}", text)


def _assignment(token: Token) -> tuple[str, bool, Token] | None:
    """Return (name, whether appended, the value as a word) of ``NAME=…``."""
    if token.kind != "word" or not token.parts or token.parts[0].kind != "text" or token.parts[0].quoted:
        return None
    head, equals, rest = token.parts[0].text.partition("=")
    appended = head.endswith("+")
    name = head.removesuffix("+")
    if not equals or not name.isidentifier():
        return None
    parts = (Part("text", rest, quoted=True), *token.parts[1:])
    return name, appended, Token("word", "", token.line, parts)
