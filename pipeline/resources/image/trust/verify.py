"""Whether a pinned source is signed by those whom the manifest trusts. Reads signatures, never weights. Used by engine/trusted."""

import hashlib
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pipeline.clients.cosign import Authority, Cosign
from pipeline.clients.modelsigning import FILE, signed_files
from pipeline.core.errors import BackendError, Corrupt, Refused
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import Source
from pipeline.resources.cache.artifact import source_of
from pipeline.resources.cache.reading import verified
from pipeline.resources.cache.store import Cache

LARGEST_BYTES = 64 * 2**20  # of a signature: 100 bytes a file


@frozen
class ModelSigner:
    """Who signs the files of a model: a key, or whoever has a certificate under these roots."""

    key: Path | None = None
    certificates: tuple[Path, ...] = ()


Trusted: TypeAlias = Authority | ModelSigner


class Verifier:
    """Checks signatures at plan time, against what models.lock says: nothing has been fetched then."""

    def __init__(
        self,
        cache: Cache,
        sources: Mapping[str, Source],
        cosign: Cosign,
        registries: Iterable[Registry] = (),
        *,
        offline: bool,
    ) -> None:
        self._cache = cache
        self._sources = sources
        self._cosign = cosign
        self._hosts = {one.url.partition("/")[0]: one for one in registries if one.url}
        self._offline = offline
        self._alone = threading.Lock()  # the library of model signatures redirects standard output

    def require(self, artifact: Artifact, trusted: Trusted) -> None:
        """Raises Refused where the source is not signed by `trusted`, BackendError where that cannot be told."""
        match trusted:
            case Authority():
                self._require_image(artifact, trusted)
            case ModelSigner():
                self._require_files(artifact, trusted)

    def _require_image(self, artifact: Artifact, authority: Authority) -> None:
        scheme, _, name = artifact.source.partition("://")
        if scheme != "oci":
            raise Refused("cosign signs images, and this is none", "sign it with model_signing")
        if self._offline:
            text = f"whether {artifact.source} is signed cannot be asked for"
            raise BackendError("offline", text, "run it where there is a network")
        host = name.partition("/")[0]
        reference = f"{name}@{artifact.pin.replace('-', ':', 1)}"
        try:
            self._cosign.verify(reference, authority, self._hosts.get(host, Registry(host, url=host)))
        except Refused as problem:
            raise Refused(f"not signed as it must be: {problem.message}", problem.hint) from problem

    def _require_files(self, artifact: Artifact, signer: ModelSigner) -> None:
        entry = next((each for each in artifact.files if each.path == FILE), None)
        if entry is None:
            raise Refused(
                f"it has no {FILE} among its files", f"have it signed; files.include must take {FILE}"
            )
        signature = self._read(artifact, entry)
        with self._alone:
            signed = signed_files(signature, signer.key, signer.certificates)
        _require_equal(artifact, signed)

    def _read(self, artifact: Artifact, entry: FileEntry) -> bytes:
        if entry.size_bytes > LARGEST_BYTES:
            raise Refused(f"its {FILE} has {entry.size_bytes:,} bytes: that is no signature")
        kept = self._kept(entry)
        if kept is not None:
            return kept
        source = source_of(self._sources, artifact)
        try:
            return b"".join(verified(entry, partial(source.open, artifact, entry)))
        except Corrupt as problem:
            raise Refused(f"its {FILE} is not the locked one: {problem.message}", problem.hint) from problem

    def _kept(self, entry: FileEntry) -> bytes | None:
        """From the cache, where it is and is what it was: what is planned a second time asks no source."""
        try:
            with self._cache.blob(entry.sha256).open("rb") as file:
                body = file.read(LARGEST_BYTES)
        except OSError:
            return None
        return body if hashlib.sha256(body).hexdigest() == entry.sha256 else None


def _require_equal(artifact: Artifact, signed: Mapping[str, str]) -> None:
    """Every file of the lock is signed, with the hash that the lock has. What is signed and not taken does not matter."""
    for entry in artifact.files:
        if entry.path == FILE:
            continue
        if entry.path not in signed:
            raise Refused(
                f'"{entry.path}" is not signed', "leave it out with files.exclude, or have it signed"
            )
        if signed[entry.path] != entry.sha256:
            text = f'"{entry.path}" has sha256 {entry.sha256[:12]}…, signed is {signed[entry.path][:12]}…'
            raise Refused(text, "take a version whose files are those that were signed")
