"""An installed environment as image layers: large packages alone, the others together, byte code last. Used by resources/engine.

Packages are what engines share (torch and what it needs are most of each): equal packages of one cache are equal layers.
"""

import os
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from pipeline.clients.oci.repository import BLOCK_BYTES
from pipeline.core.digest import fingerprint
from pipeline.core.errors import Corrupt
from pipeline.core.frozen import frozen
from pipeline.resources.image.layers import rest_of

ROOT = "opt/app"
OWN_LAYER_BYTES = 64 * 2**20  # a package of this size or more is a layer of its own
_VERSION = 1  # of the bytes that `Bundle.blocks` makes
_BYTE_CODE = ".pyc"  # it names the folder it was compiled in: no two environments share it
_LAST = "~"  # no package is called so


@frozen
class Member:
    """One file or link of the environment, as it is found."""

    path: str  # below the environment: "torch/lib/libtorch_cpu.so"
    size_bytes: int
    mtime_ns: int  # byte code is only used while it has the time of its source
    executable: bool
    link: str | None = None


@frozen
class Bundle:
    """Files that travel together: one uncompressed tar."""

    title: str
    folder: Path
    members: tuple[Member, ...]

    @cached_property
    def key(self) -> str:
        """What determines the tar: equal keys on one machine are equal files, which uv links from its cache."""
        found = [[m.path, m.size_bytes, m.mtime_ns, m.executable, m.link] for m in self.members]
        return fingerprint(["environment", _VERSION, found])

    @cached_property
    def size_bytes(self) -> int:
        """The exact length of the tar."""
        headers = sum(len(_header(info)) for info in self._infos())
        content = sum(m.size_bytes + -m.size_bytes % tarfile.BLOCKSIZE for m in self.members)
        return headers + content + 2 * tarfile.BLOCKSIZE

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        """The tar from an offset: folders first, then every file; raises Corrupt when one changed since it was looked at."""
        skip = start  # bytes still to be left out
        for info in self._infos():
            header = _header(info)
            yield from rest_of(header, skip)
            skip -= len(header)
            if info.isreg():
                padded = info.size + -info.size % tarfile.BLOCKSIZE
                if skip < padded:
                    yield from _content(
                        self.folder / info.name.removeprefix(f"{ROOT}/"), info.size, max(skip, 0)
                    )
                skip -= padded
        yield from rest_of(bytes(2 * tarfile.BLOCKSIZE), skip)

    def _infos(self) -> Iterator[tarfile.TarInfo]:
        for name in _folders(self.members):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            yield info
        for member in self.members:
            info = tarfile.TarInfo(f"{ROOT}/{member.path}")
            info.mtime, info.size = member.mtime_ns // 10**9, member.size_bytes
            info.mode = 0o755 if member.executable else 0o644
            if member.link is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, member.link, 0o777
            yield info


def bundles(folder: Path, own_layer_bytes: int = OWN_LAYER_BYTES) -> tuple[Bundle, ...]:
    """Everything below a folder, each file in one bundle; in the order in which they become layers.

    The largest come first: a Docker engine shares layers only up to the first that differs.
    """
    packages: defaultdict[str, list[Member]] = defaultdict(list)
    for member in _members(folder):
        packages[_LAST if member.path.endswith(_BYTE_CODE) else member.path.split("/")[0]].append(member)
    last = packages.pop(_LAST, [])
    large = {name: members for name, members in packages.items() if _bytes(members) >= own_layer_bytes}
    rest = [member for name, members in packages.items() if name not in large for member in members]
    ordered = sorted(large.items(), key=lambda item: (-_bytes(item[1]), item[0]))
    return tuple(
        Bundle(title, folder, tuple(sorted(members, key=lambda member: member.path)))
        for title, members in (*ordered, ("other packages", rest), ("byte code", last))
        if members
    )


def _bytes(members: Iterable[Member]) -> int:
    return sum(member.size_bytes for member in members)


def _members(folder: Path) -> Iterator[Member]:
    for above, folders, files in os.walk(folder):
        links = [name for name in folders if Path(above, name).is_symlink()]
        for name in (*files, *links):
            path = Path(above, name)
            found = path.lstat()
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                yield Member(relative, 0, 0, executable=False, link=str(path.readlink()))
            else:
                yield Member(relative, found.st_size, found.st_mtime_ns, bool(found.st_mode & 0o100))


def _folders(members: tuple[Member, ...]) -> list[str]:
    """Every folder above the members, parents first."""
    names = {"opt", ROOT}
    for above in {member.path.rpartition("/")[0] for member in members}:
        parts = above.split("/") if above else []
        names.update("/".join((ROOT, *parts[: depth + 1])) for depth in range(len(parts)))
    return sorted(names)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT)


def _content(path: Path, size_bytes: int, start: int) -> Iterator[bytes]:
    """A file and its padding, from an offset in both."""
    left = max(size_bytes - start, 0)
    with path.open("rb") as handle:
        handle.seek(size_bytes - left)
        while left and (block := handle.read(min(BLOCK_BYTES, left))):
            left -= len(block)
            yield block
        if left or handle.read(1):
            raise Corrupt(str(path), "changed while it was read", "run it again")
    yield from rest_of(bytes(-size_bytes % tarfile.BLOCKSIZE), start - size_bytes)
