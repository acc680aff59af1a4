"""One file of a web server: `https://host/path/model.gguf`, pinned by its sha256."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from pipeline.clients.http import Head, Reply
from pipeline.clients.loopback import is_loopback
from pipeline.clients.web import Web
from pipeline.core.errors import Corrupt, Missing, MpError, Refused
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import Absorb, SourceSpec
from pipeline.sources.choice import choose
from pipeline.sources.facts import TELLING_BYTES, facts, telling
from pipeline.sources.kinds import Kind, kind_of
from pipeline.sources.safety import require_safe

DIGEST = "sha256:"


class HttpsSource:
    """Web servers; `http://` too, where the sha256 is said or the server is this machine."""

    def __init__(self, web: Web, absorb: Absorb, now: Callable[[], float] = time.time) -> None:
        self._web = web
        self._absorb = absorb
        self._now = now

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        """With a digest as version: one HEAD for the size, or nothing when it is known. Without one the file is read once.

        Then its sha256 is trusted from now on: see `trusted_at_first` in pipeline/sources.
        """
        name, wanted = _name(spec), _wanted(spec)
        choice = choose(spec, {name: 0})
        if known is not None and wanted and _is_known(spec, known, wanted):
            return known
        head = self._web.head(spec.reference)
        _require_trusted(spec.reference, wanted, head.url)
        content = {path: self._read(spec, wanted, head) for path in telling([name])}
        require_safe(spec, choice, content)  # before it is read whole
        entry = self._entry(spec, name, wanted, head)
        _require_as_hashed(spec, content, entry)
        require_safe(spec, choice, content, {name: entry.sha256}, DIGEST + entry.sha256)
        pin = f"sha256-{entry.sha256}"
        return Artifact(spec.reference, spec.version, pin, (entry,), facts(content), spec.filter)

    @contextlib.contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        """The bytes at the address now. Another length is found here, other bytes by whoever verifies them."""
        if entry not in artifact.files:
            raise Missing(artifact.source, f'has no "{entry.path}"', "run mp lock")
        with self._web.open(artifact.source, start) as reply:
            size_bytes = _size(reply.head)
            if size_bytes is not None and size_bytes != entry.size_bytes:
                raise Corrupt(
                    artifact.source,
                    f"has {size_bytes:,} bytes now and not {entry.size_bytes:,} (sha256 {entry.sha256[:12]}…)",
                    _renew(artifact.version),
                )
            yield reply.body

    def _entry(self, spec: SourceSpec, name: str, wanted: str, head: Head) -> FileEntry:
        size_bytes = _size(head)
        if wanted and size_bytes is not None:
            return FileEntry(name, size_bytes, wanted)
        found, size_bytes = self._absorb(
            self._identity(spec.reference, head, size_bytes),
            size_bytes,
            lambda start: self._unchanged(spec, wanted, head, start),
            keep=spec.kept,
        )
        if wanted and found != wanted:
            raise Corrupt(spec.reference, f"has sha256 {found} and not {wanted}", _renew(spec.version))
        return FileEntry(name, size_bytes, found)

    def _identity(self, url: str, head: Head, size_bytes: int | None) -> str:
        """One line that names these bytes; a server that says nothing to know them by is read every time."""
        etag, modified = head.headers.get("etag", ""), head.headers.get("last-modified", "")
        if size_bytes is None or not (etag or modified):
            return f"{url} at={self._now()}"
        return f"{url} etag={etag} modified={modified} size={size_bytes}"

    @contextlib.contextmanager
    def _unchanged(self, spec: SourceSpec, wanted: str, head: Head, start: int) -> Iterator[BinaryIO]:
        """The bytes that `head` speaks of: nothing else would tell a mixture of two files."""
        with self._web.open(spec.reference, start) as reply:
            _require_trusted(spec.reference, wanted, reply.head.url)
            _require_same(spec.reference, head, reply)
            yield reply.body

    def _read(self, spec: SourceSpec, wanted: str, head: Head) -> bytes:
        """A file that tells of the model, or may name code; none is larger."""
        with self._unchanged(spec, wanted, head, 0) as body:
            return body.read(TELLING_BYTES)


def _name(spec: SourceSpec) -> str:
    """What the file is called in the model's folder: the last part of the address, decoded."""
    name = unquote(urlsplit(spec.reference).path).rpartition("/")[2]
    if kind_of(name) is Kind.UNKNOWN and not spec.filter.allow:
        raise MpError(
            f'{spec.reference}: "{name}" is no file that engines read',
            "https:// is one file: name a .gguf or .safetensors; a folder comes from hf://, oci:// or s3://",
        )
    return name


def _wanted(spec: SourceSpec) -> str:
    """The sha256 that the user said, 64 hex; "" when nobody did."""
    if spec.version and not spec.version.startswith(DIGEST):
        hint = 'a web server has no versions: write version: "sha256:<64 hex>", or leave it out'
        raise Refused(f'{spec.reference}: version "{spec.version}" is no sha256', hint)
    return spec.version.removeprefix(DIGEST)


def _require_trusted(source: str, wanted: str, url: str) -> None:
    """Without TLS anybody on the way may change the bytes: then only a sha256 tells."""
    parts = urlsplit(url)
    if wanted or parts.scheme == "https" or is_loopback(parts.netloc.rpartition("@")[2]):
        return
    hint = f'use https://, or say which bytes are meant: version: "{DIGEST}<64 hex>"'
    raise Refused(f"{source}: http:// from {parts.hostname} is not safe without a sha256", hint)


def _require_same(source: str, head: Head, reply: Reply) -> None:
    for name in ("etag", "last-modified"):
        before, now = head.headers.get(name), reply.head.headers.get(name)
        if before is not None and now is not None:
            if before != now:
                raise Corrupt(source, "changed while it was read", "run it again")
            return


def _require_as_hashed(spec: SourceSpec, content: Mapping[str, bytes], entry: FileEntry) -> None:
    found = content.get(entry.path)
    if found is not None and sha256(found).hexdigest() != entry.sha256:
        said = sha256(found).hexdigest()
        raise Corrupt(spec.reference, f"has sha256 {said} and not {entry.sha256}", _renew(spec.version))


def _size(head: Head) -> int | None:
    """Of the whole file, in bytes; None when the server does not say it."""
    span, length = head.headers.get("content-range", ""), head.headers.get("content-length", "")
    if span:
        total = span.rpartition("/")[2]
        return int(total) if total.isdecimal() else None
    return int(length) if length.isdecimal() else None


def _is_known(spec: SourceSpec, known: Artifact, wanted: str) -> bool:
    same = (known.source, known.version, known.filter) == (spec.reference, spec.version, spec.filter)
    return same and known.pin == f"sha256-{wanted}"


def _renew(version: str) -> str:
    if version:
        return "the address gives another file now: write its sha256, or an address that has the old one"
    return "run mp lock --upgrade to take what is there now"
