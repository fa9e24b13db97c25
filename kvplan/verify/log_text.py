"""A log as it reaches us, made into plain lines: colours, containers, clusters, ranks.

``docker logs`` with the json-file driver wraps each line in JSON, Kubernetes' CRI writes a time, a
stream and a tag before it, structured loggers put the message under a key. Ranks that write to one
stream mark their lines, each engine in its way.
"""

import json
import re
from collections.abc import Iterator

from kvplan.frozen import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_CRI = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) (?:stdout|stderr) ([FP]) ")
_RANK = re.compile(
    r"\b(?:Worker(?:Proc)?[ _])?((?:DP\d+[ _]?)?(?:PP\d+[ _]?)?TP\d+(?:[ _]EP\d+)?|PP\d+|DP\d+)\b"
    r"|\b(?:[Rr]ank|gpu(?:_id)?)[ =:]?(\d+)\b"
)
_MESSAGE_KEYS = ("log", "message", "msg", "textPayload", "line")
MAX_LINE_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log: what it says and which rank says so (empty: the only one, or unmarked)."""

    text: str
    rank: str = ""


def lines_of(text: str) -> Iterator[Line]:
    """Yield a log's lines unwrapped. Never raises: what is not a wrapping is left as it is."""
    begun = ""
    for raw in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = _ANSI.sub("", raw[:MAX_LINE_CHARS]).strip()
        cri = _CRI.match(line)
        if cri:
            part = line[cri.end() :]
            if cri.group(1) == "P":
                begun += part
                continue
            line, begun = begun + part, ""
        for inner in _unwrapped(line).split("\n"):
            if inner.strip():
                yield Line(inner.strip(), rank_of(inner))


def _unwrapped(line: str) -> str:
    if not line.startswith("{") or not line.endswith("}"):
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if isinstance(value, dict):
        for key in _MESSAGE_KEYS:
            message = value.get(key)
            if isinstance(message, str):
                return _ANSI.sub("", message)
    return line


def rank_of(line: str) -> str:
    """Return the rank that a line is marked with, in one spelling (``TP0``, ``PP1 TP0``)."""
    found = _RANK.search(line[:200])
    if not found:
        return ""
    if found.group(2) is not None:
        return f"rank {found.group(2)}"
    return re.sub(r"[ _]", " ", found.group(1)).strip()
