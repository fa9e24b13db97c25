"""``[ … ]``, ``[[ … ]]`` and ``test``: true, false, or not to be known from the script alone."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from kvplan.deploy.shell_lexer import Token
from kvplan.deploy.words import Word

# None: it depends on what the script does not say.
Truth = bool | None


def test_of(written: Sequence[Token], words: Sequence[Word]) -> Truth:
    """Judge a test. ``written`` is how it stands there, ``words`` what it comes to."""
    double = written[0].text == "[["
    body = [word for word in words[1:] if word.text not in ("]", "]]")]
    for joiner, combine in (("||", _any), ("-o", _any), ("&&", _all), ("-a", _all)):
        for index, word in enumerate(body):
            if word.text == joiner:
                return combine(_single(body[:index], double), _rest(body[index + 1 :], double))
    return _single(body, double)


def _rest(words: Sequence[Word], double: bool) -> Truth:
    for joiner, combine in (("||", _any), ("-o", _any), ("&&", _all), ("-a", _all)):
        for index, word in enumerate(words):
            if word.text == joiner:
                return combine(_single(words[:index], double), _rest(words[index + 1 :], double))
    return _single(words, double)


def _any(left: Truth, right: Truth) -> Truth:
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def _all(left: Truth, right: Truth) -> Truth:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _single(words: Sequence[Word], double: bool) -> Truth:
    if words and words[0].text == "!":
        inner = _single(words[1:], double)
        return None if inner is None else not inner
    if any(not word.known for word in words):
        return None
    texts = [word.text for word in words]
    if len(texts) == 1:
        return texts[0] != ""
    if len(texts) == 2 and texts[0] in ("-z", "-n"):
        return (texts[1] == "") == (texts[0] == "-z")
    if len(texts) == 3:
        return _compared(texts[0], texts[1], texts[2], double)
    # Tests of files and anything longer depend on the machine.
    return None


def _compared(left: str, operator: str, right: str, double: bool) -> Truth:
    if operator in ("=", "==", "!="):
        same = fnmatchcase(left, right) if double else left == right
        return same == (operator != "!=")
    if operator in ("-eq", "-ne", "-gt", "-ge", "-lt", "-le"):
        if not (left.lstrip("-").isdigit() and right.lstrip("-").isdigit()):
            return None
        a, b = int(left), int(right)
        return {
            "-eq": a == b,
            "-ne": a != b,
            "-gt": a > b,
            "-ge": a >= b,
            "-lt": a < b,
            "-le": a <= b,
        }[operator]
    return None
