"""A model in another program's cache: what is known of it before its bytes are read. Made by one file a cache."""

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from string import Template
from typing import Literal

from pipeline.core.errors import BackendError, Denied, Refused
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact, FileEntry
from pipeline.resources.cache.cached import below

SHA256 = re.compile(r"[0-9a-f]{64}")
SHA1 = re.compile(r"[0-9a-f]{40}")


@frozen
class Found:
    """One model. Dot-files are bookkeeping of other programs and no part of it."""

    source: str  # canonical reference; "file:///…" where nothing tells where it came from
    versions: tuple[str, ...]  # branches and tags that the cache says lead here, sorted; () is not known: n/a
    pin: str  # 40-hex commit, or "sha256-<64 hex>"; "" is not known, then `take` makes it from the content
    files: Mapping[str, Path]  # path in the model → the name on the disk, often a link
    origin: Literal["huggingface", "instructlab"]
    root: Path  # the other cache: no link may lead out of it
    folder: Path  # where the model's names lie
    sha256s: Mapping[str, str] = field(default_factory=dict)  # as the cache names files by it
    git_sha1s: Mapping[str, str] = field(default_factory=dict)  # likewise: the id of a git blob
    listed: bool = False  # the cache keeps the Hub's list of files
    absent: tuple[str, ...] = ()  # of this list, and links that lead nowhere; sorted

    @property
    def complete(self) -> bool:
        """Every file that the Hub lists for the pin is here. False also when no list is known."""
        return self.listed and not self.absent

    @property
    def size_bytes(self) -> int:
        """Of distinct files."""
        with reading(self.root):
            looks = [path.stat() for path in self.files.values()]
        return sum({(look.st_dev, look.st_ino): look.st_size for look in looks}.values())


def missing(found: Found, artifact: Artifact) -> tuple[FileEntry, ...]:
    """Files of the artifact that would still have to be fetched, as far as names tell."""
    return tuple(
        entry
        for entry in artifact.files
        if entry.path not in found.files or found.sha256s.get(entry.path, entry.sha256) != entry.sha256
    )


def inside(found: Found, path: str) -> Path:
    """The file a name leads to. Raises Refused when that is out of the cache, no regular file, or its name is no UTF-8."""
    if not is_utf8(path):
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise Refused(f'{found.folder}: the name "{shown}" is not UTF-8', "rename the file there")
    real = found.files[path].resolve()
    if not real.is_relative_to(found.root.resolve()):
        hint = "copy the file itself there: cp --dereference"
        raise Refused(f'{found.folder}: "{path}" is a link that leads out of {found.root}', hint)
    with reading(found.root):
        if not stat.S_ISREG(real.stat().st_mode):
            raise Refused(f'{found.folder}: "{path}" is no regular file', "remove it there")
    return real


def named(folder: Path) -> dict[str, Path]:
    """Every name in a model's folder by its path, without dot-files and links that lead nowhere."""
    paths = {path.relative_to(folder).as_posix(): path for path in below(folder)}
    return {path: name for path, name in sorted(paths.items()) if not is_dotted(path) and name.exists()}


def dangling(folder: Path) -> tuple[str, ...]:
    """Paths of a model whose links lead nowhere."""
    paths = {path.relative_to(folder).as_posix(): path for path in below(folder)}
    return tuple(sorted(p for p, name in paths.items() if not is_dotted(p) and not name.exists()))


def is_utf8(path: str) -> bool:
    """Locks, metadata and images are UTF-8: another name cannot be told in them."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_dotted(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def cache_home(environ: Mapping[str, str]) -> Path:
    """$XDG_CACHE_HOME, else ~/.cache."""
    home = Path(environ.get("HOME", "~")).expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache")


def expanded(text: str, environ: Mapping[str, str]) -> Path:
    """A folder as these programs read it from a variable: with ~ and $NAME."""
    return Path(Template(text).safe_substitute(environ)).expanduser().absolute()


@contextlib.contextmanager
def reading(root: Path) -> Iterator[None]:
    """Turn the operating system's errors while another cache is read or cleared into ours."""
    try:
        yield
    except PermissionError as problem:
        where = os.fspath(problem.filename or root)
        raise Denied(f"cache {root}", f"may not use {where}", "check the file's permissions") from problem
    except OSError as problem:
        raise BackendError(
            f"cache {root}", f"{problem.filename or root}: {problem.strerror}", "run it again"
        ) from problem
