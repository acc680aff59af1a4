"""Models in a bucket of S3 or a compatible store: `s3://bucket/prefix` or `s3://bucket/key.gguf`, pinned by their content."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import BinaryIO, TypeAlias

from pipeline.clients.s3 import S3, S3Object
from pipeline.core.digest import fingerprint
from pipeline.core.errors import Corrupt, Missing, Refused
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import Absorb, SourceSpec
from pipeline.sources.choice import Choice, choose
from pipeline.sources.facts import TELLING_BYTES, facts, telling
from pipeline.sources.kinds import Kind, kind_of
from pipeline.sources.safety import require_safe

DIGEST = "sha256:"
ONE_FILE = frozenset({Kind.SAFETENSORS, Kind.GGUF, Kind.PICKLE})  # a key that ends so is a file, not a prefix

Listing: TypeAlias = Mapping[str, S3Object]  # by path in the model's folder


class S3Source:
    """One store; which one is no part of a reference."""

    def __init__(self, store: S3, absorb: Absorb) -> None:
        self._store = store
        self._absorb = absorb
        self._seen: dict[
            tuple[str, str, str], S3Object
        ] = {}  # by source, path and sha256: what is read again

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        """List once, choose, and learn the sha256 of each file: from the store, else by reading it once.

        `version` may be the VersionId of a single file, or a digest, which is then required: the pin's, or the single
        file's own.
        """
        if known is not None and _is_settled(spec, known):
            return known
        listing = self._list(spec)
        choice = choose(spec, {path: each.size_bytes for path, each in listing.items()})
        if known is None:  # before hours of reading
            require_safe(spec, choice, self._content(spec, choice, listing))
        entries = tuple(self._hashed(spec, path, listing[path]) for path in choice.paths)
        digest = fingerprint([[entry.path, entry.sha256, entry.size_bytes] for entry in entries])
        _require_digest(spec, digest, entries)
        if known is not None and _is_same(known, spec, f"sha256-{digest}"):
            return known  # equal content has equal facts
        content = self._content(spec, choice, listing)
        hashes = {entry.path: entry.sha256 for entry in entries}
        _require_as_hashed(spec, content, hashes)
        require_safe(spec, choice, content, hashes, DIGEST + digest)
        said, left_out_bytes = facts(content), choice.left_out_bytes
        pin = f"sha256-{digest}"
        return Artifact(spec.reference, spec.version, pin, entries, said, spec.filter, left_out_bytes)

    @contextlib.contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        """The locked version where the bucket keeps versions, else what is there if it is still the same."""
        with contextlib.ExitStack() as stack:
            yield self._enter(stack, artifact, entry, start)

    def _enter(
        self, stack: contextlib.ExitStack, artifact: Artifact, entry: FileEntry, start: int
    ) -> BinaryIO:
        bucket, _ = _place(artifact.source)
        name = (artifact.source, entry.path, entry.sha256)
        if (seen := self._seen.get(name)) is not None:
            with contextlib.suppress(Corrupt, Missing):  # overwritten since: an older version may be kept
                return stack.enter_context(self._store.open(bucket, seen, start))
        found = self._seen[name] = self._found(artifact, entry)
        return stack.enter_context(self._store.open(bucket, found, start))

    def _list(self, spec: SourceSpec) -> Listing:
        """The files of the model: one object, or what is below a prefix."""
        bucket, key = _place(spec.reference)
        version_id = "" if spec.version.startswith(DIGEST) else spec.version
        if kind_of(key) in ONE_FILE:
            try:
                return {_name(key): self._store.head(bucket, key, version_id)}
            except Missing:
                if version_id:
                    raise
        if version_id:
            hint = "leave version out: models.lock holds the hash of every file below a prefix"
            raise Refused(f'{spec.reference}: version "{version_id}" is of no single file', hint)
        found = self._store.list(bucket, f"{key}/")
        below = {each.key.removeprefix(f"{key}/"): each for each in found if not each.key.endswith("/")}
        if not below:
            hint = "check the bucket and the prefix"
            raise Missing(spec.reference, "there is no such object, and none below it", hint)
        return below

    def _hashed(self, spec: SourceSpec, path: str, listed: S3Object) -> FileEntry:
        """A file with its sha256. What metadata of the uploader say is not asked: anybody may write there."""
        bucket, _ = _place(spec.reference)
        found = listed
        if listed.has_sha256:
            found = self._store.head(bucket, listed.key)
        hashed = self._sha256(bucket, found, keep=spec.kept)
        self._seen[spec.reference, path, hashed] = found
        return FileEntry(path, found.size_bytes, hashed)

    def _sha256(self, bucket: str, found: S3Object, *, keep: bool) -> str:
        """As the store tells it, else by reading; an ETag stands for the same bytes as long as it is the same."""
        if found.sha256 is not None:
            return found.sha256
        identity = f"s3://{bucket}/{found.key} etag={found.etag} size={found.size_bytes}"
        return self._absorb(identity, found.size_bytes, self._opening(bucket, found), keep=keep)[0]

    def _opening(self, bucket: str, found: S3Object) -> Callable[[int], AbstractContextManager[BinaryIO]]:
        return lambda start: self._store.open(bucket, found, start)

    def _content(self, spec: SourceSpec, choice: Choice, listing: Listing) -> dict[str, bytes]:
        """The small files that tell of the model, or may name code."""
        bucket, _ = _place(spec.reference)
        content = {}
        for path in telling(listing):
            if listing[path].size_bytes <= TELLING_BYTES and (path in choice.paths or "/" not in path):
                with self._store.open(bucket, listing[path], 0) as stream:
                    content[path] = stream.read()
        return content

    def _found(self, artifact: Artifact, entry: FileEntry) -> S3Object:
        """The object that a locked file is: the newest when it fits, else an older version that the bucket kept."""
        bucket, key = _place(artifact.source)
        version_id = "" if artifact.version.startswith(DIGEST) else artifact.version
        if not (kind_of(key) in ONE_FILE and _name(key) == entry.path and len(artifact.files) == 1):
            key = f"{key}/{entry.path}"
        newest, gone = None, None
        try:
            newest = self._store.head(bucket, key, version_id)
            if _is_only(newest, entry) or (version_id and _fits(newest, entry)):
                return newest
        except Missing as problem:
            gone = problem
        if (found := self._kept(bucket, key, entry)) is not None:
            return found
        if newest is not None and _fits(newest, entry):
            return newest  # older versions may not be listed
        raise gone or Corrupt(
            artifact.source,
            f'"{entry.path}" is not what models.lock says (sha256 {entry.sha256[:12]}…) any more',
            "run mp lock --upgrade to take what is there now, or upload the old file again",
        )

    def _kept(self, bucket: str, key: str, entry: FileEntry) -> S3Object | None:
        """The version with the bytes of a locked file. Where several may have them and the store tells no sha256, they are read."""
        sized = [each for each in self._store.versions(bucket, key) if each.size_bytes == entry.size_bytes]
        told = [self._store.head(bucket, key, each.version_id or "") for each in sized]
        fitting = [each for each in told if _fits(each, entry)]
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        exact = [each for each in fitting if each.sha256 is not None]
        return next((e for e in exact + fitting if self._sha256(bucket, e, keep=False) == entry.sha256), None)


def _place(reference: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = reference.removeprefix("s3://").partition("/")
    return bucket, key


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _fits(found: S3Object, entry: FileEntry) -> bool:
    """As far as the store tells without reading; whoever reads verifies."""
    return found.size_bytes == entry.size_bytes and found.sha256 in (None, entry.sha256)


def _is_only(found: S3Object, entry: FileEntry) -> bool:
    """Nothing else can be meant: the store says the sha256, or it keeps no other version."""
    return _fits(found, entry) and (found.sha256 is not None or found.version_id is None)


def _is_same(known: Artifact, spec: SourceSpec, pin: str) -> bool:
    return (known.source, known.version, known.filter, known.pin) == (
        spec.reference,
        spec.version,
        spec.filter,
        pin,
    )


def _is_settled(spec: SourceSpec, known: Artifact) -> bool:
    """A digest names one content for ever."""
    return spec.version.startswith(DIGEST) and _is_same(known, spec, known.pin)


def _require_digest(spec: SourceSpec, digest: str, entries: tuple[FileEntry, ...]) -> None:
    """A digest is that of all files, as in the pin, or the file's own where there is one."""
    if not spec.version.startswith(DIGEST):
        return
    found = entries[0].sha256 if len(entries) == 1 else digest
    if spec.version.removeprefix(DIGEST) not in (found, digest):
        hint = "write the digest that is meant, or bring that content back"
        raise Corrupt(spec.reference, f"its content is {DIGEST}{found} and not {spec.version}", hint)


def _require_as_hashed(spec: SourceSpec, content: Mapping[str, bytes], hashes: Mapping[str, str]) -> None:
    for path, found in content.items():
        if path in hashes and sha256(found).hexdigest() != hashes[path]:
            hint = "run it again; if it stays so, upload the file anew"
            raise Corrupt(spec.reference, f'"{path}" is not what the store says of it', hint)
