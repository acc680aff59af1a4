"""A Hugging Face Hub on loopback that keeps the contract of the real client, with faults on request and a log of requests."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.core.frozen import frozen
from tests.parts.lfs import (
    LFS_SUFFIXES,
    Content,
    blocks,
    flipped,
    git_sha1,
    pointer,
    sha256_of,
    sibling,
    stored,
    tree_entry,
)


@frozen
class Request:
    """One line of the log; headers are lower case."""

    method: str
    host: str
    path: str  # with its query
    headers: Mapping[str, str]


MOST_S = 60.0  # that an answer is held back


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" matches `pattern`, `times` times."""

    pattern: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after_bytes: int | None = None  # the connection breaks in the body
    corrupt_at: int | None = None  # one bit of this byte of the file is flipped
    resized_to: int | None = None  # the file has so many bytes, and the answer says so
    ignore_range: bool = False
    stall_s: float = 0.0  # nothing is sent for so long
    until: threading.Event | None = None  # nothing is sent before it is set


@dataclass
class Repository:
    """Commits by id, and the names that point to them."""

    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False  # readable with a token of `readers` only
    private: bool = False
    readers: set[str] = field(default_factory=set)
    license: str | list[str] | None = None
    license_name: str | None = None
    xet: dict[str, str] = field(
        default_factory=dict
    )  # path → hash of what is in Xet alone, at FakeHub.xet_store

    def find(self, revision: str) -> str | None:
        name = self.branches.get(revision) or self.tags.get(revision) or revision
        return name if name in self.commits else None


