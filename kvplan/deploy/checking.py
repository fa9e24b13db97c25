"""Check files and folders: read, resolve, plan, judge, and add up what shares a card."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kvplan.deploy.carriers import read_file
from kvplan.deploy.check import SettingsOf, check_launch
from kvplan.deploy.files import Found, SourceFile, gather, read, read_stdin
from kvplan.deploy.launch import Launch
from kvplan.deploy.model_names import Models
from kvplan.deploy.planning import read_command
from kvplan.deploy.rows import CheckResult, Place, Problem, Row, Skipped
from kvplan.deploy.sharing import Checked, shared_gpus
from kvplan.deploy.words import Word
from kvplan.errors import UnreadableDeployment


def check_paths(
    paths: Sequence[str], settings_of: SettingsOf, models: Models, variables: Mapping[str, Word]
) -> CheckResult:
    """Check what the paths hold; ``-`` is standard input. Each file is read on its own.

    A file that cannot be read is a problem of the result, not an exception.
    """
    results: list[CheckResult] = []
    named = [path for path in paths if path != "-"]
    if "-" in paths:
        results.append(_from_stdin(settings_of, models, variables))
    files = gather(named)
    while True:
        try:
            found = next(files, None)
        except UnreadableDeployment as error:
            results.append(_problem(error))
            break
        if found is None:
            break
        results.append(_file(found, settings_of, models, variables))
    return merged(results)


def _from_stdin(settings_of: SettingsOf, models: Models, variables: Mapping[str, Word]) -> CheckResult:
    try:
        return check_file(read_stdin(), settings_of, models, variables)
    except UnreadableDeployment as error:
        return _problem(error)


def _file(
    found: Found, settings_of: SettingsOf, models: Models, variables: Mapping[str, Word]
) -> CheckResult:
    try:
        text = read(found.path, found.name)
        file = SourceFile(found.name, text, found.path, found.root)
        return check_file(file, settings_of, models, variables)
    except UnreadableDeployment as error:
        return _problem(error)


def check_file(
    file: SourceFile, settings_of: SettingsOf, models: Models, variables: Mapping[str, Word]
) -> CheckResult:
    """Check one file that has been read. Raises UnreadableDeployment."""
    reading = read_file(file, variables)
    skipped = tuple(Skipped(Place(file.name, line), message) for line, message in reading.notes)
    return replace(check_launches(reading.launches, settings_of, models), skipped=skipped)


def check_launches(launches: Iterable[Launch], settings_of: SettingsOf, models: Models) -> CheckResult:
    """Check launches that are known already."""
    checked: list[Checked] = []
    for launch in launches:
        settings = settings_of(launch)
        row = check_launch(launch, settings, models)
        checked.append(Checked(launch, read_command(launch), row, settings))
    rows: tuple[Row, ...] = tuple(item.row for item in checked)
    return CheckResult(rows=rows, shared=shared_gpus(checked))


def merged(results: Iterable[CheckResult]) -> CheckResult:
    """Return several results as one."""
    parts = list(results)
    return CheckResult(
        rows=tuple(row for part in parts for row in part.rows),
        shared=tuple(item for part in parts for item in part.shared),
        problems=tuple(item for part in parts for item in part.problems),
        skipped=tuple(item for part in parts for item in part.skipped),
    )


def _problem(error: UnreadableDeployment) -> CheckResult:
    return CheckResult(problems=(Problem(Place(error.file, error.line), error.problem, error.hint),))
