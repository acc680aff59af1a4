"""mp's own files as one image layer: the program that fills claims and what it imports, taken from where mp is installed.

They are those of a checkout as well as of an installed wheel. What is not mp's (urllib3 and PyYAML, as they are installed
here) is taken as plain Python: the layer is the same for every platform, and nothing has to be resolved to make it.
"""

import io
import tarfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pipeline.core.errors import BackendError

ROOT = "opt/mp-filler"
MODULE = "pipeline.cli.filling"
NEEDED = {"urllib3": "urllib3", "PyYAML": "yaml"}  # distribution → its package
# Folders go whole: a module that is imported only when it is needed is there, too.
FOLDERS = ("clients", "core", "sources")
FILES = (
    "__init__.py",
    "cli/__init__.py",
    "cli/filling.py",
    "resources/__init__.py",
    "resources/cache/__init__.py",
    "resources/cache/reading.py",
)
_LEFT_OUT = ("__pycache__", ".pyc", ".so")  # PyYAML is the same without its compiled half


@cache
def layer() -> bytes:
    """The layer as an uncompressed tar; equal files make equal bytes, wherever and whenever."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted((*_own(), *_needed())):
            header = tarfile.TarInfo(f"{ROOT}/{name}")
            header.size, header.mode = len(content), 0o644
            archive.addfile(header, io.BytesIO(content))
    return out.getvalue()


def _own() -> Iterator[tuple[str, bytes]]:
    root = resources.files("pipeline")
    for name in FILES:
        yield f"pipeline/{name}", root.joinpath(name).read_bytes()
    for folder in FOLDERS:
        yield from _below(root.joinpath(folder), f"pipeline/{folder}")


def _below(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for one in folder.iterdir():
        if one.name.endswith(_LEFT_OUT):
            continue
        if one.is_dir():
            yield from _below(one, f"{name}/{one.name}")
        else:
            yield f"{name}/{one.name}", one.read_bytes()


def _needed() -> Iterator[tuple[str, bytes]]:
    """The files of the distributions that the program needs, with their licences."""
    for distribution, package in NEEDED.items():
        found = [file for file in metadata.files(distribution) or () if _is_part(file.as_posix(), package)]
        if not found:
            hint = "install mp with uv or pip, which keep a list of the files of each package"
            raise BackendError(
                "mp", f"the files of {distribution} are not listed where it is installed", hint
            )
        for file in found:
            yield file.as_posix(), _read(Path(str(file.locate())))


def _is_part(name: str, package: str) -> bool:
    return (name.startswith(f"{package}/") or "/licenses/" in name) and not name.endswith(_LEFT_OUT)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as problem:
        hint = "install mp again"
        raise BackendError("mp", f"{file} of its own installation cannot be read", hint) from problem
