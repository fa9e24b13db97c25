"""Where the policy is: the nearest kvplan.yaml, or pyproject.toml with [tool.kvplan], going up."""

from pathlib import Path

from kvplan.deploy.files import decoded
from kvplan.errors import InvalidSpec

NAMES = ("kvplan.yaml", "kvplan.yml", ".kvplan.yaml")
MAX_PARENTS = 64


def find_policy(start: Path) -> Path | None:
    """Return the nearest kvplan.yaml, or pyproject.toml with [tool.kvplan], from a folder upwards."""
    folder = start.resolve()
    for place in [folder, *folder.parents][:MAX_PARENTS]:
        for name in NAMES:
            if (place / name).is_file():
                return place / name
        project = place / "pyproject.toml"
        if project.is_file() and "[tool.kvplan" in policy_text(project, str(project)):
            return project
    return None


def policy_text(path: Path, origin: str) -> str:
    """Return a policy file's text. Raises InvalidSpec for one that cannot be read."""
    try:
        return decoded(path.read_bytes(), origin)
    except OSError as error:
        raise InvalidSpec(
            f"{origin}: cannot be read",
            why=error.strerror or str(error),
            hint="check the path and its permissions",
        ) from None
