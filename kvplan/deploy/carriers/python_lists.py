"""Python that starts an engine as a program: lists of words, with the names they use. Nothing is run."""

import ast
from collections.abc import Mapping

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.program_names import MENTIONS
from kvplan.deploy.programs import Started, started_by
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word


def launches(text: str, context: Context) -> list[Launch]:
    """Return the engines whose command stands in a list; Python that cannot be parsed is a note."""
    if not MENTIONS.search(text):
        return []
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        context.note(0, "Python that cannot be parsed")
        return []
    names = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    started: list[Started] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple) and len(node.elts) > 1:
            words = [_word(item, names) for item in node.elts if not isinstance(item, ast.Starred)]
            try:
                started += started_by(words, context.variables)
            except ShellError:
                context.note(node.lineno, "a command that no shell would read")
    started.sort(key=lambda item: item.line)
    return [launch for item in started for launch in launches_of([item], context, "", item.gpus or GpuHint())]


def _word(node: ast.expr, names: Mapping[str, object]) -> Word:
    if isinstance(node, ast.Constant):
        return Word(str(node.value), node.lineno)
    if isinstance(node, ast.Name) and node.id in names:
        return Word(str(names[node.id]), node.lineno)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        return _word(node.args[0], names)
    source = ast.unparse(node)[:40]
    return Word(source, node.lineno, (source,))
