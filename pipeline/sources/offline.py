"""A source that is not asked: what stands for every source behind a network with `--offline` or HF_HUB_OFFLINE=1."""

from contextlib import AbstractContextManager
from typing import BinaryIO

from pipeline.core.errors import BackendError
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec


class Offline:
    """Knows nothing; pins come from models.lock and bytes from the cache."""

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        version = f" {spec.version}" if spec.version else ""
        raise BackendError(
            "offline",
            f"{spec.reference}{version} is not pinned in models.lock and cannot be resolved",
            "a model of models.yaml: run mp lock where there is a network; else mp pull it there, with the same cache",
        )

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        raise BackendError(
            "offline",
            f'"{entry.path}" of {artifact.source} is not in the cache',
            "bring it: mp cache import, or run mp pull where there is a network, with the same cache",
        )
