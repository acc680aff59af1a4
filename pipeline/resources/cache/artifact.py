"""The artifact resource: the files of one of a model's sources, verified in this machine's cache. Needed by images and by
mounted deployments."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.digest import fingerprint
from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen
from pipeline.core.model import WEIGHTS, Artifact, Model
from pipeline.core.protocols import Source
from pipeline.core.report import Emit
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Observed,
    Resource,
    State,
    Transfer,
    Unreadable,
    address,
)
from pipeline.resources.cache.store import Cache

KIND = "artifact"


@frozen
class ArtifactState(State):
    """The files by their hashes: where they come from does not matter once they are here."""

    content: str  # fingerprint of the (path, sha256) pairs
    artifact: Artifact = field(compare=False)


def addresses(model: Model) -> tuple[Address, ...]:
    """What has to be in the cache before a model can be served from it: an artifact for each of its sources."""
    return tuple(artifact_address(model.name, role) for role in model.artifacts)


def artifact_address(model: str, role: str) -> Address:
    """ "qwen3-8b/artifact" of the weights, "qwen3-8b/artifact:tokenizer" of a source beside them."""
    return address(model, KIND, None if role == WEIGHTS else role)


def resource(model: Model, role: str = WEIGHTS) -> Resource[ArtifactState]:
    """The artifact of one role; it belongs to this machine only, so no inventory keeps it."""
    artifact = model.artifacts[role]
    content = fingerprint([[entry.path, entry.sha256] for entry in artifact.files])
    return Resource(
        address=artifact_address(model.name, role),
        kind=KIND,
        locator={},
        desired=ArtifactState(content, artifact),
        tracked=False,
        lifecycle=model.lifecycle,
        where=model.where,
    )


def source_of(sources: Mapping[str, Source], artifact: Artifact) -> Source:
    """What reads an artifact's bytes. Raises BackendError where nothing here does."""
    scheme = artifact.source.partition("://")[0]
    source = sources.get(scheme)
    if source is None:
        raise BackendError("sources", f'"{artifact.source}": nothing here reads "{scheme}://"', "run mp lock")
    return source


class ArtifactDriver:
    """Brings artifacts into the cache. `sources` is keyed by the scheme of the reference: "hf", "file"."""

    def __init__(self, cache: Cache, sources: Mapping[str, Source]) -> None:
        self._cache = cache
        self._sources = sources

    def observe(
        self, wanted: Sequence[Resource[ArtifactState]], known: Sequence[Entry]
    ) -> Mapping[Address, Observed[ArtifactState] | Absent | Unreadable]:
        """Look at the cache, never at a source: a plan without changes makes no request."""
        answers: dict[Address, Observed[ArtifactState] | Absent | Unreadable] = {
            entry.address: Absent() for entry in known
        }
        return answers | {each.address: self._look(each.desired) for each in wanted}

    def apply(
        self, change: Change[ArtifactState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[ArtifactState] | None:
        """Download what is missing and verify it. Weights are never deleted here: that is prune's business."""
        if change.resource is None or change.action in (Action.DELETE, Action.FORGET):
            return None
        artifact = change.resource.desired.artifact
        self._cache.add(artifact, source_of(self._sources, artifact), emit, change.address)
        return Observed(change.resource.desired)

    def _look(self, desired: ArtifactState) -> Observed[ArtifactState] | Absent | Unreadable:
        try:
            if self._cache.complete(desired.artifact):
                return Observed(desired)
            missing_bytes = self._cache.missing_bytes(desired.artifact)
        except BackendError as problem:
            return Unreadable(problem.message, problem.hint)
        except OSError as problem:
            return Unreadable(
                f"cache {self._cache.root}: {problem.strerror}", "look at the folder's permissions"
            )
        return Absent(
            Transfer(missing_bytes, reused_bytes=max(0, desired.artifact.size_bytes - missing_bytes))
        )
