"""A repository of an OCI registry, over HTTP. Opened through clients/oci."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode, urljoin

from pipeline.clients.oci.connection import Answer, Connection, refusal
from pipeline.clients.oci.limits import Limits
from pipeline.clients.oci.referrers import (
    delist,
    described,
    enlist,
    is_list_tag,
    list_tag,
    listed,
    of_type,
    subject_of,
)
from pipeline.clients.oci.repository import (
    BLOCK_BYTES,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Chunks,
    Descriptor,
    ImageManifest,
    Tagged,
)
from pipeline.clients.oci.upload import Repo, Upload
from pipeline.core.digest import Digest
from pipeline.core.digest import digest as digest_of
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Unreachable

_ACCEPT = {"Accept": ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST))}
_EMPTY = {"Content-Length": "0"}
_DELETES = "allow it there (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true), or delete by the registry's own means"


class RegistryRepository:
    """One repository; all those of a registry have the same prefix: "acme/models/", or nothing."""

    def __init__(self, connection: Connection, prefix: str, name: str, limits: Limits | None = None) -> None:
        self._connection = connection
        self._limits = limits or Limits()
        self._prefix = prefix
        self._path = f"{prefix}{name}"
        self._url = f"/v2/{self._path}"

    @property
    def location(self) -> str:
        return f"{self._connection.host}/{self._path}"

    def head(self, reference: str) -> tuple[Digest, int] | None:
        answer = self._read("HEAD", f"/manifests/{reference}", _ACCEPT)
        if answer is None:
            return None
        if "docker-content-digest" not in answer.headers:  # allowed by the specification: then the body tells
            manifest = self.manifest(reference)
            return (manifest.digest, len(manifest.body)) if manifest else None
        return Digest(answer.headers["docker-content-digest"]), int(answer.headers.get("content-length", 0))

    def describe(self, reference: str) -> Tagged | None:
        manifest = self.manifest(reference)
        return manifest.tagged() if manifest else None

    def manifest(self, reference: str) -> ImageManifest | None:
        answer = self._read("GET", f"/manifests/{reference}", _ACCEPT)
        if answer is None:
            return None
        found = ImageManifest(answer.body, answer.headers.get("content-type", MANIFEST).split(";")[0])
        if reference.startswith("sha256:") and found.digest != reference:
            raise Corrupt(self.location, f"what it gave as {reference} is {found.digest}")
        return found

    def tags(self) -> tuple[str, ...]:
        found: list[str] = []
        url: str | None = f"{self._url}/tags/list?n=1000"
        while url:
            answer = self._connection.request("GET", url, scope=self._scope("pull"))
            if answer.status == 404:
                break
            found += json.loads(self._expected(answer, 200).body).get("tags") or ()
            url = _next(answer.headers.get("link", ""), url)
        return tuple(sorted(tag for tag in found if not is_list_tag(tag)))

    def has(self, digest: Digest, size_bytes: int | None = None) -> bool:
        answer = self._read("HEAD", f"/blobs/{digest}", {})
        if answer is None:
            return False
        told = answer.headers.get("content-length")
        return size_bytes is None or told is None or told == str(size_bytes)

    def keeps(self, digest: Digest, size_bytes: int) -> bool:
        return self.has(digest, size_bytes)

    def blob(self, digest: Digest) -> bytes | None:
        answer = self._read("GET", f"/blobs/{digest}", {})
        if answer is None:
            return None
        if digest_of(answer.body) != digest:
            raise Corrupt(self.location, f"blob {digest} is damaged")
        return answer.body

    @contextlib.contextmanager
    def open_blob(self, digest: Digest, start: int = 0) -> Iterator[BinaryIO]:
        url = f"{self._url}/blobs/{digest}"
        with self._connection.opened(url, self._scope("pull"), start) as (status, stream):
            match status:
                case 200:
                    self._skip(digest, stream, start)  # the registry knows no ranges
                case 206:
                    pass
                case 404:
                    raise Missing(self.location, f"no blob {digest}", "run mp apply")
                case 416:
                    raise Corrupt(self.location, f"blob {digest} is shorter than it was said to be")
                case _:
                    raise Unreachable(self.location, f"answers {status} for blob {digest}", "try again later")
            yield stream

    def _skip(self, digest: Digest, stream: BinaryIO, count: int) -> None:
        while count:
            block = stream.read(min(count, BLOCK_BYTES))
            if not block:
                raise Corrupt(self.location, f"blob {digest} is shorter than it was said to be")
            count -= len(block)

    def mount(self, digest: Digest, from_repository: str, size_bytes: int | None = None) -> bool:
        if not self._limits.mounts:
            return False
        source = f"{self._prefix}{from_repository}"
        url = f"{self._url}/blobs/uploads/?mount={digest}&from={source}"
        scope = f"{self._scope('pull,push')} repository:{source}:pull"
        try:
            answer = self._connection.request("POST", url, scope=scope, headers=_EMPTY)
        except Denied:  # the other repository is not ours to read
            return False
        if (
            answer.status == 202 and "location" in answer.headers
        ):  # not mounted: an upload was begun instead, which nobody needs
            with contextlib.suppress(BackendError):  # push does not include the right to delete everywhere
                self._write("DELETE", answer.headers["location"], {}, b"")
        return answer.status == 201

    def push(self, digest: Digest | None, size_bytes: int, chunks: Chunks) -> Digest:
        repo = Repo(self._connection, self._url, self._scope("pull,push"), self.location, self._limits)
        return Upload(repo, digest, size_bytes, chunks).run()

    def put_manifest(self, reference: str, manifest: ImageManifest) -> Digest:
        headers = {"Content-Type": manifest.media_type}
        self._write("PUT", f"{self._url}/manifests/{reference}", headers, manifest.body, 201)
        return manifest.digest

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        found = None if self._limits.referrers is False else self._referrers(digest, artifact_type)
        if found is None:
            tagged = self.manifest(list_tag(digest))
            found = listed(tagged.body, self.location) if tagged else ()
        return of_type(found, artifact_type)

    def put_referrer(self, manifest: ImageManifest, *more: ImageManifest) -> Digest:
        tag, unlisted = list_tag(subject_of(manifest)), []
        for each in (manifest, *more):
            headers = {"Content-Type": each.media_type}
            url = f"{self._url}/manifests/{each.digest}"
            answer = self._write("PUT", url, headers, each.body, 201)
            # OCI distribution 1.1.0: without this header the client keeps the list
            if self._limits.referrers is False or "oci-subject" not in answer.headers:
                unlisted.append(described(each))
        if unlisted:
            with self._connection.lists:
                enlist(
                    unlisted,
                    lambda: self.manifest(tag),
                    lambda index: self.put_manifest(tag, index),
                    self.location,
                )
        return manifest.digest

    def drop_referrer(self, manifest: ImageManifest) -> None:
        tag = list_tag(subject_of(manifest))
        self.remove((manifest.digest,))
        with self._connection.lists:
            delist(
                manifest.digest,
                lambda: self.manifest(tag),
                lambda index: self.put_manifest(tag, index),
                lambda former: self.remove((former,)),
                self.location,
            )

    def untagged(self) -> tuple[Digest, ...]:
        return ()

    def loose(self) -> tuple[Digest, ...]:
        return ()

    def paths(self, blobs: Iterable[Digest]) -> tuple[Path, ...]:
        return ()

    def remove(self, manifests: Sequence[Digest]) -> int:
        """Blobs are the registry's own to free: its garbage collection finds those that nothing names."""
        for digest in manifests:
            answer = self._connection.request(
                "DELETE", f"{self._url}/manifests/{digest}", scope=self._scope("pull,push,delete")
            )
            if answer.status in (400, 405):  # OCI distribution 1.1.0, end-9: deletion may be disabled
                raise Denied(self.location, f"does not let anybody delete images ({answer.status})", _DELETES)
            if answer.status not in (200, 202, 404):
                raise refusal(self.location, answer)
        return 0

    def _referrers(self, digest: Digest, artifact_type: str | None) -> tuple[Descriptor, ...] | None:
        """What the registry's own list says, over all of its pages; None where it keeps none."""
        found: list[Descriptor] = []
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        url: str | None = f"{self._url}/referrers/{digest}{query}"
        while url:
            answer = self._connection.request(
                "GET", url, scope=self._scope("pull"), headers={"Accept": INDEX}
            )
            kind = answer.headers.get("content-type", "").split(";")[0]
            # Registries without the list answer 404 by the specification; others with an error or a page for people.
            if answer.status in (400, 404, 405, 501) or (answer.status == 200 and kind != INDEX):
                return None
            found += listed(self._expected(answer, 200).body, self.location)
            url = _next(answer.headers.get("link", ""), url)
        return tuple(found)

    def _read(self, method: str, below: str, headers: Mapping[str, str]) -> Answer | None:
        answer = self._connection.request(
            method, self._url + below, scope=self._scope("pull"), headers=headers
        )
        if answer.status == 404:
            return None
        return self._expected(answer, 200)

    def _write(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, expected: int | None = None
    ) -> Answer:
        answer = self._connection.request(
            method, url, scope=self._scope("pull,push"), headers=headers, body=body
        )
        return answer if expected is None else self._expected(answer, expected)

    def _expected(self, answer: Answer, status: int) -> Answer:
        if answer.status != status:
            raise refusal(self.location, answer)
        return answer

    def _scope(self, rights: str) -> str:
        return f"repository:{self._path}:{rights}"


def _next(link: str, url: str) -> str | None:
    """The address of the next page: Link: </v2/…?last=x>; rel="next"."""
    found = re.match(r"<([^>]+)>", link)
    return urljoin(url, found[1]) if found else None
