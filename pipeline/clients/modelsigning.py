"""Signatures of models as OpenSSF's model-signing makes them: what a valid one says of the files. Used by trust.

A signature is a list of files with their hashes, and the library compares it with a folder. Here the weights need not be on
this disk: the library checks the signature, and hands out the list that it has checked.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import BackendError, Missing, Refused

if TYPE_CHECKING:
    from model_signing.verifying import Config

FILE = "model.sig"  # the name that the library's own command gives a signature (model-signing 1.1.1)
_SYSTEM = "model-signing"
_ALGORITHM = "sha256"


def signed_files(signature: bytes, key: Path | None, certificates: Sequence[Path]) -> dict[str, str]:
    """sha256 (64 hex) by path, as somebody signed it with this key or with a certificate under these roots.

    Raises Refused where it is not theirs or not of whole files by sha256, Missing without the library, BackendError for a
    key that cannot be used.
    """
    with _quiet():
        config = _config(key, certificates)
        try:
            found = _verified(config, signature)
        except _unsound() as problem:
            why = str(problem).strip().rstrip(".") or type(problem).__name__
            raise Refused(f"its {FILE} is not signed by {_named(key, certificates)} ({why})") from problem
    return _readable(found)


def _config(key: Path | None, certificates: Sequence[Path]) -> "Config":
    try:
        from model_signing.verifying import Config
    except ImportError as problem:
        text = "the library that checks signatures of models is not installed"
        raise Missing(_SYSTEM, text, 'pip install "mp-pipeline[signing]"') from problem
    try:
        if key is not None:
            return Config().use_elliptic_key_verifier(public_key=key)
        return Config().use_certificate_verifier(certificate_chain=certificates)
    except (OSError, ValueError) as problem:
        text = f"{_named(key, certificates)} cannot be used: {problem}"
        hint = "a public key is an elliptic one (P-256, P-384, P-521) in PEM; certificates are in PEM"
        raise BackendError(_SYSTEM, text, hint) from problem


def _verified(
    config: "Config", signature: bytes
) -> Any:  # Any: the library's manifest, whose class is its own
    """The library's own list of the files, once it has checked the signature over it."""
    from model_signing import hashing

    seen: list[Any] = []

    class Witness:
        """Stands for the files of a folder: equal to any list, and keeps the one it is compared with."""

        def __eq__(self, other: object) -> bool:
            seen.append(other)
            return True

        __hash__ = None  # type: ignore[assignment]

    class NoFolder(hashing.Config):
        def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
            """Nothing is read from a folder, so nothing in it is left out."""

        def hash(self, model_path: object, *, files_to_hash: object = None) -> Any:
            return Witness()

    with tempfile.TemporaryDirectory(prefix="mp-signature-") as folder:
        file = Path(folder) / FILE
        file.write_bytes(signature)
        config.set_hashing_config(NoFolder()).verify(folder, file)  # type: ignore[no-untyped-call]
    (found,) = seen
    return found


def _readable(found: Any) -> dict[str, str]:  # Any: as above
    how = found.serialization_type
    if how["method"] != "files":
        raise Refused(
            f"its {FILE} is of pieces of files", "sign whole files: model_signing sign without --shard_size"
        )
    digests = {each.identifier: each.digest for each in found.resource_descriptors()}
    others = sorted({digest.algorithm for digest in digests.values()} - {_ALGORITHM})
    if others:
        raise Refused(f"its {FILE} has hashes by {', '.join(others)}", f"sign with {_ALGORITHM}, the default")
    return {path: digest.digest_hex for path, digest in digests.items()}


def _unsound() -> tuple[type[Exception], ...]:
    """What the library lets fly for a wrong signature, or for bytes of a stranger that are none."""
    from cryptography.exceptions import InvalidSignature
    from OpenSSL import crypto

    odd = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
    return (InvalidSignature, crypto.Error, crypto.X509StoreContextError, *odd)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library prints remarks to standard output, which is for results."""
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        yield


def _named(key: Path | None, certificates: Sequence[Path]) -> str:
    names = [key] if key else certificates
    return f"{'key' if key else 'a certificate under'} {', '.join(str(name) for name in names)}"
