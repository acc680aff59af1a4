"""A repository as an OCI image layout in a folder: blobs by digest, tags in index.json. Opened through clients/oci.

A first apply makes thousands of these files: paths are strings and the calls are the system's own.
"""
# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH116, PTH123

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.clients.oci import unlinking
from pipeline.clients.oci.closure import named
from pipeline.clients.oci.referrers import (
    delist,
    described,
    enlisted,
    is_list_tag,
    list_tag,
    listed,
    of_type,
    subject_of,
)
from pipeline.clients.oci.repository import INDEX, Chunks, Descriptor, ImageManifest, Tagged, held
from pipeline.core.digest import Digest, Json, canonical
from pipeline.core.errors import BackendError, Corrupt, Denied, Exhausted, Missing

REF_NAME = "org.opencontainers.image.ref.name"
_MARKER = b'{"imageLayoutVersion":"1.0.0"}'
_PARTIAL = ".partial-"
_HASHED_BYTES = 64 * 2**20  # smaller blobs are hashed again before a new image names them
_PRUNING = ".pruning"  # what a removal is about to unlink
_LOOSE_S = 86400  # a blob without a name for so long waits for no image any more
_ABANDONED_S = 3600  # an upload that did not grow for so long has no writer any more


class LayoutRepository:
    """`<layout>/<name>/`; repositories of one layout share blobs by hard link."""

    def __init__(self, layout: str, name: str, now: Callable[[], float] = time.time) -> None:
        self._layout = layout
        self._folder = f"{layout}/{name}"
        self._now = now
        self._made = False  # the folders are known to be there

    @property
    def location(self) -> str:
        return self._folder

    def head(self, reference: str) -> tuple[Digest, int] | None:
        found = self.describe(reference)
        return (found.digest, found.size_bytes) if found else None

    def describe(self, reference: str) -> Tagged | None:
        if reference.startswith("sha256:"):
            manifest = self.manifest(reference)
            return manifest.tagged() if manifest else None
        for descriptor in self._index():
            annotations = descriptor["annotations"]
            if annotations.get(REF_NAME) == reference:
                image, kind = Digest(descriptor["digest"]), descriptor["mediaType"]
                tagged = Tagged(image, descriptor["size"], annotations, kind)
                return tagged if self._holds(tagged.digest, tagged.size_bytes) else None
        return None

    def manifest(self, reference: str) -> ImageManifest | None:
        digest = reference
        if not reference.startswith("sha256:"):
            tagged = self.describe(reference)
            if tagged is None:
                return None
            digest = tagged.digest
        body = self.blob(Digest(digest))
        if body is None:
            return None
        media_type = json.loads(body).get("mediaType", "application/vnd.oci.image.manifest.v1+json")
        return ImageManifest(body, media_type)

    def tags(self) -> tuple[str, ...]:
        names = (descriptor["annotations"].get(REF_NAME) for descriptor in self._index())
        return tuple(sorted(name for name in names if name and not is_list_tag(name)))

    def has(self, digest: Digest, size_bytes: int | None = None) -> bool:
        return self._holds(digest, size_bytes)

    def keeps(self, digest: Digest, size_bytes: int) -> bool:
        return self._is_sound(self._path(digest), digest, size_bytes)

    def blob(self, digest: Digest) -> bytes | None:
        with _disk(self._folder):
            try:
                body = Path(self._path(digest)).read_bytes()
            except FileNotFoundError:
                return None
        if hashlib.sha256(body).hexdigest() != digest[7:]:
            raise Corrupt(self._folder, f"blob {digest} is damaged", f"remove {self._path(digest)}")
        return body

    @contextlib.contextmanager
    def open_blob(self, digest: Digest, start: int = 0) -> Iterator[BinaryIO]:
        try:
            handle = Path(self._path(digest)).open("rb")  # noqa: SIM115  # closed below
        except FileNotFoundError:
            raise Missing(self._folder, f"no blob {digest}", "run mp apply") from None
        with handle:
            handle.seek(start)
            yield handle

    def mount(self, digest: Digest, from_repository: str, size_bytes: int | None = None) -> bool:
        source = f"{self._layout}/{from_repository}/{_blob(digest)}"
        if not self._is_sound(source, digest, size_bytes):
            return False
        with _disk(self._folder):
            self._prepare()
        try:
            with self._partial() as partial:
                os.link(source, partial)
                os.replace(partial, self._path(digest))  # what is there may be damaged
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)  # rename(2) leaves it where both were one file already
        except OSError:  # gone meanwhile, or a file system without links
            return False
        return True

    def push(self, digest: Digest | None, size_bytes: int, chunks: Chunks) -> Digest:
        with _disk(self._folder, size_bytes):
            self._prepare()
            with self._partial() as partial:
                found, written = _write(partial, chunks)
                if written != size_bytes or (digest is not None and found != digest):
                    raise Corrupt(
                        self._folder, f"{written:,} bytes with {found} came instead of {digest or size_bytes}"
                    )
                os.replace(partial, self._path(found))
        return found

    def put_manifest(self, reference: str, manifest: ImageManifest) -> Digest:
        digest = manifest.digest
        if not self.keeps(digest, len(manifest.body)):
            self.push(digest, len(manifest.body), held(manifest.body))
        descriptor: dict[str, Json] = {
            "mediaType": manifest.media_type,
            "digest": digest,
            "size": len(manifest.body),
        }
        if reference.startswith("sha256:"):
            return digest
        # What a reader of the tag wants to know stands in the index: it need not open the image manifest.
        own = {key: value for key, value in manifest.annotations().items() if key.startswith("dev.mp.")}
        descriptor["annotations"] = {**own, REF_NAME: reference}
        with _disk(self._folder), self._alone():
            others = [d for d in self._index() if d["annotations"].get(REF_NAME) != reference]
            ordered = sorted([*others, descriptor], key=canonical)
            self._replace("index.json", _document(ordered))
            self._clean()
        return digest

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        found = self.manifest(list_tag(digest))
        return of_type(listed(found.body, self._folder) if found else (), artifact_type)

    def put_referrer(self, manifest: ImageManifest, *more: ImageManifest) -> Digest:
        tag, manifests = list_tag(subject_of(manifest)), (manifest, *more)
        for each in manifests:
            self.put_manifest(each.digest, each)
        with _disk(self._folder), self._alone("blobs"):  # put_manifest locks the folder itself
            added = [described(each) for each in manifests]
            if index := enlisted(self.manifest(tag), added, self._folder):
                self.put_manifest(tag, index)
        return manifest.digest

    def drop_referrer(self, manifest: ImageManifest) -> None:
        if not Path(self._folder, "blobs").is_dir():
            return
        tag = list_tag(subject_of(manifest))
        with _disk(self._folder), self._alone("blobs"):
            delist(
                manifest.digest,
                lambda: self.manifest(tag),
                lambda index: self.put_manifest(tag, index),
                lambda listing: self.remove((listing,)),
                self._folder,
            )
        self.remove((manifest.digest,))

    def untagged(self) -> tuple[Digest, ...]:
        return tuple(Digest(d["digest"]) for d in self._index() if REF_NAME not in d["annotations"])

    def loose(self) -> tuple[Digest, ...]:
        with _disk(self._folder):
            return tuple(sorted(self._doomed() - self._named(self._index())))

    def paths(self, blobs: Iterable[Digest]) -> tuple[Path, ...]:
        return tuple(Path(self._path(blob)) for blob in blobs)

    def remove(self, manifests: Sequence[Digest]) -> int:
        """First the names go, in one step; what a kill leaves of the blobs is written down, and is loose to the next call."""
        if not Path(self._folder, "blobs").is_dir():
            return 0
        with _disk(self._folder), self._alone():
            index = [d for d in self._index() if d["digest"] not in manifests]
            doomed = self._doomed().union(*(named(self, image) for image in manifests)) - self._named(index)
            self._replace(_PRUNING, canonical(sorted(doomed)))
            self._replace("index.json", _document(index))
            freed_bytes = sum(map(unlinking.remove, self.paths(sorted(doomed))))
            os.unlink(f"{self._folder}/{_PRUNING}")
        return freed_bytes

    def _doomed(self) -> set[Digest]:
        """Blobs that a killed removal wrote down, and those that nobody touched for long; images may name some of them."""
        try:
            with open(f"{self._folder}/{_PRUNING}", "rb") as handle:
                found = {Digest(digest) for digest in json.loads(handle.read())}
        except FileNotFoundError:
            found = set()
        before = self._now() - _LOOSE_S
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{self._folder}/blobs/sha256") as blobs:
            # a link that another repository made of an old blob is new by its ctime
            found |= {Digest(f"sha256:{blob.name}") for blob in blobs if blob.stat().st_ctime < before}
        return {digest for digest in found if os.path.exists(self._path(digest))}

    def _named(self, index: Iterable[Mapping[str, Any]]) -> frozenset[Digest]:
        """Lists of referrers stand in the index too: what points at images is among it."""
        return frozenset(blob for d in index for blob in named(self, Digest(d["digest"])))

    def _path(self, digest: Digest) -> str:
        return f"{self._folder}/{_blob(digest)}"

    def _holds(self, digest: Digest, size_bytes: int | None) -> bool:
        return _fits(self._size(self._path(digest)), size_bytes)

    def _size(self, path: str) -> int | None:
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise _named(problem, self._folder) from problem

    def _is_sound(self, path: str, digest: Digest, size_bytes: int | None) -> bool:
        """Its size fits, and its hash where that is cheap; a large blob that rots is noticed by whoever pulls it."""
        found = self._size(path)
        if found is None or not _fits(found, size_bytes):
            return False
        if found >= _HASHED_BYTES:
            return True
        with _disk(self._folder), open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == digest[7:]

    # The descriptors are JSON of a file that only this class and its like write; `annotations` is always there.
    def _index(self) -> list[dict[str, Any]]:
        try:
            with open(f"{self._folder}/index.json", "rb", buffering=0) as handle:
                text = handle.read()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as problem:
            raise _named(problem, self._folder) from problem
        try:
            descriptors = json.loads(text)["manifests"]
            for descriptor in descriptors:
                descriptor.setdefault("annotations", {})
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise Corrupt(
                self._folder, "index.json is not the index of an OCI layout", "move the folder away"
            ) from problem
        return list(descriptors)

    def _replace(self, name: str, body: bytes) -> None:
        with self._partial() as partial:
            _write(partial, held(body))
            os.replace(partial, f"{self._folder}/{name}")

    @contextlib.contextmanager
    def _partial(self) -> Iterator[str]:
        """A name for a file that is not whole yet; nothing is left there unless this process is killed."""
        partial = f"{self._folder}/{_PARTIAL}{os.urandom(8).hex()}"
        try:
            yield partial
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise

    def _prepare(self) -> None:
        """The folders, then the marker that says that they are there."""
        if self._made:
            return
        os.makedirs(f"{self._folder}/blobs/sha256", exist_ok=True)
        if not os.path.exists(f"{self._folder}/oci-layout"):
            self._replace("oci-layout", _MARKER)
        self._made = True

    @contextlib.contextmanager
    def _alone(self, below: str = ".") -> Iterator[None]:
        """One writer at a time on this machine: of the index, or of what another folder stands for."""
        self._prepare()
        folder = os.open(f"{self._folder}/{below}", os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _clean(self) -> None:
        """Remove what killed writers left behind."""
        with os.scandir(self._folder) as leftovers:
            for leftover in leftovers:
                if not leftover.name.startswith(_PARTIAL):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if leftover.stat().st_mtime < time.time() - _ABANDONED_S:
                        Path(leftover.path).unlink()


def _fits(found: int | None, size_bytes: int | None) -> bool:
    return found is not None and (found > 0 if size_bytes is None else found == size_bytes)


def _document(index: Sequence[Mapping[str, Any]]) -> bytes:
    return canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(index)})


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _write(path: str, chunks: Chunks) -> tuple[Digest, int]:
    hasher = hashlib.sha256()
    written = 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for chunk in chunks(0):
            hasher.update(chunk)
            done = os.write(handle, chunk)
            while done < len(chunk):  # a full disk takes a part; the next call says why
                done += os.write(handle, memoryview(chunk)[done:])
            written += done
    finally:
        os.close(handle)
    return Digest("sha256:" + hasher.hexdigest()), written


@contextlib.contextmanager
def _disk(folder: str, needed_bytes: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise _named(problem, folder, needed_bytes) from problem


def _named(problem: OSError, folder: str, needed_bytes: int = 0) -> BackendError:
    match problem.errno:
        case errno.ENOSPC | errno.EDQUOT:
            wants = f"{needed_bytes:,} bytes are needed and " if needed_bytes else ""
            there = next(place for place in (Path(folder), *Path(folder).parents) if place.exists())
            text = f"the disk is full: {wants}{shutil.disk_usage(there).free:,} are free"
            return Exhausted(folder, text, "free some space, then run it again")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Denied(folder, problem.strerror or "denied", "let this user write there")
        case _:
            return BackendError(folder, problem.strerror or str(problem))
