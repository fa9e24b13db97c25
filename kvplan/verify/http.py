"""Asking a server over HTTP, on guard: short timeouts, a cap on what is read, no redirects.

Only GET, and POST of a small JSON body, to the address that was typed.
"""

import json
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from kvplan.errors import CannotTell, InvalidValue

TIMEOUT_SECONDS = 5.0
# A whole answer has this long, however slowly it drips.
DEADLINE_SECONDS = 20.0
MAX_ANSWER_BYTES = 8 * 2**20
_CHUNK = 65536


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """One server by its base address. Raises InvalidValue for an address that is not HTTP."""

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
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
        path = parts.path.rstrip("/").removesuffix("/v1")
        self.base = f"{parts.scheme}://{parts.netloc}{path}"
        self._timeout = timeout_seconds
        self._opener = _opener(parts.hostname)

    def text(self, path: str, body: Mapping[str, object] | None = None) -> str | None:
        """Return what a path answers, None where the server has no such path.

        Raises CannotTell when it cannot be reached, answers with an error, too slowly or too much.
        """
        request = Request(f"{self.base}{path}", headers={"Accept": "*/*", "User-Agent": "kvplan"})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        began = monotonic()
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return self._read(answer, path, began).decode("utf-8", "replace")
        except HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise CannotTell(
                    f"{self.base}{path} wants a key ({error.code})",
                    why="kvplan sends no credentials",
                    hint="ask the server from inside, or read its log: kvplan verify --log FILE",
                ) from None
            return None
        except TimeoutError:
            raise self._slow(path) from None
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise self._slow(path) from None
            raise CannotTell(
                f"cannot reach {self.base}",
                why=str(reason)[:160] or type(error).__name__,
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
