"""cosign, the program that signs images and checks their signatures. Used by trust; 2.6 or newer, from the user's PATH.

Signatures are Sigstore bundles that point at the image (cosign's newer format), which registries list as referrers. A private
key goes to the program in its environment: arguments are seen by everybody on a machine.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from pipeline.clients.oci.repository import Descriptor
from pipeline.clients.process import run
from pipeline.core.errors import BackendError, Denied, Missing, Refused, Unreachable
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry

# How a signature is attached: cosign 2.6.5, pkg/oci/remote/write.go and pkg/types/predicate.go; 3.1 does the same.
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_STATED = "dev.sigstore.bundle.predicateType"
_SIGNED = "https://sigstore.dev/cosign/sign/v1"
_SYSTEM = "cosign"
_TIMEOUT_S = 300
_KEY = "MP_COSIGN_KEY"
_PASSWORD = "COSIGN_PASSWORD"  # cosign 2.6.5, pkg/cosign/env: without it, it would ask
_UNLOGGED = ("--use-signing-config=false", "--tlog-upload=false")  # cosign 3 takes a configuration by default
# A key needs no roots of trust, and cosign 2.6.5 wants some for a bundle: without these it would ask the internet.
_NO_ROOTS = '{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'
_NO_ANSWER = (
    "dial tcp",
    "no such host",
    "i/o timeout",
    "connection refused",
    "connection reset",
    "TLS handshake",
)
_WRONG_PASSWORD = "decryption failed"  # cosign 2.6.5: "reading key: decrypt: encrypted: decryption failed"
_DENIED = ("UNAUTHORIZED", "DENIED")


@frozen
class Signer:
    """With what an image is signed. Without a key cosign asks for an identity, as its own environment says."""

    key: str | None = field(default=None, repr=False)  # a private key as cosign writes it
    password: str = field(default="", repr=False)
    log: bool = False  # whether the signature is entered into the public transparency log


@frozen
class Authority:
    """Whose signatures count."""

    key: str | None = None  # a file with the public key, or a reference of a key service: "awskms://…"
    identity: str | None = None  # without a key: of the certificate, and who vouches for it
    issuer: str | None = None
    log: bool = False  # whether the public transparency log must have it; without a key it must


class Cosign:
    """The program of this machine. It finds the credentials of registries where Docker's tools do."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def require(self) -> None:
        """Raises Missing where the program is not on PATH."""
        if shutil.which(_SYSTEM, path=self._environ.get("PATH")) is None:
            text = "the program that signs images and checks their signatures is not on PATH"
            raise Missing(_SYSTEM, text, "install cosign 2.6 or newer: https://docs.sigstore.dev/cosign/")

    def sign(self, references: Sequence[str], signer: Signer, registry: Registry) -> None:
        """Sign images by their digests; the signatures lie beside them. Raises Denied, Unreachable, BackendError."""
        argv = ["sign", "--yes", "--new-bundle-format", *_reaching(registry)]
        environ = {**self._environ, _PASSWORD: signer.password}
        if signer.key is not None:
            argv += ["--key", f"env://{_KEY}", *(() if signer.log else _UNLOGGED)]
            environ[_KEY] = signer.key
        try:
            self._run([*argv, *references], environ)
        except Refused as problem:
            raise _unsigned(problem) from problem

    def verify(self, reference: str, authority: Authority, registry: Registry) -> None:
        """Raises Refused where no signature of this authority is on the image, Denied, Unreachable."""
        with tempfile.TemporaryDirectory(prefix="mp-cosign-") as folder:
            roots = Path(folder) / "roots.json"
            roots.write_text(_NO_ROOTS)
            argv = ["verify", "--output", "text", *_reaching(registry), *_of(authority, roots)]
            self._run([*argv, reference], self._environ)

    def _run(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self.require()
        try:
            run([_SYSTEM, *arguments], env=environ, timeout_s=_TIMEOUT_S, system=_SYSTEM)
        except Missing:
            raise
        except BackendError as problem:
            raise _named(problem) from problem


def is_signature(attached: Descriptor) -> bool:
    """Whether what points at an image is its signature. A bundle may hold any other statement as well, and says which."""
    kind = attached.artifact_type or ""
    return kind.startswith(_BUNDLE) and attached.annotations.get(_STATED, _SIGNED) == _SIGNED


def _of(authority: Authority, no_roots: Path) -> list[str]:
    if authority.key is not None and authority.log:
        return ["--key", authority.key]
    if authority.key is not None:
        return ["--key", authority.key, "--insecure-ignore-tlog=true", f"--trusted-root={no_roots}"]
    return [
        f"--certificate-identity={authority.identity}",
        f"--certificate-oidc-issuer={authority.issuer}",
    ]


def _reaching(registry: Registry) -> list[str]:
    plain = ["--allow-http-registry"] if registry.insecure else []
    return [*plain, f"--registry-cacert={registry.ca}"] if registry.ca else plain


def _unsigned(problem: Refused) -> BackendError:
    """cosign lists every digest before its reason ("signing [DIGEST DIGEST]: reason"); the resource says them already."""
    said = problem.message
    reason = said.partition("]: ")[2] if said.startswith("signing [") else said
    hint = "is sign.cosign.password the one of this key?" if _WRONG_PASSWORD in said else problem.hint
    return BackendError(_SYSTEM, reason or said, hint)


def _named(problem: BackendError) -> BackendError | Refused:
    """cosign ends with 1 whatever happened: only its words tell a registry's silence from a missing signature."""
    last = problem.message.splitlines()[-1].strip().removeprefix("error during command execution: ")
    if any(sign in last for sign in _NO_ANSWER):
        return Unreachable(_SYSTEM, last, "check the network and the registry")
    if any(sign in last for sign in _DENIED):
        return Denied(_SYSTEM, last, "docker login to the registry")
    return Refused(last)
