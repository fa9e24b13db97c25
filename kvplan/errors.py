"""Everything kvplan says no with.

    KvplanError                       exit 2
    ├── InputError                    exit 2   what was typed or written is wrong
    │   ├── UnknownModel  UnknownGpu  UnknownFormat  UnknownEngine
    │   ├── InvalidValue              a size, a count, an option
    │   ├── InvalidSpec               a model spec, config or policy file
    │   ├── UnreadableDeployment      a file to check that cannot be read, with its line
    │   ├── OptionClash               two options that contradict each other
    │   └── OutputError               the report cannot be written
    └── CannotTell                    exit 3   the facts are not there
        ├── UnsupportedArchitecture   a model type, layer type or quantization we do not know
        ├── MissingFact               a config key the arithmetic needs
        ├── HubError                  offline, unreachable, gated, not found
        └── MissingExtra              an optional package is not installed

Every error has three lines: what happened, why, and what to type next.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class KvplanError(Exception):
    """An answer that is an error: ``message`` (what), ``why`` and ``hint`` (what to type next)."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.hint = hint


class InputError(KvplanError):
    """What was typed or written is wrong."""

    code = "input-error"


class UnknownModel(InputError):
    """No bundled model, file or Hub id by that name."""

    code = "unknown-model"


class UnknownGpu(InputError):
    """No device by that name in the catalogue, and not a size."""

    code = "unknown-gpu"


class UnknownFormat(InputError):
    """No number format by that name, or not one that this engine takes."""

    code = "unknown-format"


class UnknownEngine(InputError):
    """No engine by that name."""

    code = "unknown-engine"


class InvalidValue(InputError):
    """A size, count or option value that cannot be read or is absurd."""

    code = "invalid-value"


class InvalidSpec(InputError):
    """A model spec, config or policy file with a wrong shape."""

    code = "invalid-spec"


class UnreadableDeployment(InputError):
    """A file to check that is no text, too large, or not what it should be; ``line`` 0 where unknown."""

    code = "unreadable-deployment"

    def __init__(self, file: str, line: int, problem: str) -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(
            f"{where}: {problem}",
            why="a file that cannot be read is not a file that fits",
            hint=f"mend {file}, or leave it out",
        )
        self.file = file
        self.line = line
        self.problem = problem


class OptionClash(InputError):
    """Two options that contradict each other."""

    code = "option-clash"


class OutputError(InputError):
    """The report cannot be written where it was asked for."""

    code = "output-error"


class CannotTell(KvplanError):
    """The facts that an answer needs are not there."""

    code = "cannot-tell"
    exit_code = 3


class UnsupportedArchitecture(CannotTell):
    """A model type, layer type or quantization that kvplan does not know."""

    code = "unsupported-architecture"


class MissingFact(CannotTell):
    """A key that the arithmetic needs is not in the config."""

    code = "missing-fact"


class HubError(CannotTell):
    """The Hub is offline, unreachable, gated, or does not have it."""

    code = "hub-error"


class MissingExtra(CannotTell):
    """An optional package is not installed."""

    code = "missing-extra"


def reason_of(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file could not be read or written, without Python's number and the name again."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    return error.strerror or str(error)


def did_you_mean(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``did you mean: a, b?`` for the closest of ``known``, or an empty string."""
    by_fold = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), by_fold, n=limit, cutoff=0.6)
    return f"did you mean: {', '.join(by_fold[name] for name in close)}?" if close else ""
