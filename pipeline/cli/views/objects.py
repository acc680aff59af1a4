"""Objects of a cluster as a YAML file. Pure."""

from collections.abc import Sequence
from typing import Any

import yaml


class _Plain(yaml.SafeDumper):
    """Without anchors: what occurs twice is written twice, as people and tools of clusters expect it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def head(project: str, environment: str) -> str:
    """The first line of every file; it says whose it is."""
    return f"# Written by mp render for {project}/{environment}. Edits are lost with the next one.\n"


def document(first: str, objects: Sequence[dict[str, Any]]) -> str:
    """One file: every object a document, in the order they are applied."""
    each = (
        yaml.dump(one, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=10_000) for one in objects
    )
    return first + "".join(f"---\n{text}" for text in each)
