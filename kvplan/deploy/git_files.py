"""Files of a git revision, read through git itself: nothing is checked out, no hook runs."""

import subprocess
from collections.abc import Sequence

from kvplan.deploy.files import SourceFile, decoded, is_candidate
from kvplan.errors import InputError

TIMEOUT_SECONDS = 60
MAX_CHANGED = 2_000


def is_range(text: str) -> bool:
    """Tell whether a word is a range of revisions: ``origin/main..HEAD``."""
    return ".." in text and not text.startswith((".", "/"))


def ends_of(text: str) -> tuple[str, str]:
    """Return (base, head) of a range; three dots mean the point where head left base.

    Raises InputError for revisions that git does not know.
    """
    if "..." in text:
        left, _, right = text.partition("...")
        head = commit_of(right or "HEAD")
        return _git("merge-base", commit_of(left or "HEAD"), head).strip(), head
    left, _, right = text.partition("..")
    return commit_of(left or "HEAD"), commit_of(right or "HEAD")


def commit_of(revision: str) -> str:
    """Return the commit that a revision names. Raises InputError."""
    if revision.startswith("-"):
        raise InputError(
            f"'{revision}' is not a revision", why="it starts with a dash", hint="name a branch or commit"
        )
    return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()


def changed_files(base: str, head: str, under: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the deployment files that differ between two commits, by their path in the repository."""
    listed = _git("diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", base, head, "--", *under)
    names = [name for name in listed.split("\0") if name]
    wanted = [name for name in names if is_candidate(name)]
    return tuple(wanted[:MAX_CHANGED])


def file_at(commit: str, path: str) -> SourceFile | None:
    """Return a file as a commit has it, None where it does not. Raises UnreadableDeployment."""
    done = _run("cat-file", "blob", f"{commit}:{path}")
    if done.returncode:
        return None
    return SourceFile(path, decoded(done.stdout, path))


def _git(*words: str) -> str:
    done = _run(*words)
    if done.returncode:
        problem = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InputError(
            f"git {words[0]} fails: {problem[0] if problem else words[-1]}",
            why="the revisions are read through git, in the folder where kvplan runs",
            hint="run it inside the repository, with revisions that are fetched there",
        )
    return done.stdout.decode("utf-8", "surrogateescape")


def _run(*words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "--no-pager", *words], capture_output=True, check=False, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(
            "git cannot be run", why=str(error), hint="install git, or name two files or folders"
        ) from None
