"""A server on 127.0.0.1 that speaks the part of the Hugging Face hub's HTTP interface that its libraries use to read.

Point a process at it with ``HF_ENDPOINT``. It answers as the hub does, also with its errors: large files are stored
apart (LFS) and reached by a redirect, a repository that is not there is told by ``X-Error-Code``, a gated one wants a
token. Every request is kept in ``log``, so that a test can say what was asked.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = {".safetensors", ".parquet", ".bin"}
KINDS = {"models": "", "datasets": "datasets/"}  # of the API -> what its files' addresses begin with


@dataclass(frozen=True)
class Repository:
    """A repository with one commit.

    Attributes:
        kind: "models" or "datasets".
        name: "org/name".
        commit: 40 hex digits.
        files: content by path.
        token: what a reader of a gated repository must send; None: anyone may read.
    """

    kind: str
    name: str
    commit: str
    files: dict[str, bytes]
    token: str | None = None


def repository(kind: str, name: str, files: dict[str, bytes], *, token: str | None = None) -> Repository:
    """A repository whose commit follows from its files."""
    digest = hashlib.sha1(name.encode(), usedforsecurity=False)
    for path in sorted(files):
        digest.update(path.encode() + files[path])
    return Repository(kind, name, digest.hexdigest(), files, token)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass
class Hub:
    """A running server: its address, and (method, path, status) of every request."""

    address: str
    log: list[tuple[str, str, int]] = field(default_factory=list)


@contextmanager
def running_hub(*repositories: Repository) -> Iterator[Hub]:
    """Serve the repositories on a free port until the block ends."""
    hub = Hub("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, repositories, hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refusal(Exception):  # noqa: N818  (an answer, not a fault)
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, repositories: tuple[Repository, ...], hub: Hub, *rest: object) -> None:
        self.repositories, self.hub = repositories, hub
        super().__init__(*rest)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing on the terminal."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.hub.log.append((self.command, self.path, int(code)))

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        try:
            if path.startswith("/cdn/"):
                self._stored(path.rpartition("/")[2])
            elif path.startswith("/api/"):
                self._api(path.removeprefix("/api/"), body)
            else:
                self._resolve(path.removeprefix("/"))
        except _Refusal as refusal:
            data = json.dumps({"error": refusal.message}).encode()
            self._send(refusal.status, data, {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message})

    def _api(self, path: str, body: bytes) -> None:
        """/api/KIND/NAME[/revision/REV | /tree/REV[/FOLDER] | /paths-info/REV]."""
        kind, _, rest = path.partition("/")
        repository, rest = self._find(kind, rest)
        self._allow(repository)
        action, _, rest = rest.partition("/")
        revision, _, below = rest.partition("/")
        self._check_revision(repository, revision or "main")
        if action in ("", "revision"):
            siblings = [{"rfilename": name} for name in repository.files]
            facts = {"id": repository.name, "sha": repository.commit, "siblings": siblings}
            self._json(facts | {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0})
        elif action == "tree":
            self._json(_tree(repository, below))
        elif action == "paths-info":
            asked = _paths(body)
            self._json([entry for entry in _tree(repository, "", recursive=True) if entry["path"] in asked])
        else:
            raise _Refusal(404, "", "no such page")

    def _resolve(self, path: str) -> None:
        """/[datasets/]NAME/resolve/REV/FILE."""
        kind = "datasets" if path.startswith("datasets/") else "models"
        repository, rest = self._find(kind, path.removeprefix(KINDS[kind]))
        self._allow(repository)
        action, _, rest = rest.partition("/")
        revision, _, name = rest.partition("/")
        if action != "resolve":
            raise _Refusal(404, "", "no such page")
        self._check_revision(repository, revision)
        if name not in repository.files:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        data = repository.files[name]
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if _lfs(name):
            sha256 = hashlib.sha256(data).hexdigest()
            linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
            # Stored at another host, as there: a client must take commit and hash from this answer.
            elsewhere = self.hub.address.replace("127.0.0.1", "localhost")
            self._send(302, b"", headers | linked | {"Location": f"{elsewhere}/cdn/{sha256}"})
        else:
            self._file(data, headers | {"ETag": f'"{_git_oid(data)}"'})

    def _stored(self, sha256: str) -> None:
        for repository in self.repositories:
            for name, data in repository.files.items():
                if _lfs(name) and hashlib.sha256(data).hexdigest() == sha256:
                    return self._file(data, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})
        raise _Refusal(404, "", "no such object")

    def _find(self, kind: str, path: str) -> tuple[Repository, str]:
        for repository in self.repositories:
            if repository.kind == kind and (path + "/").startswith(repository.name + "/"):
                return repository, path[len(repository.name) + 1 :]
        # The hub does not tell a stranger whether a repository is private or not there.
        raise _Refusal(401, "RepoNotFound", "Repository not found")

    def _allow(self, repository: Repository) -> None:
        if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
            raise _Refusal(401, "GatedRepo", f"Access to {repository.name} is restricted. You must have access to it.")

    def _check_revision(self, repository: Repository, revision: str) -> None:
        if revision not in (repository.commit, "main"):
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, data: bytes, headers: dict[str, str]) -> None:
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes="):
            self._send(200, data, headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first or 0), min(int(last or len(data) - 1), len(data) - 1)
        if start >= len(data):
            self._send(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        ranged = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        self._send(206, data[start : end + 1], headers | ranged)

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _tree(repository: Repository, folder: str, *, recursive: bool = True) -> list[dict[str, object]]:
    """What a folder holds, as the hub lists it; all of it and not one level only, which its readers filter anyway."""
    prefix = f"{folder}/" if folder else ""
    found: list[dict[str, object]] = []
    for name, data in sorted(repository.files.items()):
        if not name.startswith(prefix):
            continue
        entry: dict[str, object] = {"type": "file", "oid": _git_oid(data), "size": len(data), "path": name}
        if _lfs(name):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        found.append(entry)
    if not found and folder:
        raise _Refusal(404, "EntryNotFound", f"{folder} does not exist")
    return found


def _paths(body: bytes) -> set[str]:
    """The paths of a paths-info request, which is sent as JSON or as a form."""
    try:
        asked = json.loads(body)["paths"]
    except ValueError:
        asked = parse_qs(body.decode()).get("paths", [])
    return {asked} if isinstance(asked, str) else set(asked)


def _lfs(name: str) -> bool:
    return Path(name).suffix in LFS_SUFFIXES


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
