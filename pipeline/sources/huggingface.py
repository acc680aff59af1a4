"""Models on the Hugging Face Hub or a mirror: `hf://org/name`, pinned by commit."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import sha256
from typing import BinaryIO

from pipeline.clients.hub import SMALL_BYTES, Hub, Revision
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec
from pipeline.sources.choice import Choice, choose
from pipeline.sources.facts import facts, license_of, telling
from pipeline.sources.safety import require_safe

READERS = 8  # small files of one repository at a time


class HuggingFaceSource:
    """Metadata and bytes of one Hub; which Hub is no part of a reference."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        """Pin a branch, tag or commit. Small files that git holds are read: the Hub does not tell their sha256.

        A `known` artifact of the same choice of files costs no request when the version is a commit, else one.
        """
        if known is not None and (known.source, known.filter) != (spec.reference, spec.filter):
            known = None
        if known is not None and known.pin == spec.version:
            return replace(known, version=spec.version)
        repository = _repository(spec.reference)
        revision = self._hub.revision(repository, spec.version)
        by_path = {file.path: file for file in revision.files}
        choice = choose(spec, {file.path: file.size_bytes for file in revision.files})
        if known is not None and _same(known, revision, choice):
            said = replace(known.facts, gated=revision.gated)  # a gate opens and closes without a commit
            return replace(known, version=spec.version, facts=said)
        small = self._small(repository, revision, choice)
        hashes = {path: by_path[path].sha256 or sha256(small[path]).hexdigest() for path in choice.paths}
        require_safe(spec, choice, small, hashes, revision.commit)
        entries = tuple(FileEntry(path, by_path[path].size_bytes, hashes[path]) for path in choice.paths)
        license = license_of(revision.licenses, revision.license_name)
        created = self._hub.committed(repository, revision.commit)
        said = facts(small, license, revision.gated, created)
        pin, left_out_bytes = revision.commit, choice.left_out_bytes
        return Artifact(spec.reference, spec.version, pin, entries, said, spec.filter, left_out_bytes)

    def _small(self, repository: str, revision: Revision, choice: Choice) -> dict[str, bytes]:
        """What is read: the files without a known sha256, and those that tell of the model or may name code."""
        chosen, by_path = set(choice.paths), {file.path: file for file in revision.files}
        telling_paths = {path for path in telling(by_path) if path in chosen or "/" not in path}
        unknown = {path for path in chosen if by_path[path].sha256 is None}
        paths = [
            path
            for path in sorted(unknown | telling_paths)
            if path in unknown or by_path[path].size_bytes <= SMALL_BYTES
        ]
        with ThreadPoolExecutor(READERS, "hub") as pool:
            contents = pool.map(lambda p: self._hub.small(repository, revision.commit, by_path[p]), paths)
            return dict(zip(paths, contents, strict=True))

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        return self._hub.open(_repository(artifact.source), artifact.pin, entry.path, start, entry.size_bytes)


def _repository(reference: str) -> str:
    return reference.removeprefix("hf://")


def _same(known: Artifact, revision: Revision, choice: Choice) -> bool:
    """A commit's files never change; only another mp may choose others among them."""
    return known.pin == revision.commit and tuple(entry.path for entry in known.files) == choice.paths