class FakeHub:
    """Use as a context manager; `endpoint` is what HF_ENDPOINT wants."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens: set[str] = set()  # known to the Hub; others are refused everywhere
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.moved: dict[str, str] = {}  # repositories that were renamed: old name → new one
        self.xet_store = ""  # endpoint of a store of hf_xet
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        hub = self

        class Handler(_Handler):
            HUB = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commit(self, name: str, files: Mapping[str, Content], branch: str = "main") -> str:
        """A new commit with exactly these files; the branch moves to it."""
        repository = self.repositories.setdefault(name, Repository())
        listed = [(path, sha256_of(content)) for path, content in sorted(files.items())]
        commit = hashlib.sha1(json.dumps([len(repository.commits), listed]).encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.branches[branch] = commit
        return commit

    def asked(self, pattern: str = "") -> list[Request]:
        """The requests whose "METHOD /path" matches."""
        with self._guard:
            return [each for each in self.log if re.search(pattern, f"{each.method} {each.path}")]

    def remember(self, request: Request) -> Fault | None:
        """Log a request; the fault that is due for it."""
        with self._guard:
            self.log.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, f"{request.method} {request.path}"):
                    fault.times -= 1
                    return fault
        return None

    def wait(self, stall_s: float) -> None:
        self._stopping.wait(stall_s)

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Answer(Exception):
    """An error as the Hub words it."""

    def __init__(self, status: int, code: str = "", message: str = "", location: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code} if code else {}
        if location:
            self.headers["Location"] = location
        if message:
            self.headers["X-Error-Message"] = message


class _Handler(BaseHTTPRequestHandler):
    HUB: ClassVar[FakeHub]
    protocol_version = "HTTP/1.1"
    fault: Fault | None = None

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """The log is `FakeHub.log`."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.form = parse_qs(self.rfile.read(length).decode()) if length else {}
        lowered = {name.lower(): value for name, value in self.headers.items()}
        self.fault = self.HUB.remember(Request(self.command, lowered.get("host", ""), self.path, lowered))
        try:
            if self.fault is not None and self.fault.stall_s:
                self.HUB.wait(self.fault.stall_s)
            if self.fault is not None and self.fault.until is not None:
                self.fault.until.wait(MOST_S)
            if self.fault is not None and self.fault.status is not None:
                raise _Answer(self.fault.status)
            self._route(unquote(urlsplit(self.path).path))
        except _Answer as problem:
            extra = dict(self.fault.headers) if self.fault is not None else {}
            self._send(problem.status, {**problem.headers, **extra}, b"")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, path: str) -> None:
        routes: list[tuple[str, Callable[..., None]]] = [
            (r"/lfs/([0-9a-f]{64})", self._lfs),
            (r"/api/models/([^/]+/[^/]+)", self._model),
            (r"/api/models/([^/]+/[^/]+)/revision/(.+)", self._model),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            (r"/api/models/([^/]+/[^/]+)/commits/([^/]+)", self._commits),
            (r"/api/models/([^/]+/[^/]+)/refs", self._refs),
            (r"/api/models/([^/]+/[^/]+)/paths-info/(.+)", self._paths_info),
            (r"/api/models/([^/]+/[^/]+)/auth-check", self._auth_check),
            (r"/api/models/([^/]+/[^/]+)/xet-read-token/([^/]+)", self._xet_token),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ]
        for pattern, answer in routes:
            if found := re.fullmatch(pattern, path):
                self._follow(*found.groups())
                return answer(*found.groups())
        raise _Answer(404)

    def _follow(self, name: str, *rest: str) -> None:
        """A renamed repository answers with its new place."""
        if new := self.HUB.moved.get(name):
            raise _Answer(307, location=self.path.replace(name, new, 1))

    def _token(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if token is not None and token not in self.HUB.tokens:
            raise _Answer(401, message="Invalid credentials in Authorization header")
        return token

    def _repository(self, name: str, *, content: bool) -> Repository:
        token = self._token()
        repository = self.HUB.repositories.get(name)
        if repository is None or (repository.private and token not in repository.readers):
            raise _Answer(404 if token else 401, "RepoNotFound", "Repository not found")
        if content and repository.gated and token not in repository.readers:
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            raise _Answer(403 if token else 401, "GatedRepo", message)
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.find(revision)
        if commit is None:
            raise _Answer(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _model(self, name: str, revision: str = "main") -> None:
        repository = self._repository(name, content=False)
        commit = self._commit(repository, revision)
        files = repository.commits[commit]
        self._send_json(
            {
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "createdAt": "2026-01-01T00:00:00.000Z",
                "lastModified": "2026-01-01T00:00:00.000Z",
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "cardData": _card(repository),
                "siblings": [sibling(path, content) for path, content in sorted(files.items())],
            }
        )

    def _tree(self, name: str, revision: str) -> None:
        repository = self._repository(name, content=False)
        files = repository.commits[self._commit(repository, revision)]
        self._send_json([tree_entry(path, content) for path, content in sorted(files.items())])

    def _paths_info(self, name: str, revision: str) -> None:
        repository = self._repository(name, content=False)
        files = repository.commits[self._commit(repository, revision)]
        wanted = [path for path in self.form.get("paths", []) if path in files]
        self._send_json([tree_entry(path, files[path]) for path in wanted])

    def _commits(self, name: str, revision: str) -> None:
        """The newest one alone, in the form of `?limit=1`; each was made a day after the one before."""
        repository = self._repository(name, content=False)
        commit = self._commit(repository, revision)
        day = 1 + [*repository.commits].index(commit)
        self._send_json(
            [{"id": commit, "date": f"2026-01-{day:02d}T10:57:45.000Z", "title": "", "authors": []}]
        )

    def _refs(self, name: str) -> None:
        repository = self._repository(name, content=False)

        def named(kind: str, names: Mapping[str, str]) -> list[dict[str, str]]:
            return [
                {"name": each, "ref": f"refs/{kind}/{each}", "targetCommit": commit}
                for each, commit in sorted(names.items())
            ]

        self._send_json(
            {
                "branches": named("heads", repository.branches),
                "tags": named("tags", repository.tags),
                "converts": [],
            }
        )

    def _auth_check(self, name: str) -> None:
        self._repository(name, content=True)
        self._send_json({})

    def _xet_token(self, name: str, revision: str) -> None:
        """As the real one, for hf_xet: where its store is, and the right to read there for an hour."""
        self._repository(name, content=True)
        expires = int(time.time()) + 3600
        self._send_json({"casUrl": self.HUB.xet_store, "accessToken": "xet", "exp": expires})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, content=True)
        commit = self._commit(repository, revision)
        content = repository.commits[commit].get(path)
        if content is None:
            raise _Answer(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if xet_hash := repository.xet.get(path):
            token_url = f"{self.HUB.endpoint}/api/models/{name}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{token_url}>; rel="xet-auth"'}
            if self.command == "GET":
                raise _Answer(403)
        if not path.endswith(LFS_SUFFIXES):
            return self._send_range(content, headers | {"ETag": f'"{git_sha1(stored(path, content))}"'})
        sha256 = sha256_of(content)
        headers |= {
            "ETag": f'"{git_sha1(pointer(content))}"',
            "X-Linked-ETag": f'"{sha256}"',
            "X-Linked-Size": str(len(content)),
            # another host name than the endpoint's, as the real one: a client must not take its token there
            "Location": f"http://localhost:{self.HUB.port}/lfs/{sha256}?X-Amz-Signature=signed-secret",
        }
        return self._send(302, headers, b"")

    def _lfs(self, sha256: str) -> None:
        if "Authorization" in self.headers:  # as S3: "only one auth mechanism allowed"
            raise _Answer(400)
        if "X-Amz-Signature=" not in self.path:
            raise _Answer(403)
        for repository in self.HUB.repositories.values():
            for files in repository.commits.values():
                for path, content in files.items():
                    if path.endswith(LFS_SUFFIXES) and sha256_of(content) == sha256:
                        return self._send_range(content, {"ETag": f'"{sha256}"'})
        raise _Answer(404)

    def _send_range(self, content: Content, headers: Mapping[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.fault is not None and self.fault.corrupt_at is not None:
            content = flipped(content, self.fault.corrupt_at)
        if self.fault is not None and self.fault.resized_to is not None:
            content = b"".join(blocks(content, 0, len(content))).ljust(self.fault.resized_to)[
                : self.fault.resized_to
            ]
        size_bytes = len(content)
        if asked is None or (self.fault is not None and self.fault.ignore_range):
            return self._send_blocks(200, headers, size_bytes, blocks(content, 0, size_bytes))
        start, end = int(asked[1]), min(int(asked[2] or size_bytes - 1), size_bytes - 1) + 1
        if start >= size_bytes:
            return self._send(416, {"Content-Range": f"bytes */{size_bytes}"}, b"")
        headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size_bytes}"}
        return self._send_blocks(206, headers, end - start, blocks(content, start, end))

    def _send_json(self, value: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._send_blocks(status, headers, len(body), iter([body]))

    def _send_blocks(
        self, status: int, headers: Mapping[str, str], size_bytes: int, blocks: Iterator[bytes]
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()
        if self.command == "HEAD":
            return
        left = size_bytes
        if self.fault is not None and self.fault.cut_after_bytes is not None:
            left = self.fault.cut_after_bytes
            self.close_connection = True
        for block in blocks:
            self.wfile.write(block[:left])
            left -= len(block)
            if left <= 0:
                break


def _card(repository: Repository) -> dict[str, object]:
    said = {"license": repository.license, "license_name": repository.license_name}
    return {name: value for name, value in said.items() if value}
