"""The files that start an engine: where runtime/ is, and what of it goes into an image or runs on this machine."""

import hashlib
from functools import cache
from pathlib import Path

import pipeline

SHARED = ("launch.py",)  # beside every template's own files


@cache
def runtime_root() -> Path:
    """`runtime/` of the checkout, or `pipeline/_runtime` of an installed wheel."""
    package = Path(pipeline.__file__).parent
    for folder in (package / "_runtime", package.parent / "runtime"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"runtime/ is neither in {package} nor beside it: the installation is not whole")


@cache
def runtime_files(template: str) -> tuple[tuple[str, str], ...]:
    """(path below runtime/, sha256) of everything that determines an image: shared files, serve code, Dockerfile."""
    root = runtime_root()
    own = (file for file in (root / template).iterdir() if file.suffix == ".py" or file.name == "Dockerfile")
    files = [*(root / name for name in SHARED), *own]
    return tuple(
        sorted(
            (file.relative_to(root).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest())
            for file in files
        )
    )
