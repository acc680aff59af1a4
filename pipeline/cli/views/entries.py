"""Machine JSON of `mp pull` and `mp cache …`, and of cached models wherever they are listed. Loads nothing that a quick pull need not."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact
from pipeline.resources.cache.cached import Cached

if TYPE_CHECKING:
    from pipeline.resources.cache.adopt import Found
    from pipeline.resources.cache.reclaim import Reclaim
    from pipeline.resources.cache.shelf import Damage

FORMAT_VERSION = 1


@frozen
class Pulled:
    """One source that is here now."""

    name: str  # as it was asked for: "qwen3-8b", "hf://Qwen/Qwen3-8B:main"
    role: str  # "weights", "tokenizer"
    artifact: Artifact
    path: Path  # the entry in the cache, or the folder that was asked for
    fetched_bytes: int = 0
    seconds: float = 0.0
    since: str | None = None  # when it came, where it was here already: "2026-01-31T12:00:00Z"


@frozen
class Fate:
    """What becomes of one entry when the cache is pruned, and by which rule."""

    entry: Cached
    goes: bool
    rule: str  # "named by models.lock: tiny", "not used for 45 days"


def text(value: Json) -> str:
    """The JSON text people can read too."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def entry(one: Cached) -> dict[str, Json]:
    """A cached model; what is not known is null or empty."""
    return {
        "source": one.source or None,
        "versions": list(one.versions),
        "pin": one.pin,
        "kind": one.kind,
        "size_bytes": one.size_bytes,
        "files": len(one.files),
        "complete": one.complete,
        "fetched_at": one.fetched_at,
        "tool": one.tool,
        "used_at": moment(one.used_at),
        "path": str(one.path),
    }


def moment(seconds: float) -> str:
    """Seconds since 1970 as "2026-01-31T12:00:00Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def day(text: str) -> str:
    """ "2026-01-31 12:00 UTC" of "2026-01-31T12:00:00Z"; another text as it is."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text


def pulled(found: Sequence[Pulled]) -> dict[str, Json]:
    return {
        "format_version": FORMAT_VERSION,
        "pulled": [
            {
                "name": one.name,
                "role": one.role,
                "source": one.artifact.source,
                "version": one.artifact.version,
                "pin": one.artifact.pin,
                "size_bytes": one.artifact.size_bytes,
                "files": len(one.artifact.files),
                "fetched_bytes": one.fetched_bytes,
                "seconds": round(one.seconds, 3),
                "path": str(one.path),
            }
            for one in found
        ],
    }


def listed(entries: Sequence[Cached], disk_bytes: int) -> dict[str, Json]:
    """`disk_bytes` counts what entries share once."""
    return {
        "format_version": FORMAT_VERSION,
        "disk_bytes": disk_bytes,
        "entries": [entry(one) for one in entries],
    }


def verified(entries: Sequence[Cached], damage: "Sequence[Damage]", read_bytes: int) -> dict[str, Json]:
    return {
        "format_version": FORMAT_VERSION,
        "entries": len(entries),
        "read_bytes": read_bytes,
        "damage": [dict(vars(each)) for each in damage],
    }


def pruned(fates: Sequence[Fate], plan: "Reclaim", freed_bytes: int | None) -> dict[str, Json]:
    """`freed_bytes` is null where nothing was removed: it was only asked what would be."""
    return {
        "format_version": FORMAT_VERSION,
        "entries": [{**entry(fate.entry), "goes": fate.goes, "rule": fate.rule} for fate in fates],
        "views": len(plan.views),
        "downloads": len(plan.downloads),
        "leftovers": len(plan.leftovers),
        "blobs": len(plan.blobs),
        "would_free_bytes": plan.freed_bytes,
        "freed_bytes": freed_bytes,
    }


def imported(
    found: "Sequence[Found]",
    sizes_bytes: Sequence[int],
    taken: Mapping[int, Cached],
    problems: Mapping[int, str],
) -> dict[str, Json]:
    """What other caches hold; `entry` is null where it was not taken over, and `problem` says why if it should have been."""
    return {
        "format_version": FORMAT_VERSION,
        "found": [
            {
                "source": one.source,
                "versions": list(one.versions),
                "pin": one.pin or None,
                "origin": one.origin,
                "folder": str(one.folder),
                "size_bytes": sizes_bytes[index],
                "absent": list(one.absent),
                "entry": entry(taken[index]) if index in taken else None,
                "problem": problems.get(index),
            }
            for index, one in enumerate(found)
        ],
    }
