"""Engine versions as data: reads data/<template>/<version>.yaml, and finds the variant for a hardware class."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.frozen import frozen
from pipeline.core.image import Variant
from pipeline.core.model import Hardware, Model
from pipeline.templates.flags import arguments

DATA = Path(__file__).parent / "data"
LOAD_BYTES_PER_S = (
    200_000_000  # of a slow disk: what a large model needs besides the time that the data file allows
)


@frozen
class Release:
    """One engine version: its variants, and the flags it knows."""

    template: str
    version: str
    variants: Mapping[str, Variant]
    shm_bytes: Mapping[str, int]  # variant → shared memory it needs, 0 for the engine's default
    own: Mapping[str, str]  # flag that mp writes itself → what sets it
    flags: frozenset[str] | None  # all it knows; None: not known, nothing is checked
    switches: frozenset[str]  # flags that "--no-" turns off


@cache
def releases(template: str) -> tuple[Release, ...]:
    """All versions that data files describe, newest first."""
    files = (DATA / template).glob("*.yaml")
    return tuple(
        _read(template, file) for file in sorted(files, key=lambda file: _numbers(file.stem), reverse=True)
    )


def versions(template: str) -> tuple[str, ...]:
    return tuple(release.version for release in releases(template))


def release(template: str, version: str) -> Release:
    """One version. Raises LookupError with the known ones."""
    for candidate in releases(template):
        if candidate.version == version:
            return candidate
    known = ", ".join(versions(template))
    raise LookupError(f'{template} has no version "{version}"; known versions: {known}')


def variant(template: str, version: str | None, hardware: Hardware) -> Variant:
    """The variant for a hardware class; version None is the newest that has it. Raises LookupError with the versions."""
    name = "cuda" if hardware.gpus else "cpu"
    able = [candidate for candidate in releases(template) if name in candidate.variants]
    if version is None and able:
        return able[0].variants[name]
    if version is not None and name in (chosen := release(template, version)).variants:
        return chosen.variants[name]
    known = ", ".join(candidate.version for candidate in able) or "none"
    raise LookupError(
        f'{template} {version or ""} has no variant "{name}", which hardware "{hardware.name}" needs; '
        f"versions that have it: {known}".replace("  ", " ")
    )


def start_timeout_s(model: Model, variant: Variant) -> int:
    """How long a start may take, from the process to the first answer."""
    return variant.start_timeout_s + sum(file.size_bytes for file in model.files) // LOAD_BYTES_PER_S


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _read(template: str, file: Path) -> Release:
    # Any: the shape of our own data files, which the contract suite reads through
    read: dict[str, Any] = yaml.load(
        file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    words = str(read["flags"]).split() if "flags" in read else None
    return Release(
        template=template,
        version=file.stem,
        variants={
            name: _variant(template, file.stem, name, entry) for name, entry in read["variants"].items()
        },
        shm_bytes={name: int(entry.get("shm_bytes", 0)) for name, entry in read["variants"].items()},
        own=read["own"],
        flags=None if words is None else frozenset(word.removeprefix("[no-]") for word in words),
        switches=frozenset(word.removeprefix("[no-]") for word in words or () if word.startswith("[no-]")),
    )


def _variant(template: str, version: str, name: str, entry: Mapping[str, Any]) -> Variant:
    return Variant(
        template=template,
        version=version,
        name=name,
        python=entry["python"],
        base=entry["base"],
        requirements=tuple(entry["requirements"]),
        overrides=tuple(entry.get("overrides", ())),
        torch_backend=entry.get("torch_backend"),
        args=arguments(entry.get("args", {}), frozenset()),
        env=dict(entry.get("env", {})),
        start_timeout_s=entry["start_timeout_s"],
        gpu_driver=entry.get("gpu_driver"),
    )
