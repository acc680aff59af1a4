"""Views that something on this machine serves from right now. Read from /proc; asked before views are removed."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
_VIEW = re.compile(rb"/views/([0-9a-f]{12})(?![0-9a-f])")


def served(proc: Path = PROC) -> frozenset[str]:
    """Names of views in the arguments of a process or among what is mounted for it: a model server, a container.

    What belongs to other users is seen by root alone.
    """
    return frozenset(found.decode() for text in _texts(proc) for found in _VIEW.findall(text))


def _texts(proc: Path) -> Iterator[bytes]:
    for process in proc.glob("[0-9]*"):
        for file in ("cmdline", "mountinfo"):
            with contextlib.suppress(OSError):  # it has ended, or it is somebody else's
                yield (process / file).read_bytes()
