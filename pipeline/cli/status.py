"""What a plan says of the models it read: the rows of `mp list` and the sections of `mp show`. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.views import changes, units
from pipeline.cli.views.tables import Details, Row
from pipeline.core.change import Action, Change
from pipeline.core.digest import Json, image_tag
from pipeline.core.model import Artifact
from pipeline.core.plan import Plan
from pipeline.core.resource import Address, address, current_of, fields_of, owner_of, place_of
from pipeline.engine.place import registry_name
from pipeline.manifest.spec import Manifest
from pipeline.targets.registry import RegistrySpec

_PUBLISHED = {"model": "image", "weights": "weights"}  # what a registry target publishes → in an address


def rows(plan: Plan, manifest: Manifest, names: tuple[str, ...]) -> list[Row]:
    """One row for each model at each of its targets, then what is no longer declared."""
    by_address = {change.address: change for change in plan.changes}
    found = []
    for name in names or tuple(manifest.models):
        artifact = _artifact(by_address.get(address(name, "artifact")))
        for target in manifest.models[name].targets:
            spec = manifest.targets[target]
            kind = spec.kind
            at = [address(name, kind, target)]
            if isinstance(spec, RegistrySpec):
                registry = registry_name(manifest, spec)
                at = [address(name, _PUBLISHED[what], registry) for what in spec.publish]
            found.append(_row(plan, by_address, name, target, at, artifact))
    kept = [Row(owner_of(e.address), place_of(e.address) or e.kind, "kept", "", "", None) for e in plan.kept]
    return [*found, *_gone(plan, {(row.model, row.target) for row in found}), *kept]


def _gone(plan: Plan, declared: set[tuple[str, str]]) -> Iterator[Row]:
    """What is to go, once a target; what another takes the place of has its row already."""
    for change in plan.changes:
        if change.action not in (Action.DELETE, Action.FORGET):
            continue
        place = place_of(current_of(change.address)) or change.kind
        if (owner_of(change.address), place) not in declared:
            endpoint = change.observed.endpoint if change.observed else None
            yield Row(owner_of(change.address), place, "no longer declared", "", "", endpoint)


def details(plan: Plan, name: str, root: str) -> Details:
    """Everything the plan's reading knows of one model, resource by resource."""
    mine = [change for change in plan.changes if owner_of(change.address) == name]
    sections = [("", list(_of_artifact(mine, root)))]
    sections += [(change.address, list(_of_change(change))) for change in mine if change.kind != "artifact"]
    for where, unread in plan.unreadable.items():
        if owner_of(where) == name:
            sections.append((where, [("state", f"not read: {unread.reason}")]))
    sections.append(("files", list(_files(mine))))
    return Details(name, tuple((title, texts) for title, texts in sections if texts))


def state(change: Change[Any] | None, *, unread: bool) -> str:
    """One word or two for a deployment."""
    if unread or change is None:
        return "not read" if unread else "not planned"
    if change.missing:
        return "missing"
    if change.drift:
        return "drifted"
    match change.action:
        case Action.NOOP:
            return "published" if change.kind == "image" else "running"
        case Action.CREATE:
            return "not applied"
        case Action.DELETE | Action.FORGET:
            return "no longer declared"
        case _:
            return "changed"


def _row(
    plan: Plan,
    by_address: Mapping[Address, Change[Any]],
    name: str,
    target: str,
    at: list[Address],
    artifact: Artifact | None,
) -> Row:
    """The row of a target; of several images, the first that is not as wanted speaks."""
    states = [state(by_address.get(where), unread=where in plan.unreadable) for where in at]
    word = next(
        (s for s in states if s not in ("running", "published")), states[0] if states else "not planned"
    )
    found = [c for where in at if (c := by_address.get(where)) and c.observed]
    return Row(
        name,
        target,
        word,
        artifact.version if artifact else "",
        artifact.pin.removeprefix("sha256-") if artifact else "",
        next((c.observed.endpoint for c in found if c.observed), None),
        tuple(reference for c in found if (reference := _reference(c))),
    )


def _reference(change: Change[Any]) -> str | None:
    """The image that is there: "ghcr.io/acme/models/qwen3-8b:mp-<12 hex>@sha256:…"; None for what is no image."""
    if change.kind != "image" or not change.resource or not change.observed or not change.observed.digest:
        return None
    where, live = change.resource.locator, change.observed.state.fingerprint
    tag = f":{image_tag(live)}" if live else ""  # somebody else's image: only its digest is sure
    return f"{where['registry']}/{where['repository']}{tag}@{change.observed.digest}"


def _artifact(change: Change[Any] | None) -> Artifact | None:
    held = getattr(change.resource.desired, "artifact", None) if change and change.resource else None
    return held if isinstance(held, Artifact) else None


def _of_artifact(mine: list[Change[Any]], root: str) -> Iterator[tuple[str, str]]:
    for change in mine:
        if (artifact := _artifact(change)) is None:
            continue
        yield "source", units.source(artifact.source, root)
        if artifact.version:
            yield "version", artifact.version
        yield "pin", artifact.pin
        yield (
            "size",
            f"{units.transferred(artifact.size_bytes)} in {units.counted(len(artifact.files), 'file')}",
        )
        here = change.action is Action.NOOP
        yield "cache", "here, verified" if here else units.moved(change.transfer) or "not here"
        for fact, held in sorted(vars(artifact.facts).items()):
            if held is not None:
                yield units.label(fact), units.value(fact, held)
        if change.resource and change.resource.where:
            yield "declared", str(change.resource.where)


def _of_change(change: Change[Any]) -> Iterator[tuple[str, str]]:
    """What is live where it was read, else what is wanted."""
    seen = change.observed
    yield "state", "; ".join([state(change, unread=False), *changes.parts(change)])
    if change.drift and not change.missing:
        yield "drift", changes.drift(change)
    if seen and seen.endpoint:
        yield "url", seen.endpoint
    if seen and seen.remote_id:
        yield "id", seen.remote_id
    if seen and seen.digest:
        yield "digest", seen.digest
    if change.entry and change.entry.commit:
        yield "applied at", change.entry.commit
    held = seen.state if seen else change.resource.desired if change.resource else None
    for path, value in _leaves(fields_of(held) if held else {}, ""):
        yield units.label(path), value


def _leaves(held: Json, path: str) -> Iterator[tuple[str, str]]:
    """Every field of a state that says something, an engine's flags on one line."""
    if isinstance(held, dict):
        for key, inner in held.items():
            yield from _leaves(inner, f"{path}/{key}" if path else key)
    elif isinstance(held, list) and path.rpartition("/")[2] in ("argv", "command"):
        yield path, " ".join(map(str, held))
    elif held not in (None, "", []):
        yield path, units.value(path, held)


def _files(mine: list[Change[Any]]) -> Iterator[tuple[str, str]]:
    for change in mine:
        if artifact := _artifact(change):
            for entry in artifact.files:
                yield entry.path, f"sha256 {entry.sha256[:12]}, {units.transferred(entry.size_bytes)}"
