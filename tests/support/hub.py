"""A stand-in for a model hub: keeps repositories in memory and answers what huggingface_hub asks."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
Repositories = dict[str, dict[str, bytes]]


class Handler(BaseHTTPRequestHandler):
    repositories: Repositories
    asked: list[str]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            document = json.loads(body)
            name = (
                f"{document['organization']}/{document['name']}"
                if document.get("organization")
                else f"me/{document['name']}"
            )
            self.repositories.setdefault(name, {})
            self._json({"url": f"http://{self.headers['Host']}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._api("/".join(parts[2:4]), parts[4:], body)
        elif "resolve" in parts:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._missing("EntryNotFound")

    def _api(self, name: str, rest: list[str], body: bytes) -> None:
        files = self.repositories.get(name)
        if files is None:
            self._missing("RepoNotFound")
        elif rest[:1] == ["preupload"]:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif rest[:1] == ["commit"]:
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            self._json({"commitUrl": f"/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        elif rest[:1] == ["tree"]:
            self._json([{"type": "file", "path": p, "size": len(c), "oid": _oid(c)} for p, c in files.items()])
        else:
            self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})

    def _file(self, name: str, path: str) -> None:
        files = self.repositories.get(name)
        if files is None or path not in files:
            self._missing("RepoNotFound" if files is None else "EntryNotFound")
            return
        self._send(200, files[path], {"ETag": f'"{_oid(files[path])}"', "X-Repo-Commit": COMMIT})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _json(self, document: Any) -> None:
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(repositories: Repositories) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub with these repositories, and the list of what it is asked."""
    asked: list[str] = []
    handler = type("Handler", (Handler,), {"repositories": repositories, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
