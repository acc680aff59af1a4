"""One blob on its way into a registry: hashed while it is sent, gone on with where a connection broke. Used by clients/registry.

OCI distribution specification 1.1.0, "Pushing blobs": POST opens a session, PATCH adds bytes to it, PUT with the digest closes
it, and GET of its address says in `Range` how much the registry has. Measured with docker-registry 2.8.2: a session that was
cut inside a request is gone at the next question (its address holds the offset); one that ended between two requests stands.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from pipeline.clients.http import Busy
from pipeline.clients.oci.connection import Answer, Body, Connection, refusal
from pipeline.clients.oci.limits import Limits
from pipeline.clients.oci.repository import Chunks
from pipeline.core.digest import Digest
from pipeline.core.errors import BackendError, Corrupt, Denied, Unreachable
from pipeline.core.frozen import frozen

TRIES = 5  # in a row that bring the registry no new byte
PARTS = 16  # after a session was lost a blob goes in so many requests: another cut costs less
LEAST_PART_BYTES = 8 * 2**20  # Amazon ECR takes no smaller ones than 5 MiB, but the last
_EMPTY = {"Content-Length": "0"}
_LOST = re.compile(rb"BLOB_UPLOAD_(UNKNOWN|INVALID)")


class _Lost(Unreachable):
    """The registry knows nothing of the session any more."""


@frozen
class _Session:
    url: str
    has_bytes: int = 0
    least_part_bytes: int = 0  # what the registry wants at least in a request that is not the last


@frozen
class Repo:
    """Where a blob goes."""

    connection: Connection
    url: str  # "/v2/acme/qwen3"
    scope: str
    location: str  # for messages
    limits: Limits = Limits()


class Upload:
    """Sends one blob: in one request, or in parts where the registry's limits or a lost session ask for them."""

    def __init__(self, repo: Repo, digest: Digest | None, size_bytes: int, chunks: Chunks) -> None:
        self._repo = repo
        self._size_bytes = size_bytes
        self._part_bytes = repo.limits.max_request_bytes or 0  # 0: all that are left
        self._content = _Content(chunks, digest, size_bytes, repo.location)
        self._session: _Session | None = None
        self._broken = False  # nobody knows what the session has
        self._closing = False  # a request that ends the upload went out: it may have been heard
        self._resumed = False

    def run(self) -> Digest:
        """Raises Unreachable after TRIES without progress, Corrupt, Denied, Exhausted, and whatever the chunks raise."""
        failures = best_bytes = 0
        with contextlib.closing(self._content):
            while True:
                try:
                    if self._has_arrived():
                        return self._content.digest
                    return self._send(self._opened())
                except Unreachable as problem:
                    self._broken = True
                    reached_bytes = self._session.has_bytes if self._session else 0
                    failures = 1 if reached_bytes > best_bytes else failures + 1
                    best_bytes = max(best_bytes, reached_bytes)
                    if failures == TRIES:
                        raise self._given_up(problem) from problem
                    self._repo.connection.pause(failures, problem)

    def _has_arrived(self) -> bool:
        """Whether the registry heard a request whose answer was not seen."""
        if not (self._broken and self._closing):
            return False
        answer = self._ask("HEAD", f"{self._repo.url}/blobs/{self._content.digest}", {}, b"")
        return answer.status == 200 and answer.headers.get("content-length") == str(self._size_bytes)

    def _opened(self) -> _Session:
        """The session as the registry has it; a new one where it has none."""
        found = self._session
        if found and self._broken:
            found = self._asked(found)
            if found is None or not found.has_bytes:  # parts: the whole was too long for the way
                self._part_bytes = self._part_bytes or max(LEAST_PART_BYTES, self._size_bytes // PARTS)
            self._resumed = self._resumed or (found is not None and found.has_bytes > 0)
        self._session, self._broken = found, False
        if found is None:
            found = self._session = self._begun()
        return found

    def _begun(self) -> _Session:
        answer = self._ask("POST", f"{self._repo.url}/blobs/uploads/", _EMPTY, b"")
        if answer.status != 202:
            raise refusal(self._repo.location, answer)
        if "location" not in answer.headers:
            raise BackendError(self._repo.location, "gave no address for an upload")
        least = answer.headers.get("oci-chunk-min-length", "")  # OCI distribution 1.1.0
        return _Session(answer.headers["location"], 0, int(least) if least.isdecimal() else 0)

    def _asked(self, session: _Session) -> _Session | None:
        """What the registry says of a session; None: it has none that could be gone on with."""
        try:
            answer = self._ask("GET", session.url, {}, b"")
        except Denied:  # the right to push is not everywhere the right to ask
            return None
        has_bytes = _told(answer)
        if answer.status != 204 or has_bytes is None or has_bytes > self._content.position:
            return None
        return replace(session, url=answer.headers.get("location", session.url), has_bytes=has_bytes)

    def _send(self, session: _Session) -> Digest:
        if not self._patches:
            self._content.hash_all()
        while not self._content.is_hashed or self._end(session) < self._size_bytes:
            session = self._patch(session)
            if session.has_bytes == 0:  # no PATCH here
                return self._send(session)
        return self._put(session)

    @property
    def _patches(self) -> bool:
        return self._repo.limits.patch and self._repo.connection.patches

    def _end(self, session: _Session) -> int:
        """Where the next request ends: one that names a range may be limited, one that has all bytes is not."""
        if not self._patches:
            return self._size_bytes
        part_bytes = self._part_bytes
        if session.has_bytes or part_bytes:
            part_bytes = min(
                part_bytes or self._size_bytes, self._repo.limits.max_part_bytes or self._size_bytes
            )
            part_bytes = max(part_bytes, session.least_part_bytes)
        return min(session.has_bytes + (part_bytes or self._size_bytes), self._size_bytes)

    def _patch(self, session: _Session) -> _Session:
        """Add bytes to the session: all that are left, or a part."""
        start, end = session.has_bytes, self._end(session)
        headers = self._headers(start, end)
        if self._repo.limits.max_part_bytes and "Content-Range" not in headers:
            del headers["Content-Length"]  # as docker push does; measured: 0.6 s of CPU more for a GiB
        answer = self._ask("PATCH", session.url, headers, self._content.take(start, end))
        if answer.status in (405, 501) or (
            answer.status == 404 and start == 0 and not _LOST.search(answer.body)
        ):
            self._repo.connection.patches = False
            self._content.hash_all()
            self._session = self._begun()
            return self._session
        if answer.status not in (201, 202, 204):
            raise self._refused(answer)
        has_bytes = min(_told(answer) or end, end)
        if has_bytes <= start:
            raise Unreachable(self._repo.location, "takes no bytes", "try again later")
        url = answer.headers.get("location", session.url)
        self._session = replace(session, url=url, has_bytes=has_bytes)
        return self._session

    def _put(self, session: _Session) -> Digest:
        """Close the session, with the bytes that it lacks."""
        digest, start, end = self._content.digest, session.has_bytes, self._size_bytes
        url = f"{session.url}{'&' if urlsplit(session.url).query else '?'}digest={digest}"
        self._closing = True
        if start == end:
            answer = self._ask("PUT", url, _EMPTY, b"")
        else:
            answer = self._ask("PUT", url, self._headers(start, end), self._content.take(start, end))
        if answer.status in (201, 204):
            return digest
        raise self._refused(answer)

    def _headers(self, start: int, end: int) -> dict[str, str]:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
        if (start, end) != (0, self._size_bytes):
            headers["Content-Range"] = f"{start}-{end - 1}"
        return headers

    def _refused(self, answer: Answer) -> BackendError:
        """The error of an answer; Unreachable where another try may help."""
        problem = refusal(self._repo.location, answer)
        if answer.status == 416:
            return Unreachable(self._repo.location, "has other bytes than it said", "try again later")
        if answer.status in (400, 404) and _LOST.search(answer.body):
            self._session = None
            return _Lost(self._repo.location, "lost an upload that was on its way", "try again later")
        if isinstance(problem, Corrupt) and self._resumed:  # what it said it had was not ours
            self._session, self._resumed = None, False
            return _Lost(self._repo.location, "mixed up an upload that went on after a break")
        return problem

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> Answer:
        return self._repo.connection.once(method, url, scope=self._repo.scope, headers=headers, body=body)

    def _given_up(self, problem: Unreachable) -> Unreachable:
        """The last of several failures, and how far it came."""
        if self._size_bytes < LEAST_PART_BYTES or isinstance(problem, Busy):
            return problem
        has_bytes = self._session.has_bytes if self._session else 0
        why = problem.message.removeprefix(f"{problem.system}: ")
        message = f"{why}: {has_bytes:,} of {self._size_bytes:,} bytes of a layer arrived, {TRIES} tries brought no more"
        return Unreachable(self._repo.location, message, self._hint() or problem.hint)

    def _hint(self) -> str | None:
        window_s = self._repo.limits.window_s
        if window_s is None:
            return None
        return f"an upload may take {window_s} s there: if this line is slower, name max_request under registries:"


class _Content:
    """The bytes of a blob for requests of any cut; each is hashed once, however often it is sent."""

    def __init__(self, chunks: Chunks, digest: Digest | None, size_bytes: int, location: str) -> None:
        self._chunks = chunks
        self._known = digest
        self._size_bytes = size_bytes
        self._location = location
        self._hasher = hashlib.sha256()
        self._hashed_bytes = 0
        self._blocks: Iterator[bytes] = iter(())
        self._left = b""  # of a block that the last request did not want whole
        self._at = -1  # where the next block begins; -1: none is open
        self.position = 0  # the furthest that was ever handed out

    @property
    def is_hashed(self) -> bool:
        return self._known is not None or self._hashed_bytes == self._size_bytes

    @property
    def digest(self) -> Digest:
        assert self.is_hashed, "a digest is asked for when it is known"
        return self._known or Digest("sha256:" + self._hasher.hexdigest())

    def take(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes between two offsets; goes on with what is open when they follow it."""
        if start != self._at:
            self.close()
            self._blocks, self._at = self._chunks(start), start
        while self._at < end:
            block = self._left or self._next()
            piece, self._left = block[: end - self._at], block[end - self._at :]
            self._hash(piece)
            self._at += len(piece)
            self.position = max(self.position, self._at)
            if self._at == self._size_bytes and (self._left or self._block()):
                raise Corrupt(self._location, f"more than {self._size_bytes:,} bytes are there to be sent")
            yield piece

    def hash_all(self) -> None:
        """Read what was not hashed yet: before a registry that wants the digest first."""
        if not self.is_hashed:
            for _ in self.take(self._hashed_bytes, self._size_bytes):
                pass

    def close(self) -> None:
        """Leave nothing open behind; it may be read again."""
        if close := getattr(self._blocks, "close", None):
            close()
        self._blocks, self._left, self._at = iter(()), b"", -1

    def _block(self) -> bytes:
        try:
            return next((block for block in self._blocks if block), b"")
        except OSError as problem:  # it would look as if the connection had broken
            raise BackendError(
                self._location, f"what is sent cannot be read: {problem.strerror}"
            ) from problem

    def _next(self) -> bytes:
        block = self._block()
        if not block:
            raise Corrupt(
                self._location, f"only {self._at:,} of {self._size_bytes:,} bytes are there to be sent"
            )
        return block

    def _hash(self, piece: bytes) -> None:
        fresh = self._at + len(piece) - self._hashed_bytes
        if self._known is None and fresh > 0:
            self._hasher.update(memoryview(piece)[-fresh:])
            self._hashed_bytes += fresh


def _told(answer: Answer) -> int | None:
    """How many bytes a session has: "Range: 0-999" is 1,000. An empty one is "0-0", as docker-registry says it."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("range", ""))
    return None if found is None else int(found[1]) + 1 if int(found[1]) else 0
