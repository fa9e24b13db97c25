"""``$NAME``, ``${NAME:-default}`` and their relatives, as the shell, Compose and envsubst know them.

Nothing is run and nothing is looked up outside the names given. A variable that nobody defines makes
the word undefined; one whose default is taken makes it defaulted.
"""

import ast
import re
from collections.abc import Callable, Mapping

from kvplan.deploy.words import Word, joined

Lookup = Callable[[str], Word | None]

MAX_NESTING = 16
MAX_TEXT = 100_000
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*|[0-9@*#?]")
OPERATORS = (":-", ":=", ":?", ":+", "-", "=", "?", "+")


def lookup_in(variables: Mapping[str, Word]) -> Lookup:
    """Return a lookup in a mapping."""
    return variables.get


def parameter_end(text: str, start: int) -> int:
    """Return the index behind the brace that closes ``${`` at ``start``, or -1."""
    depth, index = 0, start
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text.startswith("${", index):
            depth += 1
            index += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index + 1
        index += 1
    return -1


def parameter(body: str, lookup: Lookup, assign: Callable[[str, Word], None], depth: int = 0) -> Word:
    """Return the value of what stands between ``${`` and ``}``."""
    match = NAME.match(body)
    if match is None or depth > MAX_NESTING:
        return Word(f"${{{body}}}", undefined=(body[:40],))
    name, rest = match.group(), body[match.end() :]
    value = lookup(name)
    if not rest:
        return value if value is not None else Word(f"${{{name}}}", undefined=(name,))
    operator = next((op for op in OPERATORS if rest.startswith(op)), None)
    if operator is None:
        # Substrings and substitutions are the shell's own; their result is not worked out.
        return Word(f"${{{body}}}", undefined=(name,))
    argument = rest[len(operator) :]
    empty_counts = operator.startswith(":")
    is_set = value is not None and (not empty_counts or value.text != "" or bool(value.undefined))
    kind = operator[-1]
    if kind == "+":
        return expand(argument, lookup, assign, depth + 1) if is_set else Word("")
    if is_set and value is not None:
        return value
    if kind == "?":
        return Word(f"${{{name}}}", undefined=(name,))
    default = expand(_unquoted(argument), lookup, assign, depth + 1)
    default = Word(default.text, default.line, default.undefined, defaulted=True)
    if kind == "=":
        assign(name, default)
    return default


def expand(
    text: str,
    lookup: Lookup,
    assign: Callable[[str, Word], None] = lambda _name, _value: None,
    depth: int = 0,
    *,
    escape: str = "",
) -> Word:
    """Return ``text`` with its variables replaced; ``escape`` is what stands for a plain dollar."""
    parts: list[Word] = []
    index = 0
    while index < len(text):
        at = text.find("$", index)
        if at < 0:
            break
        parts.append(Word(text[index:at]))
        if escape and text.startswith(escape, at):
            parts.append(Word("$"))
            index = at + len(escape)
            continue
        index = at + 1
        if text.startswith("{", index):
            end = parameter_end(text, at)
            if end < 0:
                parts.append(Word("$"))
                continue
            parts.append(parameter(text[at + 2 : end - 1], lookup, assign, depth))
            index = end
            continue
        match = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").match(text, index)
        if match is None:
            parts.append(Word("$"))
            continue
        value = lookup(match.group())
        parts.append(value if value is not None else Word(f"${match.group()}", undefined=(match.group(),)))
        index = match.end()
    parts.append(Word(text[index:]))
    result = joined(parts, "")
    if len(result.text) > MAX_TEXT:
        return Word(result.text[:80], undefined=("a value that is too long",))
    return result


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def kubernetes_expand(text: str, variables: Mapping[str, Word]) -> Word:
    """Replace ``$(NAME)`` as Kubernetes does in ``command`` and ``args``; unknown names stay."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match.group(1))
        if found is None or found.undefined:
            missing.append(match.group(1))
            return match.group()
        return found.text

    missing: list[str] = []
    replaced = re.sub(r"(?<!\$)\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)", value, text)
    return Word(replaced, undefined=tuple(missing))


def arithmetic(text: str) -> int | None:
    """Return the value of a shell sum of whole numbers, None for anything else."""
    try:
        return _number(ast.parse(text.strip().replace("&&", " and "), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _number(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 1 << 62:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left), _number(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult() if abs(left * right) < 1 << 62:
                return left * right
            case ast.Div() | ast.FloorDiv():
                return left // right
            case ast.Mod():
                return left % right
    raise ValueError(text_of(node))


def text_of(node: ast.expr) -> str:
    """Name a kind of expression for an error."""
    return type(node).__name__
