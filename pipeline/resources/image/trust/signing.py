"""Signs what mp has put into a registry: an image and what points at it. Used by attach, through wiring."""

from collections.abc import Callable, Iterable

from pipeline.clients.cosign import Cosign, Signer
from pipeline.core.digest import Digest
from pipeline.core.image import Registry


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


def can_sign(registry: Registry) -> bool:
    """cosign signs over HTTP alone, not in a folder of layouts."""
    return registry.layout is None
