"""Numbers with their units, as people read them. Fields carry their unit in the name; this is where it is read back."""

import re

from pipeline.core.digest import Json
from pipeline.core.resource import Transfer

_DECIMAL = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_BINARY = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_UNIT = re.compile(r"_(bytes|gib|s|seconds)$")
_HASH = re.compile(r"(?<![0-9a-zA-Z])(sha256[:-])?([0-9a-f]{40}|[0-9a-f]{64})(?![0-9a-zA-Z])")


def transferred(size_bytes: int) -> str:
    """Bytes on a wire or a disk, decimal, two decimals: "16.38 GB", "512 B"."""
    for unit, factor in _DECIMAL:
        if size_bytes >= factor * 0.999995:
            return f"{size_bytes / factor:,.2f} {unit}"
    return f"{size_bytes} B"


def memory(size_bytes: float) -> str:
    """Bytes of memory, binary: "48 GiB", "1.5 GiB"."""
    for unit, factor in _BINARY:
        if abs(size_bytes) >= factor:
            return f"{_short(size_bytes / factor)} {unit}"
    return f"{_short(size_bytes)} B"


def duration(seconds: float) -> str:
    """ "40 ms", "0.3 s", "12 s", "3 min 05 s", "2 h 10 min"."""
    if seconds < 0.095:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ago(seconds: float) -> str:
    """How long ago, as roughly as people say it: "just now", "5 min ago", "3 h ago", "12 days ago"."""
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 2 * 86400:
        return f"{int(seconds // 3600)} h ago"
    return f"{int(seconds // 86400)} days ago"


def source(reference: str, root: str) -> str:
    """A reference as its user wrote it: folders of the project relative to it."""
    return (
        "./" + reference.removeprefix(f"file://{root}/")
        if reference.startswith(f"file://{root}/")
        else reference
    )


def pin(pin: str) -> str:
    """A commit or a content hash, as short as git shows one: "9c0d2f7"."""
    return pin.removeprefix("sha256-")[:7]


def counted(number: float, noun: str) -> str:
    """ "1 model", "62 models"."""
    return f"{_short(number)} {noun}{'' if number == 1 else 's'}"


def short(text: str) -> str:
    """Long hashes cut to what people compare: "9c0d2f7" of a commit, 12 of a sha256."""
    return _HASH.sub(lambda m: (m[1] or "") + m[2][: 7 if len(m[2]) == 40 else 12], text)


def moved(transfer: Transfer) -> str:
    """What bringing one thing there moves: "download 16.38 GB", "push at most 16.38 GB, reuse 10.10 GB"."""
    most = "" if transfer.exact else "at most "
    parts = (
        ("download", most, transfer.download_bytes),
        ("push", most, transfer.push_bytes),
        ("reuse", "", transfer.reused_bytes),
    )
    return ", ".join(f"{verb} {limit}{transferred(size)}" for verb, limit, size in parts if size)


def label(path: str) -> str:
    """A field's name without its unit: "memory_bytes" → "memory", "launch/env/HF_HOME" → "launch env HF_HOME"."""
    *folders, last = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/"))
    return " ".join(_words(part) for part in (*folders, _UNIT.sub("", last)))


def _words(part: str) -> str:
    return part.replace("_", " ") if part.islower() else part


def value(path: str, held: Json) -> str:
    """A field's value with the unit its name says."""
    if held is None or held in ("", [], {}):
        return "none"
    if isinstance(held, bool):
        return "yes" if held else "no"
    if isinstance(held, int | float):
        return _number(path, held)
    if isinstance(held, list):
        return ", ".join(value(path, item) for item in held)
    if isinstance(held, dict):
        return ", ".join(f"{key} {value(key, held[key])}" for key in sorted(held))
    return short(held)


def _number(path: str, held: float) -> str:
    if path.endswith("_bytes"):
        return memory(held)
    if path.endswith("_gib"):
        return f"{_short(held)} GiB"
    if path.endswith(("_s", "_seconds")):
        return f"{_short(held)} s"
    return str(held) if path.endswith("port") else _short(held)


def _short(number: float) -> str:
    """No digit that says nothing: "48", "1.5", "32,768"."""
    text = f"{number:,.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def difference(path: str, before: Json, after: Json) -> str:
    """ "memory 48 GiB → 32 GiB"; never the same text on both sides; what both begin with is said once."""
    left, right = value(path, before), value(path, after)
    if left == right:
        left, right = str(before), str(after)
    same = _same_beginning(left, right)
    folder = left.rfind("/", 0, same) + 1
    return f"{label(path)} {left[folder:]} → {right[same:]}"


def _same_beginning(left: str, right: str) -> int:
    """How much of two references is equal: whole parts only; nothing of short ones."""
    if min(len(left), len(right)) < 24 or " " in left + right:
        return 0
    equal = next((i for i, pair in enumerate(zip(left, right, strict=False)) if len(set(pair)) > 1), 0)
    return max((left.rfind(mark, 0, equal) + 1 for mark in "/:@="), default=0)
