"""Asking a server over HTTP, on guard: short timeouts, a cap on what is read, no redirects.

Only GET, and POST of a small JSON body, to the address that was typed; a key goes nowhere else.
"""

import json
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from kvplan.errors import CannotTell, InvalidValue, reason_of

TIMEOUT_SECONDS = 5.0
# A whole answer has this long, however slowly it drips.
DEADLINE_SECONDS = 20.0
MAX_ANSWER_BYTES = 8 * 2**20
_CHUNK = 65536


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """One server by its base address; ``api_key`` is sent as its bearer token.

    Raises InvalidValue for an address that is not HTTP and for a key that no header can carry.
    """

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS, api_key: str = "") -> None:
        text = url.strip()
        if "://" not in text:
            text = f"http://{text}"
        try:
            parts = urlsplit(text)
            port_ok = parts.port is None or 0 < parts.port < 65536
        except ValueError:
            parts, port_ok = urlsplit("http://"), False
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
            raise InvalidValue(
                f"'{url}' is not the address of a server",
                why="it starts with http:// or https:// and names a host",
                hint="write it like --url http://127.0.0.1:8000",
            )
        if parts.username is not None or parts.password is not None:
            raise InvalidValue(
                "the address has a user or password in it",
                why="reports show the address",
                hint="write it without, and a key as --api-key or KVPLAN_API_KEY",
            )
        if not api_key.isascii() or not api_key.isprintable():
            raise InvalidValue(
                "the API key has characters that no HTTP header carries",
                why="it is sent as Authorization: Bearer KEY",
                hint="check for a line break at its end",
            )
        path = parts.path.rstrip("/").removesuffix("/v1")
        self.base = f"{parts.scheme}://{parts.netloc}{path}"
        self._timeout = timeout_seconds
        self._key = api_key
        self._opener = _opener(parts.hostname)

    def text(self, path: str, body: Mapping[str, object] | None = None) -> str | None:
        """Return what a path answers, None where the server has no such path.

        Raises CannotTell when it cannot be reached, answers with an error, too slowly or too much.
        """
        request = Request(f"{self.base}{path}", headers={"Accept": "*/*", "User-Agent": "kvplan"})
        if self._key:
            request.add_header("Authorization", f"Bearer {self._key}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        began = monotonic()
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return self._read(answer, path, began).decode("utf-8", "replace")
        except HTTPError as error:
            error.close()
            refusal = self._refusal(error, path)
            if refusal is not None:
                raise refusal from None
            return None
        except TimeoutError:
            raise self._slow(path) from None
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise self._slow(path) from None
            raise CannotTell(
                f"cannot reach {self.base}",
                why=(reason_of(reason) if isinstance(reason, OSError) else str(reason))[:160]
                or type(error).__name__,
                hint="check that the server runs and the port is right: --url http://127.0.0.1:8000",
            ) from None

    def json(self, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Return a path's answer as JSON, None where there is no such path or no JSON."""
        text = self.text(path, body)
        if text is None:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None

    def _refusal(self, error: HTTPError, path: str) -> CannotTell | None:
        """Return what an error status means where it is more than a path that is not there."""
        if error.code in (401, 403):
            return CannotTell(
                f"{self.base}{path} {'refuses this key' if self._key else 'wants a key'} ({error.code})",
                why="the server was started with --api-key" if not self._key else "its own is another",
                hint="give it: --api-key KEY, or KVPLAN_API_KEY in the environment",
            )
        if error.code == 503:
            return CannotTell(
                f"{self.base} is not ready (503)",
                why="an engine answers so while it loads the model",
                hint="try again when it has started",
            )
        if 300 <= error.code < 400:
            return CannotTell(
                f"{self.base}{path} sends elsewhere ({error.code})",
                why="redirects are not followed: what is asked stays with the address that was typed",
                hint="name the engine's own address: --url http://127.0.0.1:8000",
            )
        return None

    def _read(self, answer: Any, path: str, began: float) -> bytes:
        read = bytearray()
        while chunk := answer.read1(_CHUNK):
            read += chunk
            if len(read) > MAX_ANSWER_BYTES:
                raise CannotTell(
                    f"{self.base}{path} answers more than {MAX_ANSWER_BYTES // 2**20} MiB",
                    why="no engine's answer is that long",
                    hint="check the address: --url http://127.0.0.1:8000",
                )
            if monotonic() - began > DEADLINE_SECONDS:
                raise self._slow(path)
        return bytes(read)

    def _slow(self, path: str) -> CannotTell:
        return CannotTell(
            f"{self.base}{path} does not answer in time",
            why=f"waited {self._timeout:g} s for it, {DEADLINE_SECONDS:g} s for all of it",
            hint="try again when the server has started, or read its log: kvplan verify --log FILE",
        )


def _opener(host: str) -> OpenerDirector:
    # A local server is never behind a proxy.
    local = host in ("localhost", "::1") or host.startswith("127.")
    handlers = [_NoRedirects(), ProxyHandler({})] if local else [_NoRedirects()]
    return build_opener(*handlers)
