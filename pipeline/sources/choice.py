"""Which files of a model are taken: globs, the format of the weights, and no duplicates. Pure; every source uses it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from pipeline.core.errors import Missing, MpError, Refused
from pipeline.core.frozen import frozen
from pipeline.core.protocols import SourceSpec
from pipeline.sources.kinds import WEIGHTS, Kind, is_leftover, kind_of

# The same weights again, for other engines: Meta's and OpenAI's first releases, and optimum's exports.
ASIDE = frozenset({"original", "metal", "onnx", "openvino", "coreml", "flax", "tf", "tflite"})
SHOWN = 12  # files that an error lists
LONGEST_BYTES = 255  # of one name in a folder: NAME_MAX of Linux, limits.h
_INDEX = ".index.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)", re.IGNORECASE)
_FORMATS = {"safetensors": Kind.SAFETENSORS, "gguf": Kind.GGUF}


@frozen
class Choice:
    """The files of a source that are a model's."""

    paths: tuple[str, ...]  # sorted
    left_out_bytes: int = (
        0  # of duplicates and of files that no engine reads; not of what the user's globs leave out
    )


def choose(spec: SourceSpec, sizes: Mapping[str, int]) -> Choice:
    """Choose among all files of a source (path: bytes). What is taken may still be unsafe: `require_safe` says so.

    Raises Refused for names that leave their folder, Missing without weights, MpError when there are several
    quantisations and nobody chose.
    """
    kept = tuple(path for path in _sound(spec, sizes) if matches(spec, path))
    if spec.filter.format == "text":
        paths = tuple(path for path in kept if _is_text(spec, path))
        if not paths:
            raise Missing(spec.reference, "no file is chosen", "check files.include and files.exclude")
        return Choice(paths)
    chosen = _Chosen(spec, kept)
    paths = tuple(path for path in kept if not chosen.leaves_out(path))
    _require_weights(spec, kept, paths)
    _require_one(spec, sizes, paths)
    return Choice(paths, sum(sizes[path] for path in kept) - sum(sizes[path] for path in paths))


def matches(spec: SourceSpec, path: str) -> bool:
    """Included, not excluded, no dot-file."""
    if any(part.startswith(".") for part in path.split("/")):
        return False
    include = spec.filter.include
    return (not include or any(_fits(glob, path) for glob in include)) and not _excluded(spec, path)


class _Chosen:
    """Which of the kept files are no part of the model, because the wanted weights are among them already.

    What an include names as such ("original/*", "*.bin"), or an allow lists, is taken all the same.
    """

    def __init__(self, spec: SourceSpec, kept: Iterable[str]) -> None:
        self._spec = spec
        weights = [path for path in kept if kind_of(path) in WEIGHTS and not is_leftover(path)]
        outside = [path for path in weights if not _is_aside(path)] or weights
        self._format = _FORMATS.get(spec.filter.format) or _best(outside)
        self._weights = [path for path in outside if kind_of(path) is self._format]
        self._folders = {_folder(path) for path in self._weights}
        self._models = {_folder(p) for p in self._weights if PurePosixPath(p).name.startswith("model")}

    def leaves_out(self, path: str) -> bool:
        subject = path.removesuffix(_INDEX)  # the list of shards goes where they go
        kind = kind_of(subject)
        if kind in WEIGHTS and kind is not self._format and self._spec.filter.format != "auto":
            return True
        return any(
            says(subject) and not self._named(path, says)
            for says, holds in (
                (is_leftover, True),
                (_is_aside, any(not _is_aside(each) for each in self._weights)),
                (_is_consolidated, _folder(path) in self._models),
                (lambda each: kind_of(each.removesuffix(_INDEX)) is kind, self._is_duplicate(path, kind)),
            )
            if holds
        )

    def _is_duplicate(self, path: str, kind: Kind) -> bool:
        match kind:
            case Kind.MEDIA:
                return True
            case Kind.PICKLE:  # one in another folder may be the only copy of a part
                return _folder(path) in self._folders or self._spec.filter.format != "auto"
            case Kind.FOREIGN:
                return bool(self._weights)
            case Kind.SAFETENSORS | Kind.GGUF:
                return kind is not self._format
            case _:
                return False

    def _named(self, path: str, says: Callable[[str], bool]) -> bool:
        allowed = any(path == each for each, _ in self._spec.filter.allow)
        return allowed or any(says(glob) and _fits(glob, path) for glob in self._spec.filter.include)


def _best(weights: Iterable[str]) -> Kind | None:
    found = {kind_of(path) for path in weights}
    return next((kind for kind in (Kind.SAFETENSORS, Kind.GGUF) if kind in found), None)


