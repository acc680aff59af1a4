"""The real crane as a reader of what mp pushed. Its `validate` takes every layer for gzip (0.22), so what it pulls is hashed here."""

import hashlib
import io
import tarfile
from pathlib import Path

from tests.parts import programs


def run(*words: str) -> str:
    """Its standard output."""
    return programs.run("crane", *words).decode().strip()


def pulled(reference: str, folder: Path) -> set[str]:
    """Digests of all blobs behind a reference, of every platform, pulled whole: each is what its name says."""
    run("pull", "--format=oci", reference, str(folder))
    blobs = [*(folder / "blobs" / "sha256").iterdir()]
    assert [path.name for path in blobs] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in blobs]
    return {f"sha256:{path.name}" for path in blobs}


def files(reference: str, *options: str) -> dict[str, str]:
    """The sha256 of every file of an image's file system, by path."""
    exported = programs.run("crane", "export", *options, reference, "-")
    with tarfile.open(fileobj=io.BytesIO(exported)) as held:
        found = {one.name: held.extractfile(one) for one in held if one.isfile()}
        return {name: hashlib.sha256(file.read()).hexdigest() for name, file in found.items() if file}
