"""What the inventory remembers of a change: before it is taken, and after it; also which versions were good. Used by step."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.core.change import Change
from pipeline.core.digest import fingerprint, image_tag
from pipeline.core.resource import Address, Entry, Made, Observed, Resource, Version, fields_of
from pipeline.core.restoring import Restores
from pipeline.engine.crew import Crew
from pipeline.engine.identity import identity_of

KEPT = 2  # good versions of a deployment: the last, and the one before it for a rollback

Inputs = Mapping[Address, Observed[Any]]


def begun(change: Change[Any], resource: Resource[Any], crew: Crew) -> Entry:
    """The widened entry: from now on this may exist. What was applied before stays known until the step ends."""
    blank = Entry(
        resource.address, resource.kind, resource.locator, remote_id=None, digest=None, applied={}, good={}
    )
    return replace(
        change.entry or blank,
        locator=resource.locator,
        protect=resource.lifecycle.protect,
        on_remove=resource.lifecycle.on_remove,
        keep=resource.keep,
        made=_made(change, resource, crew),
        wanted=wanted_of(resource),
        held=resource.held,
        trial=resource.trial,
        identity=identity_of(change),
    )


def entry_after(change: Change[Any], seen: Observed[Any] | None, inputs: Inputs, crew: Crew) -> Entry | None:
    """The entry after a step: None when the thing is gone or no longer ours. Only what was proven is good, and a canary
    changes nothing of what is.
    """
    resource = change.resource
    if resource is None or seen is None:
        return None
    state = fields_of(seen.state)
    proven = resource.keep or seen.proof is not None or seen.accepted or change.entry is None
    good = state if proven or change.entry is None else change.entry.good
    contents = resource.contents
    versions: tuple[Version, ...] = ()
    if not resource.keep:
        new = _version(resource, state, seen, inputs, crew) if proven and not resource.trial else None
        versions = _versions(change.entry, new, resource)
        good = versions[0].state if (resource.held or resource.trial) and versions else good
        contents = versions[0].contents if resource.trial and versions else contents
    return Entry(
        address=resource.address,
        kind=resource.kind,
        locator=resource.locator,
        remote_id=seen.remote_id,
        digest=seen.digest,
        applied=state,
        good=good,
        commit=crew.commit,
        protect=resource.lifecycle.protect,
        on_remove=resource.lifecycle.on_remove,
        keep=resource.keep,
        made=_made(change, resource, crew),
        contents=contents,
        wanted=wanted_of(resource),
        versions=versions,
        held=resource.held,
        trial=resource.trial,
        identity=identity_of(change),
    )


def wanted_of(resource: Resource[Any]) -> str:
    """Names the desired state of a deployment; of one that is held, the state that it was brought back from; of one with a
    canary, the state that is tried.
    """
    if resource.keep:
        return ""
    if resource.trial:
        return resource.trial.wanted
    return resource.held.wanted if resource.held else fingerprint(fields_of(resource.desired))


def _version(
    resource: Resource[Any], state: Mapping[str, Any], seen: Observed[Any], inputs: Inputs, crew: Crew
) -> Version:
    driver = crew.drivers[resource.kind]
    recipe = driver.recall(resource, inputs) if isinstance(driver, Restores) else None
    now = crew.clock()
    proof_at = now if seen.proof else None
    return Version(state, now, resource.contents, crew.commit, recipe, seen.proof, proof_at)


def _versions(entry: Entry | None, new: Version | None, resource: Resource[Any]) -> tuple[Version, ...]:
    """Good versions, the newest first. What a rollback left is none; a version that is proven again keeps its date."""
    before = entry.versions if entry else ()
    if resource.held is not None:
        stays, *older = (one for one in before if one.at <= resource.held.version_at)
        if new is not None and new.proof is not None:
            stays = replace(stays, proof=new.proof, proof_at=new.proof_at)
        return (stays, *older)
    if new is None:
        return before
    at = next((one.at for one in before[:1] if one.state == new.state), new.at)
    return (replace(new, at=at), *(one for one in before if one.state != new.state))[:KEPT]


def _made(change: Change[Any], resource: Resource[Any], crew: Crew) -> tuple[Made, ...]:
    """The images that were applied here, with the desired one: from its first byte on it is ours to prune."""
    full = fields_of(resource.desired).get("fingerprint") if resource.keep else None
    before = change.entry.made if change.entry else ()
    if full is None or (before and before[0].tag == image_tag(str(full))):
        return before
    own = Made(image_tag(str(full)), crew.clock())
    return (own, *(one for one in before if one.tag != own.tag))
