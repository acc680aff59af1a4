"""The files that layers make together: names are checked, whiteouts hide what lies below. Pure; sources/oci uses it."""

import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipeline.core.errors import Refused
from pipeline.core.frozen import frozen
from pipeline.sources.choice import is_relative
from pipeline.sources.oci.packing import Packed
from pipeline.sources.oci.tar import FILE, FOLDER, Member

MOST_FILES = 100_000  # of one layer: more is no model
_WHITEOUT = ".wh."  # OCI image specification 1.1.1, layer.md, "Whiteouts"
_OPAQUE = ".wh..wh..opq"


@frozen
class Found:
    """A file of a model, and where its bytes are."""

    path: str
    size_bytes: int
    layer: Packed
    offset: int = 0  # in what the layer holds, decompressed
    kind: str = FILE  # else what it is instead: "a symbolic link"


@dataclass
class Tree:
    """What one layer adds and hides."""

    reference: str  # for messages
    layer: Packed
    files: dict[str, Found] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)  # paths that lower layers lose, with all below them
    cleared: set[str] = field(default_factory=set)  # folders that lower layers lose the content of
    folders: set[str] = field(default_factory=set)  # that it has, said or needed

    def add(self, member: Member) -> Found | None:
        """Take a member of the layer's tar over; None when it is no file of the model. Raises Refused for bad names."""
        path = self._path(member)
        if path is None:
            return None
        if self.layer.root and member.kind == FILE and self._hides(path):
            return None
        if member.kind == FOLDER:
            self.folders.add(path)
            return None
        if path == "":
            raise Refused(f'{self.reference}: "{member.name}" is {member.kind}', "a folder belongs there")
        if path in self.files:
            raise Refused(f'{self.reference}: "{member.name}" is twice in {self.layer.digest}', _HINT)
        if len(self.files) == MOST_FILES:
            raise Refused(f"{self.reference}: {self.layer.digest} has over {MOST_FILES:,} files", _HINT)
        self.files[path] = Found(path, member.size_bytes, self.layer, member.offset, member.kind)
        self.folders.update(_above(path))
        return self.files[path]

    def loses(self, path: str) -> bool:
        """Whether a file of a lower layer is hidden by this one."""
        above = _above(path)
        return (
            path in self.folders
            or path in self.files
            or not self.hidden.isdisjoint((path, *above, ""))
            or not self.cleared.isdisjoint((*above, ""))
            or any(folder in self.files for folder in above)
        )

    def _path(self, member: Member) -> str | None:
        """The path below the model's folder; None for what is not below it."""
        name = member.name.removeprefix("./")
        name = name.rstrip("/") if member.kind == FOLDER else name
        if name in ("", ".") and member.kind == FOLDER:
            return None
        if ".." in name.split("/") or (not self.layer.root and not is_relative(name)):
            raise Refused(f"{self.reference}: file names that leave their folder: {member.name!r}", _HINT)
        if not self.layer.root:
            return f"{self.layer.path}/{name}" if self.layer.archive and self.layer.path else name
        root = self.layer.root
        if name == f"{_WHITEOUT}{root}":
            self.hidden.add("")
            return None
        if name == root:
            return ""
        if name.lstrip("/").startswith(f"{root}/") and not is_relative(name):
            raise Refused(f"{self.reference}: file names that leave their folder: {member.name!r}", _HINT)
        return name.removeprefix(f"{root}/") if name.startswith(f"{root}/") else None

    def _hides(self, path: str) -> bool:
        """Whether it is a whiteout; remembers what it hides."""
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            self.cleared.add(folder)
            return True
        if not name.startswith(_WHITEOUT):
            return False
        victim = name.removeprefix(_WHITEOUT)
        if victim in ("", ".", ".."):
            raise Refused(f'{self.reference}: a whiteout that leaves its folder: "{path}"', _HINT)
        self.hidden.add(f"{folder}/{victim}" if folder else victim)
        return True


_HINT = "do not use this source: nobody packs a model so by mistake"


def _above(path: str) -> list[str]:
    """The folders that a path is in: "a" and "a/b" of "a/b/c"."""
    return [path[:end] for end, letter in enumerate(path) if letter == "/"]


def merged(trees: Iterable[Tree]) -> dict[str, Found]:
    """All files by path, `trees` from the lowest layer up. Of an image upper layers win; elsewhere a path is once."""
    files: dict[str, Found] = {}
    for tree in trees:
        if tree.layer.root:
            files = {path: found for path, found in files.items() if not tree.loses(path)}
        elif twice := files.keys() & tree.files.keys():
            raise Refused(f'{tree.reference}: "{min(twice)}" is in two layers', _HINT)
        files |= tree.files
    return files


def require_files(reference: str, files: Iterable[Found]) -> None:
    """Links, devices and names that some file systems take for one. Raises Refused, naming all of them."""
    found = sorted(files, key=lambda each: each.path)
    odd = [f'"{each.path}" is {each.kind}' for each in found if each.kind != FILE]
    odd += [f'"{one}" and "{other}" differ in case only' for one, other in _collisions(e.path for e in found)]
    if odd:
        raise Refused(f"{reference}: {', '.join(odd[:12])}", "exclude them: files.exclude")


def _collisions(paths: Iterable[str]) -> Collection[tuple[str, str]]:
    seen: dict[str, str] = {}
    found = []
    for path in paths:
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            found.append((seen[folded], path))
        seen.setdefault(folded, path)
    return found
