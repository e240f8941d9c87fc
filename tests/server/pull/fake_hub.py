"""A hub on the loopback address, with as much of Hugging Face's API as its client asks for."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>.+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Repo:
    """`gate` is None, or what a request without the right token gets: 401 or 403.

    `lfs` are the suffixes of files that are stored large, with a SHA-256.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    gate: int | None = None
    lfs: tuple[str, ...] = (".gguf", ".safetensors", ".bin", ".model")

    def sibling(self, path: str) -> dict[str, object]:
        content = self.files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": blob}
        if path.endswith(self.lfs):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 130}
        return entry


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class FakeHub:
    """What it has and how it misbehaves; the tests set it, the server reads it.

    `drops` maps a path to the bytes after which its next transfers break off, one each;
    `resets_connections` breaks them off with a reset.
    `hold` keeps a broken transfer open until it is set. `damaged` are paths whose content arrives
    wrong. `ignores_ranges` sends all whatever is asked.
    `elsewhere` is the address of another server that files are redirected to.
    """

    url: str = ""
    token: str = "hf_right"
    repos: dict[str, Repo] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    drops: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    ignores_ranges: bool = False
    resets_connections: bool = False
    hold: threading.Event | None = None
    elsewhere: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def transfers(self, name: str) -> list[Request]:
        return [r for r in self.requests if r.path.endswith(name) and "/api/" not in r.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(
            Request("GET", path, self.headers["Authorization"], self.headers["Range"])
        )
        if (api := _API.fullmatch(path)) is not None:
            self._list(api["repo"], api["revision"])
        elif (file := _FILE.fullmatch(path)) is not None:
            self._resolve(file["repo"], file["path"])
        elif path in self.hub.plain:
            self._content(path, self.hub.plain[path])
        else:
            self._error(404, "EntryNotFound")

    def _list(self, repo_id: str, revision: str) -> None:
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            return self._error(401, "RepoNotFound")
        if revision not in (*repo.revisions, repo.commit):
            return self._error(404, "RevisionNotFound")
        siblings = [repo.sibling(path) for path in repo.files]
        for sibling in siblings:
            name = str(sibling["rfilename"])
            sibling["size"] = self.hub.sizes.get(name, sibling["size"])
        info = {"id": repo_id, "sha": repo.commit, "siblings": siblings, "gated": bool(repo.gate)}
        return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo_id: str, path: str) -> None:
        repo = self.hub.repos[repo_id]
        if repo.gate and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self._error(repo.gate, "GatedRepo")
        if self.hub.elsewhere is not None:
            return self._send(302, b"", {"Location": f"{self.hub.elsewhere}/{path}"})
        return self._content(path, repo.files[path])

    def _content(self, path: str, content: bytes) -> None:
        if path in self.hub.damaged:
            content = bytes(len(content))
        start, total, status, headers = 0, len(content), 200, {}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked is not None and not self.hub.ignores_ranges:
            start, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        drops = self.hub.drops.get(path)
        until = start + drops.pop(0) if drops else total
        self._send(status, content[start:until], headers, length=total - start)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": "as the test wants"})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None and length > len(body):
            self.close_connection = True
            if self.hub.hold is not None:
                self.hub.hold.wait(30)
            if self.hub.resets_connections:
                at_once = struct.pack("ii", 1, 0)
                self.wfile.flush()
                time.sleep(0.5)  # what is on its way would be lost with the connection
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                self.connection.close()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
