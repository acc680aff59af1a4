"""How a thing in a cluster is: one of six words, and why. The words are those of Argo CD's resource health. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

from pipeline.core.frozen import frozen

Object: TypeAlias = Mapping[str, Any]  # Any: an object of the API, as its schema has it


class Word(StrEnum):
    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"  # it is paused: nothing is rolled out; or it is scaled to 0
    MISSING = "Missing"
    UNKNOWN = "Unknown"


@frozen
class Health:
    word: Word
    reason: str = ""

    def __str__(self) -> str:
        """As a state has it: "Healthy", "Degraded: 1 of 2 pods is ready"."""
        return f"{self.word}: {self.reason}" if self.reason else str(self.word)


def said(one: Object) -> str:
    """A condition or a state in the words of whoever set it: "ImagePullBackOff: …"."""
    reason, message = str(one.get("reason") or ""), str(one.get("message") or "")
    return ": ".join(part for part in (reason, message) if part)
