"""Where weights come from: one file a source, and the table of them. Engine and wiring know a source only through it."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.clients.hub import Hub
from pipeline.core.diagnostic import error
from pipeline.core.errors import UserError
from pipeline.core.protocols import Source
from pipeline.core.settings import Settings
from pipeline.sources.huggingface import HuggingFaceSource
from pipeline.sources.local import LocalSource
from pipeline.sources.offline import Offline

NEAR = frozenset({"file"})  # schemes that are read without a network: looked at by every plan
LATER = ("oci", "s3", "https", "http")  # schemes that are planned
PATHS = ("/", "./", "../", "~/", "file://")

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def _huggingface(settings: Settings) -> Source:
    return HuggingFaceSource(Hub(settings.environ.get("HF_ENDPOINT"), settings.environ.get("HF_TOKEN")))


def _local(settings: Settings) -> Source:
    return LocalSource(settings.cache / "hashes")


SOURCES: Mapping[str, Callable[[Settings], Source]] = {"hf": _huggingface, "file": _local}


def open_sources(settings: Settings) -> dict[str, Source]:
    """Every source by its scheme; with `offline` those behind a network answer nothing."""
    far = Offline() if settings.offline else None
    return {scheme: far if far and scheme not in NEAR else make(settings) for scheme, make in SOURCES.items()}


def scheme_of(reference: str) -> str:
    """The key of a canonical reference in SOURCES: "hf", "file"."""
    return reference.partition("://")[0]


def parse_source(reference: str, root: Path) -> str:
    """The canonical form of what the user wrote: "hf://Qwen/Qwen3-8B", "file:///abs/path". Raises UserError.

    A path is one only by its prefix, and relative to `root`, the folder of the manifest.
    """
    if reference in (".", "..", "~") or reference.startswith(PATHS):
        path = Path(reference.removeprefix("file://")).expanduser()
        return f"file://{os.path.normpath(root.absolute() / path)}"
    scheme, separator, rest = reference.partition("://")
    if separator and scheme == "hf":
        return _hub_reference(reference, rest)
    if separator and scheme in LATER:
        raise UserError(
            [
                error(
                    f'source "{reference}": {scheme}:// is not supported yet',
                    hint="use hf://org/name or a path",
                )
            ]
        )
    guess = f"write hf://{reference}, or ./{reference} for a path" if not separator else "use hf:// or a path"
    raise UserError([error(f'source "{reference}" is neither hf://org/name nor a path', hint=guess)])


def _hub_reference(reference: str, repository: str) -> str:
    if _REPOSITORY.fullmatch(repository) and ".." not in repository:
        return reference
    hint = "write hf://org/name"
    name, mark, version = re.sub(r"[@:]", "\n", repository, count=1).partition("\n")
    if mark and _REPOSITORY.fullmatch(name):
        hint = f'write hf://{name}, and version: "{version}"'
    raise UserError([error(f'source "{reference}" is no repository of the Hub', hint=hint)])
