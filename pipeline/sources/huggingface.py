"""Models on the Hugging Face Hub or a mirror: `hf://org/name`, pinned by commit."""

from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import sha256
from typing import BinaryIO

from pipeline.clients.hub import Hub, HubFile, Revision
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec
from pipeline.sources.choice import chosen
from pipeline.sources.facts import facts, refuse_code, telling


class HuggingFaceSource:
    """Metadata and bytes of one Hub; which Hub is no part of a reference."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        """Pin a branch, tag or commit. Small files that git holds are read: the Hub does not tell their sha256.

        A `known` artifact of the same commit and the same choice of files spares that: one request in all.
        """
        repository = _repository(spec.reference)
        revision = self._hub.revision(repository, spec.version)
        by_path = {file.path: file for file in revision.files}
        paths = chosen(spec, by_path)
        files = [by_path[path] for path in paths]
        if known is not None and known.source == spec.reference and _same(known, revision, files):
            return replace(known, version=spec.version, filter=spec.filter)
        wanted = {*paths, *telling(by_path)}
        small = {
            path: self._hub.small(repository, revision.commit, by_path[path])
            for path in sorted(wanted)
            if by_path[path].sha256 is None
        }
        refuse_code(spec.reference, small)
        entries = tuple(FileEntry(file.path, file.size_bytes, _sha256(file, small)) for file in files)
        said = facts(small, license=revision.license, gated=revision.gated)
        return Artifact(spec.reference, spec.version, revision.commit, entries, said, spec.filter)

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        return self._hub.open(_repository(artifact.source), artifact.pin, entry.path, start)


def _repository(reference: str) -> str:
    return reference.removeprefix("hf://")


def _same(known: Artifact, revision: Revision, files: list[HubFile]) -> bool:
    """A commit's files never change, so their names tell whether the filter is the same too."""
    return known.pin == revision.commit and [entry.path for entry in known.files] == [f.path for f in files]


def _sha256(file: HubFile, small: dict[str, bytes]) -> str:
    return file.sha256 or sha256(small[file.path]).hexdigest()
