"""Talking to the Hugging Face Hub: which files a repository has, small files, ranges of large ones.

The only module that imports huggingface_hub, and only when a model on the Hub is asked for: its
cache, token, endpoint and offline switch hold. What the Hub refuses becomes a HubError: gated, not
found, over its rate limit, out of order, out of reach.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from kvplan.errors import HubError
from kvplan.frozen import dataclass
from kvplan.sources.headers import ByteSource, file_source

TIMEOUT_SECONDS = 20.0
NAME_ANOTHER = "name the original model: org/repo"


@dataclass(frozen=True, slots=True)
class Place:
    """What a reference names: a repository, maybe one of its GGUF files, maybe a revision."""

    repo: str
    file: str | None = None
    quant: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit: the names of its files."""

    place: Place
    commit: str | None
    names: tuple[str, ...]
    offline: bool = False


def listing_of(place: Place, *, offline: bool) -> Listing:
    """Return the commit and the files of a repository; what the cache holds where it is out of reach.

    Raises HubError.
    """
    from huggingface_hub import HfApi, constants

    _utilities().disable_progress_bars()
    if offline or constants.HF_HUB_OFFLINE:
        return _cached(place, "the Hub is switched off (--offline or HF_HUB_OFFLINE)")
    try:
        with _refusals(place):
            info = HfApi().model_info(place.repo, revision=place.revision, timeout=TIMEOUT_SECONDS)
    except _OutOfReachError as error:
        return _cached(place, str(error))
    names = tuple(sibling.rfilename for sibling in info.siblings or ())
    return Listing(place, info.sha, names)


def _cached(place: Place, why: str) -> Listing:
    """Return what an earlier download left of the repository. Raises HubError where that is nothing.

    The cache's layout is huggingface_hub's own: refs name commits, snapshots hold their files.
    """
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{place.repo.replace('/', '--')}"
    revision = place.revision or "main"
    try:
        reference = root / "refs" / revision
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else revision
        snapshot = root / "snapshots" / commit
        files = [file for file in snapshot.rglob("*") if file.is_file()] if commit else []
    except (OSError, ValueError):
        files = []
    if files:
        names = tuple(sorted(file.relative_to(snapshot).as_posix() for file in files))
        return Listing(place, commit, names, offline=True)
    raise HubError(
        f"{place.repo} is not in the local cache",
        why=why,
        hint="go online once, or name a bundled model: kvplan list models",
    )


def download(listing: Listing, name: str, *, names_commit: bool = False) -> Path:
    """Return where one small file lies in the cache, downloaded if it was not. Raises HubError.

    ``names_commit`` lets the cache remember which commit a branch is at, for later use offline.
    """
    from huggingface_hub import hf_hub_download

    place = listing.place
    try:
        with _refusals(place, name):
            path: Any = hf_hub_download(
                place.repo,
                name,
                revision=place.revision if names_commit and not listing.offline else listing.commit,
                local_files_only=listing.offline,
            )
    except _OutOfReachError as error:
        raise _error(place, f"could not be asked for {name}", str(error), _LATER) from None
    return Path(str(path))


def byte_source(listing: Listing, name: str) -> ByteSource:
    """Return a source that reads a repository's file by ranges, or from the cache when offline."""
    if listing.offline:
        return file_source(download(listing, name))
    from huggingface_hub import hf_hub_url

    place = listing.place
    url = hf_hub_url(place.repo, name, revision=listing.commit or place.revision)
    headers = {**_utilities().build_hf_headers(), "Accept-Encoding": "identity"}

    def read(offset: int, size: int) -> bytes:
        try:
            with _refusals(place, name):
                return _range(url, headers, offset, size)
        except _OutOfReachError as error:
            raise _error(place, f"could not be asked for {name}", str(error), _LATER) from None

    return read


