"""A word of a command line, and where it stands.

Every carrier (a Compose file, a manifest, a script) hands its commands over as words, so that a flag
can be traced back to the line that somebody would have to edit.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

from kvplan.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One word: its text, its line (1 is the first, 0 unknown), and what it depends on.

    ``spans`` are the lines of its later parts, for a word that is a script of several lines.
    ``undefined`` names the variables in it that nobody defines: the text is then not to be relied
    on. ``defaulted`` says that a variable's default was taken (``${A:-x}``).
    """

    text: str
    line: int = 0
    undefined: tuple[str, ...] = ()
    defaulted: bool = False
    spans: tuple[tuple[int, int], ...] = ()

    def line_at(self, offset: int) -> int:
        """Return the line of the character at ``offset``, for a word that is a whole script."""
        if not self.spans:
            return self.line + self.text.count("\n", 0, offset) if self.line else 0
        index = bisect_right(self.spans, (offset, 1 << 60)) - 1
        return self.spans[index][1] if index >= 0 else self.line

    @property
    def known(self) -> bool:
        """Tell whether every variable in the word is defined."""
        return not self.undefined


def joined(words: Iterable[Word], separator: str = " ") -> Word:
    """Return several words as one, at the line of the first."""
    parts = list(words)
    undefined = tuple(dict.fromkeys(name for part in parts for name in part.undefined))
    return Word(
        separator.join(part.text for part in parts),
        parts[0].line if parts else 0,
        undefined,
        any(part.defaulted for part in parts),
    )


def at_line(word: Word, line: int) -> Word:
    """Return the word at another line."""
    return replace(word, line=line)