def _is_text(spec: SourceSpec, path: str) -> bool:
    """No weights in any format, and nothing that belongs to them; code stays, to be refused or allowed."""
    kind = kind_of(path.removesuffix(_INDEX))
    if any(path == each for each, _ in spec.filter.allow):
        return True
    weights = kind in WEIGHTS or kind in (Kind.PICKLE, Kind.FOREIGN, Kind.MEDIA)
    return not weights and not is_leftover(path) and not _is_aside(path)


def _require_weights(spec: SourceSpec, kept: Sequence[str], paths: Sequence[str]) -> None:
    """Missing unless something can be served; pickles alone are left to require_safe, which knows what is allowed."""
    kinds = {kind_of(path) for path in paths}
    if kinds & WEIGHTS or (Kind.PICKLE in kinds and spec.filter.format == "auto"):
        return
    wanted = {"safetensors": "safetensors", "gguf": "GGUF"}.get(spec.filter.format, "safetensors or GGUF")
    others = [path for path in kept if kind_of(path) in WEIGHTS | {Kind.PICKLE, Kind.FOREIGN}]
    there = f"; it has {listed(others)}" if others else ""
    hint = "check the reference, files.include and files.exclude"
    if spec.filter.format != "auto":
        hint = f"check the reference, or leave out files.format: {spec.filter.format}"
    raise Missing(spec.reference, f"no {wanted} file is chosen{there}", hint)


def _require_one(spec: SourceSpec, sizes: Mapping[str, int], paths: Iterable[str]) -> None:
    """One quantisation, or the user's own choice: nobody wants all of them."""
    if spec.filter.include:
        return
    found: dict[str, int] = {}
    for path in paths:
        if kind_of(path) is Kind.GGUF:
            name = _SHARD.sub("", path)
            found[name] = found.get(name, 0) + sizes[path]
    projectors = [name for name in found if "mmproj" in name.lower()]  # the part that sees, for any of them
    if len(found) - len(projectors) <= 1 and len(projectors) <= 1:
        return
    shown = [f"{name} ({_amount(size_bytes)})" for name, size_bytes in sorted(found.items())]
    first = next((name for name in sorted(found) if "q4_k_m" in name.lower()), min(found))
    glob = first if first in sizes else f"{first.removesuffix('.gguf')}-*"
    raise MpError(
        f"{spec.reference}: it has {len(found)} GGUF files to choose from: {', '.join(shown)}",
        f'choose one: files: {{include: ["{glob}", "*.json"]}}',
    )


def _sound(spec: SourceSpec, paths: Iterable[str]) -> list[str]:
    """The names that are not excluded, sorted. Raises Refused for all that are no path below a folder."""
    found = sorted(path for path in paths if not _excluded(spec, path))
    folders = {path[: match.start()] for path in found for match in re.finditer("/", path)}
    wrong = [path for path in found if not is_relative(path) or path in folders]
    if wrong:
        raise Refused(
            f"{spec.reference}: {listed([ascii(path)[1:-1] for path in wrong])} leave their folder, are a file and a folder, or are no names for a disk",
            "if you trust the rest of this source, exclude them: files.exclude",
        )
    return found


def is_relative(path: str) -> bool:
    """A path of plain names, "/" between them, that every file system takes for one below its folder."""
    odd = re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]|^[A-Za-z]:", path)  # the last are no text, see PEP 383
    return odd is None and all(_is_name(name) for name in path.split("/"))


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and len(name.encode()) <= LONGEST_BYTES


def listed(paths: Sequence[str]) -> str:
    """File names as an error shows them: few in full, of many the first ones."""
    shown = ", ".join(f'"{path}"' for path in paths[:SHOWN])
    return f"{shown} and {len(paths) - SHOWN} others" if len(paths) > SHOWN else shown


def _excluded(spec: SourceSpec, path: str) -> bool:
    return any(_fits(glob, path) for glob in spec.filter.exclude)


def _fits(glob: str, path: str) -> bool:
    """As huggingface_hub reads them: `*` crosses slashes, and a folder's name means all in it."""
    return fnmatchcase(path, f"{glob}*" if glob.endswith("/") else glob)


def _amount(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:,.2f} MB"


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _is_aside(path: str) -> bool:
    folder, slash, _ = path.partition("/")
    return bool(slash) and folder in ASIDE


def _is_consolidated(path: str) -> bool:
    """Mistral's and Meta's own form of a checkpoint."""
    name = PurePosixPath(path).name
    return name.startswith("consolidated") and not name.endswith((".json", ".txt", ".md"))