def _range(url: str, headers: Mapping[str, str], offset: int, size: int) -> bytes:
    """Return ``size`` bytes from ``offset``, closing the connection on a server that sends more."""
    session: Any = _utilities().get_session()
    asked = {**headers, "Range": f"bytes={offset}-{offset + size - 1}"}
    # huggingface_hub 1 and later speak httpx, before that requests.
    if callable(getattr(session, "stream", None)):
        opened = session.stream("GET", url, headers=asked, timeout=TIMEOUT_SECONDS, follow_redirects=True)
    else:
        opened = session.get(url, headers=asked, timeout=TIMEOUT_SECONDS, stream=True)
    with opened as response:
        if response.status_code == 416:
            return b""
        if response.status_code >= 400:
            _read_all(response)
            _utilities().hf_raise_for_status(response)
        # A server that ignores ranges answers 200 from the start.
        ahead = offset if response.status_code == 200 else 0
        chunks = response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(65_536)
        kept = bytearray()
        for chunk in chunks:
            kept += chunk[ahead:] if ahead < len(chunk) else b""
            ahead = max(0, ahead - len(chunk))
            if len(kept) >= size:
                break
        return bytes(kept[:size])


def _read_all(response: Any) -> None:
    if hasattr(response, "read"):
        response.read()


class _OutOfReachError(Exception):
    """The Hub did not answer at all."""


_LATER = "try again later, or name a bundled model: kvplan list models"


@contextmanager
def _refusals(place: Place, name: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into a HubError with three lines, or _OutOfReachError."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise _error(
            place,
            "is gated",
            "its owner grants access one by one",
            f"accept its terms at huggingface.co/{place.repo}, then: hf auth login (or set HF_TOKEN)",
        ) from None
    except RevisionNotFoundError:
        raise _error(
            place,
            f"has no revision '{place.revision}'",
            "the Hub knows the model but not that revision",
            f"leave it out: {place.repo}",
        ) from None
    except RepositoryNotFoundError:
        raise _error(
            place,
            "is not on the Hub",
            "no such model, or it is private",
            "check the spelling, or: hf auth login (or set HF_TOKEN)",
        ) from None
    except OfflineModeIsEnabled:
        raise _OutOfReachError("the Hub is switched off (--offline or HF_HUB_OFFLINE)") from None
    except LocalEntryNotFoundError as error:
        # What the Hub answered, if it did, is the cause of not finding it here.
        if isinstance(error.__cause__, HfHubHTTPError) and _status(error.__cause__):
            raise _answered(place, error.__cause__) from None
        raise _OutOfReachError("the Hub did not answer, and it is not in the local cache") from None
    except EntryNotFoundError:
        raise _error(place, f"has no {name}", "the Hub lists no such file", NAME_ANOTHER) from None
    except HFValidationError:
        raise _error(
            place, "is not a model's name on the Hub", "names look like org/repo", "check the spelling"
        ) from None
    except HfHubHTTPError as error:
        raise _answered(place, error) from None
    except Exception as error:
        # Only the client's code runs here; its errors of connection have no base in common
        # (requests before 1.0, httpx since), nor have answers that are no model's.
        raise _OutOfReachError(f"the Hub did not answer: {type(error).__name__}: {error}"[:120]) from None


def _status(error: Any) -> int:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0


def _answered(place: Place, error: Any) -> HubError:
    status = _status(error)
    if status == 429:
        return _error(
            place,
            "could not be asked for: too many requests",
            "the Hub answered 429, its rate limit",
            "wait a few minutes, or set HF_TOKEN for a higher limit",
        )
    if status in (401, 403):
        return _error(
            place,
            "is not for this token",
            f"the Hub answered {status}",
            f"ask for access at huggingface.co/{place.repo}, then: hf auth login (or set HF_TOKEN)",
        )
    if status == 404:
        return _error(place, "is not there", "the Hub answered 404", "check the spelling")
    return _error(place, "could not be asked for", f"the Hub answered {status or 'nothing'}", _LATER)


def _error(place: Place, what: str, why: str, hint: str) -> HubError:
    return HubError(f"{place.repo} {what}", why=why, hint=hint)


def _utilities() -> Any:
    """Return huggingface_hub.utils, which exports more than its types say."""
    return import_module("huggingface_hub.utils")
