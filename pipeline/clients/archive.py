"""Images as Docker writes and reads them: `docker save` taken apart as it streams by, `docker load` made from a repository.

Used by engine images and the docker target.
"""

import io
import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

from pipeline.clients.oci.repository import BLOCK_BYTES, LAYER, Repository, contents
from pipeline.core.digest import Digest
from pipeline.core.errors import BackendError, Corrupt, Missing
from pipeline.core.frozen import frozen

_CONTENTS = "manifest.json"
_READ_WHOLE_BYTES = 2**20  # a config is smaller
_MAGIC = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}


@frozen
class Stored:
    """A layer that is in the repository now."""

    digest: Digest
    size_bytes: int
    media_type: str


@frozen
class Unpacked:
    """An image that was taken apart: its config, and where its layers went, lowest first."""

    config: bytes
    layers: tuple[Stored, ...]


@dataclass
class _Seen:
    """What the archive held so far. Its table of contents comes last."""

    stored: dict[str, Stored] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)  # equal layers are links of each other
    configs: dict[str, bytes] = field(default_factory=dict)
    contents: bytes = b""


def unpack(archive: Iterator[bytes], repository: Repository) -> Unpacked:
    """Push the layers of a saved image; holds a block in memory, never a layer. Raises Corrupt."""
    seen = _Seen()
    try:
        _read(archive, seen, repository)
        image = json.loads(seen.contents)[0]
        layers = tuple(seen.stored[_resolved(name, seen)] for name in image["Layers"])
        config = seen.configs[image["Config"]]
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    except (tarfile.TarError, ValueError, KeyError, IndexError, TypeError) as problem:
        raise Corrupt("docker", "the saved image is not whole", "try again") from problem
    plain = (
        (layer, diff_id)
        for layer, diff_id in zip(layers, diff_ids, strict=False)
        if layer.media_type == LAYER
    )
    if len(layers) != len(diff_ids) or any(layer.digest != diff_id for layer, diff_id in plain):
        raise Corrupt("docker", "a layer of the saved image is not what its config says", "try again")
    return Unpacked(config, layers)


def _read(archive: Iterator[bytes], seen: _Seen, repository: Repository) -> None:
    with tarfile.open(fileobj=_Reader(archive), mode="r|", bufsize=BLOCK_BYTES) as tar:
        for member in tar:
            if member.issym() or member.islnk():
                seen.links[member.name] = _target(member)
            elif member.isfile():
                _take(tar, member, seen, repository)


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, seen: _Seen, repository: Repository) -> None:
    """Keep what is small enough to be a config, push what may be a layer."""
    handle = tar.extractfile(member)
    assert handle is not None, "a regular file can be read"
    first = handle.read(BLOCK_BYTES)
    if member.name == _CONTENTS:
        seen.contents = first
        return
    if first.startswith(b"{") and member.size <= _READ_WHOLE_BYTES:
        seen.configs[member.name] = first
        return
    pushed = repository.push(None, member.size, _Once(member.name, chain([first], _blocks(handle))))
    seen.stored[member.name] = Stored(pushed, member.size, LAYER + _MAGIC.get(first[:2], ""))


class _Once:
    """Chunks of a stream that has no second time: what was read of it can go on, and never begin again."""

    def __init__(self, name: str, blocks: Iterator[bytes]) -> None:
        self._name = name
        self._blocks = blocks
        self._given_bytes = 0

    def __call__(self, start: int) -> Iterator[bytes]:
        if start != self._given_bytes:
            hint = "run mp apply again: what arrived whole is not sent again"
            raise BackendError("docker", f"{self._name} of the saved image did not arrive whole", hint)
        for block in self._blocks:
            self._given_bytes += len(block)
            yield block


def _blocks(handle: IO[bytes]) -> Iterator[bytes]:
    while block := handle.read(BLOCK_BYTES):
        yield block


def _target(member: tarfile.TarInfo) -> str:
    """Where a link of the archive leads: symbolic ones are relative to their own folder."""
    if member.islnk():
        return member.linkname
    return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))


def _resolved(name: str, seen: _Seen) -> str:
    return seen.links.get(name, name)


class _Reader(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        parts = [self._rest]
        held = len(self._rest)
        while held < size and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            held += len(chunk)
        joined = b"".join(parts)
        self._rest = joined[size:]
        return joined[:size]


def docker_archive(repository: Repository, reference: str, name: str | None = None) -> Iterator[bytes]:
    """An image as `docker load` takes it, streamed; `name` ("acme/qwen:v1") is what the engine will call it.

    Raises Missing when the image is not there.
    """
    found = repository.manifest(reference)
    if found is None:
        raise Missing(repository.location, f'no image "{reference}"', "run mp apply")
    config, layers = contents(found)
    config_body = repository.blob(config)
    if config_body is None:
        raise Missing(repository.location, f"the config of {reference} is gone", "run mp apply")
    yield from _small(f"{config[7:]}.json", config_body)
    for digest, size_bytes in dict(layers).items():
        yield _header(f"{digest[7:]}.tar", size_bytes)
        with repository.open_blob(digest) as blob:
            while block := blob.read(BLOCK_BYTES):
                yield block
        yield bytes(-size_bytes % tarfile.BLOCKSIZE)
    listing = [
        {
            "Config": f"{config[7:]}.json",
            "RepoTags": [name] if name else None,
            "Layers": [f"{digest[7:]}.tar" for digest, _ in layers],
        }
    ]
    yield from _small("manifest.json", json.dumps(listing).encode())
    yield bytes(2 * tarfile.BLOCKSIZE)


def _small(name: str, body: bytes) -> Iterator[bytes]:
    yield _header(name, len(body))
    yield body + bytes(-len(body) % tarfile.BLOCKSIZE)


def _header(name: str, size_bytes: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o644
    return member.tobuf(tarfile.PAX_FORMAT)
