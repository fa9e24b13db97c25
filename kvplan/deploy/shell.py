"""Which commands a shell script would run, with which words. Nothing is executed.

The script is followed as far as its own text allows: variables, arrays, defaults, functions, sums,
``case`` and ``[ … ]`` whose words are known. Where a condition cannot be known both ways are taken,
and a variable that they leave different counts as undefined.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from kvplan.deploy.shell_lexer import LineOf, Part, ShellError, Token
from kvplan.deploy.shell_scope import Scope
from kvplan.deploy.shell_syntax import Case, Function, If, Loop, Node, Script, Simple, parse
from kvplan.deploy.shell_tests import Truth, test_of
from kvplan.deploy.words import Word, joined
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
    return ScriptRun(tuple(follower.commands), follower.scope.flat())


class _Ended(Exception):
    """The script exits here."""


class _Follower:
    def __init__(self, variables: Mapping[str, Word], arguments: Sequence[Word] | None) -> None:
        self.scope = Scope(variables, arguments)
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
        word = self.scope.whole(node.word)
        possible: list[Script] = []
        for patterns, body in node.branches:
            if word.known:
                if any(fnmatchcase(word.text, self.scope.whole(pattern).text) for pattern in patterns):
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
        before, was_certain = dict(self.scope.variables), self.certain
        ends: list[dict[str, tuple[Word, ...]]] = []
        self.certain = False
        for body in bodies:
            self.scope.variables = dict(before)
            self.run(body)
            ends.append(self.scope.variables)
        self.certain = was_certain
        self.scope.variables = {
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
            words = self.scope.words(node.words)
            if all(word.known for word in words):
                rounds = words[:MAX_ROUNDS]
        else:
            self.certain = False
        for word in rounds:
            if node.name:
                self.scope.variables[node.name] = (word,)
            self.run(node.body)
        self.certain = was_certain
        return None

    # Commands

    def _simple(self, node: Simple) -> Truth:
        for token, elements in node.arrays:
            name = token.text.rstrip("=").rstrip("+")
            earlier = self.scope.variables.get(name, ()) if token.text.endswith("+=") else ()
            self.scope.variables[name] = (*earlier, *self.scope.words(elements))
        words = list(node.words)
        if words and words[0].is_word("!"):
            status = self._simple(Simple(tuple(words[1:])))
            return None if status is None else not status
        own: dict[str, Word] = {}
        while words and (assigned := _assignment(words[0])):
            self._assign(assigned, words.pop(0), own)
        if not words:
            for name, word in own.items():
                self.scope.variables[name] = (word,)
            return True
        if words[0].is_word(*TESTS):
            return test_of(words, self.scope.words(words))
        return self._command(self.scope.words(words), own, words)

    def _command(self, words: list[Word], own: dict[str, Word], written: Sequence[Token]) -> Truth:
        if not words:
            return True
        name = words[0].text
        if name in DECLARING:
            for token in written[1:]:
                if assigned := _assignment(token):
                    kept: dict[str, Word] = {}
                    self._assign(assigned, token, kept)
                    self.scope.variables.update({key: (word,) for key, word in kept.items()})
            return True
        if name == "set" and len(words) > 1 and words[1].text == "--":
            self.scope.arguments = words[2:]
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
        env = self.scope.flat() | own
        self.commands.append(Command(tuple(words), tuple(env.items())))
        if name == "exec" and len(words) > 1 and self.certain:
            raise _Ended
        return None

    def _call(self, name: str, arguments: list[Word]) -> Truth:
        outer, self.scope.arguments = self.scope.arguments, arguments
        self.calls += 1
        status = self.run(self.functions[name])
        self.calls -= 1
        self.scope.arguments = outer
        return status

    def _assign(self, assigned: tuple[str, bool, Token], _: Token, into: dict[str, Word]) -> None:
        name, appended, value = assigned
        word = self.scope.whole(value)
        if appended:
            word = self.scope.append(name, word)
        into[name] = word


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
