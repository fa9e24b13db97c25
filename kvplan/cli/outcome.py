"""What a command ends in: text for stdout or a file, exports, and an exit code."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from shutil import get_terminal_size

from kvplan.errors import InvalidValue, OutputError, reason_of
from kvplan.frozen import dataclass
from kvplan.report import Answer, render
from kvplan.report.answer import Screen, Setting


@dataclass(frozen=True, slots=True)
class Output:
    """Where the report goes: a format, a file (or stdout), further exports, or nowhere."""

    format_name: str = "auto"
    path: str | None = None
    exports: tuple[str, ...] = ()
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """An exit code and the answer to write; ``text`` where it is ready made.

    ``settings`` are the options that nobody typed; the answer says where they came from.
    """

    exit_code: int
    answer: Answer | None = None
    output: Output = Output()
    text: str = ""
    settings: tuple[Setting, ...] = ()

    def write(self) -> int:
        """Write the report where it belongs and return the exit code, closed pipes included."""
        text = self.text
        if self.answer is not None:
            for export in self.output.exports:
                format_name, _, path = export.partition("=")
                if not path:
                    raise InvalidValue(
                        f"'{export}' is not an export",
                        why="an export names a format and a file",
                        hint="write it like --export json=plan.json",
                    )
                write_file(path, render(self.answer, format_name, Screen(), self.settings))
            file_screen = self.output.path is not None
            seen = Screen() if file_screen else screen()
            text = render(self.answer, self.output.format_name, seen, self.settings)
            if self.output.path is not None:
                write_file(self.output.path, text)
                self._tell_aside()
                return self.exit_code
        if self.output.quiet:
            return self.exit_code
        self._tell_aside()
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_stdout()
        except UnicodeEncodeError:
            sys.stdout.write(text.encode("ascii", "replace").decode("ascii"))
        return self.exit_code

    def _tell_aside(self) -> None:
        """Name on standard error the settings that a format has no room for."""
        if not self.settings:
            return
        from kvplan.report.settings import ROOMY, setting_texts

        if self.output.format_name not in ROOMY:
            sys.stderr.write(f"with {', '.join(setting_texts(self.settings))}\n")


def screen() -> Screen:
    """Describe standard output: width, colour, symbols. Honours NO_COLOR, FORCE_COLOR, TERM, COLUMNS."""
    is_terminal = sys.stdout.isatty()
    dumb = os.environ.get("TERM") == "dumb"
    color = (is_terminal and not dumb) or bool(os.environ.get("FORCE_COLOR"))
    if os.environ.get("NO_COLOR"):
        color = False
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").casefold()
    try:
        "█×".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        symbols = False
    else:
        symbols = not dumb
    width = get_terminal_size((80, 24)).columns
    return Screen(width=min(width, 120), is_terminal=is_terminal, color=color, unicode=symbols)


def write_file(path: str, text: str) -> None:
    """Write a report whole or not at all. Raises OutputError when the place cannot be written."""
    from kvplan.whole_file import write_whole

    if not path:
        raise OutputError(
            "--output names no file",
            why="its value is empty",
            hint="write it like -o plan.txt, or leave it out",
        )
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        write_whole(target, text)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}",
            why=reason_of(error),
            hint="name a file in a folder that exists and can be written",
        ) from None


def _drop_stdout() -> None:
    # Python flushes stdout once more at exit; with the reader gone that must be harmless.
    with suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
