"""A Hugging Face Hub on this machine: model info, small files, redirects, ETags, ranges, refusals."""

import hashlib
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """``repos`` maps a name to its files; ``refusals`` maps a path's ending to (status, headers).

    ``served`` counts the bytes of every path that were sent, ``tokens`` what Authorization said.
    """

    def __init__(self):
        self.repos = {}
        self.refusals = {}
        self.served = {}
        self.requests = []
        self.tokens = set()
        self.ignores_ranges = False
        self.cuts_after = None
        self.seconds_a_request = 0.0
        self.endpoint = ""

    def bytes_sent(self, name):
        """Return what was sent of a path; the count is written after the last byte."""
        for _ in range(500):
            if name in self.served:
                break
            time.sleep(0.01)
        return self.served[name]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        return

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.command, path))
        time.sleep(self.hub.seconds_a_request)
        if "Authorization" in self.headers:
            self.hub.tokens.add(self.headers["Authorization"])
        for ending, (status, headers) in self.hub.refusals.items():
            if path.endswith(ending):
                self.send(
                    status, b'{"error":"refused"}', {"Content-Type": "application/json", **headers}, with_body
                )
                return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main", with_body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)
        elif parts[0] == "cdn":
            self.file("/".join(parts[1:3]), "/".join(parts[3:]), with_body)
        else:
            self.send(404, b"", {}, with_body)

    def info(self, repo, revision, with_body):
        files = self.hub.repos.get(repo)
        if files is None:
            self.send(404, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"}, with_body)
        elif revision not in ("main", "v1", COMMIT):
            self.send(404, b'{"error":"Invalid rev"}', {"X-Error-Code": "RevisionNotFound"}, with_body)
        else:
            body = {
                "_id": "1",
                "id": repo,
                "modelId": repo,
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in sorted(files)],
            }
            self.send(200, json.dumps(body).encode(), {"Content-Type": "application/json"}, with_body)

    def resolve(self, repo, revision, name, with_body):
        content = self.hub.repos.get(repo, {}).get(name)
        if content is None:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
            return
        etag = getattr(content, "etag", None) or hashlib.sha1(content).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
        if name.endswith((".safetensors", ".gguf")):
            # Large files lie elsewhere, as they do on the Hub.
            headers |= {
                "X-Linked-ETag": headers["ETag"],
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.hub.endpoint}/cdn/{repo}/{name}",
            }
            self.send(302, b"", headers, with_body)
        else:
            self.send(200, content, headers, with_body)

    def file(self, repo, name, with_body):
        content = self.hub.repos[repo][name]
        asked = self.headers.get("Range")
        if asked and not self.hub.ignores_ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            if int(first) >= len(content):
                self.send(416, b"", {}, with_body)
                return
            part = content[int(first) : int(last) + 1]
            where = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            self.send(206, part, {"Content-Range": where}, with_body, name)
        else:
            self.send(200, content, {}, with_body, name)

    def send(self, status, body, headers, with_body, name=""):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            sent = body if self.hub.cuts_after is None or not name else body[: self.hub.cuts_after]
            try:
                self.wfile.write(sent)
            except OSError:
                sent = b""
            self.hub.served[name] = self.hub.served.get(name, 0) + len(sent)
            if len(sent) < len(body):
                self.close_connection = True


@contextmanager
def serving():
    """Run a Hub for the length of a with-block."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
