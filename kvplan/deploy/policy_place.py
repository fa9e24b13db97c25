"""Where the policy is: the nearest kvplan.yaml, or pyproject.toml with [tool.kvplan], going up.

Every command asks for it, so what is imported to read one is imported where one is found.
"""

import os
from pathlib import Path

from kvplan.errors import InvalidSpec, reason_of

NAMES = ("kvplan.yaml", "kvplan.yml", ".kvplan.yaml")
SECTION = b"[tool.kvplan"
MAX_PARENTS = 64


def find_policy(start: Path) -> Path | None:
    """Return the nearest kvplan.yaml, or pyproject.toml with [tool.kvplan], from a folder upwards."""
    try:
        folder = os.path.realpath(start)
    except OSError:
        # The folder we stand in has been removed.
        return None
    for _ in range(MAX_PARENTS):
        for name in NAMES:
            place = os.path.join(folder, name)  # noqa: PTH118 - a Path for each would cost most of this
            if os.path.isfile(place):  # noqa: PTH113
                return Path(place)
        project = Path(folder, "pyproject.toml")
        if _has_section(project):
            return project
        folder, below = os.path.dirname(folder), folder  # noqa: PTH120
        if folder == below:
            break
    return None


def _has_section(project: Path) -> bool:
    try:
        return SECTION in project.read_bytes()
    except OSError:
        return False


def shown(path: Path) -> str:
    """Return a policy's path as people write it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):
        return str(path)


def policy_text(path: Path, origin: str) -> str:
    """Return a policy file's text. Raises InvalidSpec for one that cannot be read."""
    from kvplan.deploy.files import decoded

    try:
        return decoded(path.read_bytes(), origin)
    except OSError as error:
        raise InvalidSpec(
            f"{origin}: cannot be read",
            why=reason_of(error),
            hint="check the path and its permissions",
        ) from None
