"""Signs what mp has put into a registry: an image and what points at it. Used by attach, through wiring."""

from collections.abc import Callable, Iterable
from typing import Protocol

from pipeline.clients.cosign import Cosign, Signer, is_signature
from pipeline.clients.oci.referrers import told
from pipeline.clients.oci.repository import Repository
from pipeline.core.digest import Digest
from pipeline.core.image import Registry
from pipeline.core.resource import Entry


class Signable(Protocol):
    """What the states of images share."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def signed(self) -> bool: ...


class Signing:
    """cosign with the manifest's key. The key is read when something is signed, and is in no record."""

    def __init__(self, cosign: Cosign, signer: Callable[[], Signer]) -> None:
        self._cosign = cosign
        self._signer = signer

    def require(self, registry: Registry) -> None:
        """Raises Missing without cosign, MpError without its key: asked before anything is pushed."""
        if can_sign(registry):
            self._cosign.require()
            self._signer()

    def sign(self, registry: Registry, location: str, digests: Iterable[Digest]) -> None:
        """Sign manifests of a repository ("127.0.0.1:5000/tiny"). Raises BackendError."""
        if can_sign(registry):
            references = [f"{location}@{digest}" for digest in digests]
            self._cosign.sign(references, self._signer(), registry)


def is_signed(repository: Repository, image: Digest) -> bool:
    """Whether a signature lies beside an image; whose it is, nobody asks here. Raises BackendError."""
    pointing = told(repository.referrers(image), repository.manifest)
    return any(is_signature(attached) for attached in pointing)


def seen_signed(repository: Repository, image: Digest, *, wanted: bool, entry: Entry | None) -> bool:
    """As `is_signed`, asked only where a signature is wanted, or was there when it was applied last."""
    had = bool(entry and entry.applied.get("signed"))
    return (wanted or had) and is_signed(repository, image)


def outlives(live: Signable, desired: Signable) -> bool:
    """Whether an image keeps a signature that nobody asks for any more: it is never taken away."""
    return live.signed and not desired.signed and live.fingerprint == desired.fingerprint


def can_sign(registry: Registry) -> bool:
    """cosign signs over HTTP alone, not in a folder of layouts."""
    return registry.layout is None
