"""What a plan says of the models it read: the rows of `mp list` and what `mp show` tells. Pure, but for looks into the cache."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline.cli.views import changes, units
from pipeline.cli.views.details import Details, Kept, Live, Provenance
from pipeline.cli.views.tables import AdapterRow, Row
from pipeline.core.change import Action, Change
from pipeline.core.digest import image_tag
from pipeline.core.model import WEIGHTS, Artifact
from pipeline.core.plan import Plan
from pipeline.core.resource import Address, address, current_of, fields_of, owner_of, place_of, said_of
from pipeline.manifest.lock import Lock
from pipeline.manifest.spec import Manifest
from pipeline.manifest.stated import registry_name
from pipeline.resources.cache.cached import Cached
from pipeline.sources.facts import TELLING_BYTES, facts, telling
from pipeline.targets.registry import RegistrySpec

_PUBLISHED = {"model": "image"}  # what a registry target publishes → in an address, where that differs
ADAPTERS = "adapters."  # roles that begin so


def rows(plan: Plan, lock: Lock, manifest: Manifest, names: tuple[str, ...], root: str) -> list[Row]:
    """One row for each model at each of its targets, then what is no longer declared."""
    by_address = {change.address: change for change in plan.changes}
    found = []
    for name in names or tuple(manifest.models):
        parts = lock.models.get(name, {})
        for target in manifest.models[name].targets:
            spec = manifest.targets[target]
            kind = spec.kind
            at = [address(name, kind, target)]
            if isinstance(spec, RegistrySpec):
                registry = registry_name(manifest, spec)
                at = [address(name, _PUBLISHED.get(what, what), registry) for what in spec.publish]
            found.append(_row(plan, by_address, name, target, at, parts, root))
    kept = [
        Row(owner_of(e.address), said_of(place_of(e.address) or e.kind), "kept", "", "", None)
        for e in plan.kept
    ]
    return [*found, *_gone(plan, {(row.model, row.target) for row in found}), *kept]


def adapters(
    lock: Lock, names: Sequence[str], root: str, here: Callable[[Artifact], bool]
) -> list[AdapterRow]:
    """One row for each adapter of each model, in the order of the names."""
    return [
        AdapterRow(
            name,
            role.removeprefix(ADAPTERS),
            "cached" if here(one) else "not cached",
            one.version,
            one.pin,
            units.source(one.source, root),
            one.size_bytes,
        )
        for name in names
        for role, one in sorted(lock.models.get(name, {}).items())
        if role.startswith(ADAPTERS)
    ]


def _gone(plan: Plan, declared: set[tuple[str, str]]) -> Iterator[Row]:
    """What is to go, once a target; what another takes the place of has its row already."""
    for change in plan.changes:
        if change.action not in (Action.DELETE, Action.FORGET):
            continue
        place = place_of(current_of(change.address)) or change.kind
        if (owner_of(change.address), place) not in declared:
            endpoint = change.observed.endpoint if change.observed else None
            yield Row(owner_of(change.address), place, "no longer declared", "", "", endpoint)


def details(plan: Plan, name: str, sources: tuple[Provenance, ...], where: str | None) -> Details:
    """Everything the plan's reading knows of one model, resource by resource."""
    mine = [c for c in plan.changes if owner_of(c.address) == name and c.kind != "artifact"]
    unread = [
        Live(
            each,
            each.split("/", 1)[-1].partition(":")[0],
            "not read",
            reason=why.reason,
            remarks=(why.reason,),
        )
        for each, why in plan.unreadable.items()
        if owner_of(each) == name
    ]
    return Details(name, where, sources, (*(_live(change) for change in mine), *unread))


def provenance(
    parts: Mapping[str, Artifact], cached: Sequence[Cached], missing_bytes: Callable[[Artifact], int]
) -> tuple[Provenance, ...]:
    """Of every source of a model, the weights first: its pin, and the copy that the cache has."""
    entries = {(entry.source, entry.pin): entry for entry in cached}
    return tuple(
        Provenance(
            role,
            one.source,
            (one.version,) if one.version else (),
            one.pin,
            one.files,
            one.filter,
            one.left_out_bytes,
            one.facts,
            _kept(entry) if (entry := entries.get((one.source, one.pin))) else None,
            missing_bytes(one),
        )
        for role, one in sorted(parts.items(), key=lambda each: (each[0] != WEIGHTS, each[0]))
    )


def of_entry(entry: Cached) -> Details:
    """What the cache alone knows of a model that nobody declares; its facts are those of the files that are here."""
    paths = {file.path for file in entry.files if file.size_bytes <= TELLING_BYTES}
    content = {}
    for path in telling(paths):
        with suppress(OSError):  # a damaged entry
            content[path] = (entry.path / path).read_bytes()
    one = Provenance(
        WEIGHTS,
        entry.source,
        entry.versions,
        entry.pin,
        entry.files,
        facts=facts(content),
        kept=_kept(entry),
    )
    return Details(entry.source or str(entry.path), None, (one,))


def _kept(entry: Cached) -> Kept:
    return Kept(str(entry.path), entry.complete, entry.fetched_at, entry.tool)


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
    parts: Mapping[str, Artifact],
    root: str,
) -> Row:
    """The row of a target; of several images, the first that is not as wanted speaks."""
    states = [state(by_address.get(where), unread=where in plan.unreadable) for where in at]
    word = next(
        (s for s in states if s not in ("running", "published")), states[0] if states else "not planned"
    )
    found = [c for where in at if (c := by_address.get(where)) and c.observed]
    artifact = parts.get(WEIGHTS)
    return Row(
        name,
        target,
        word,
        artifact.version if artifact else "",
        artifact.pin.removeprefix("sha256-") if artifact else "",
        next((c.observed.endpoint for c in found if c.observed), None),
        tuple(reference for c in found if (reference := _reference(c))),
        units.source(artifact.source, root) if artifact else "",
        sum(one.size_bytes for one in parts.values()) if artifact else None,
    )


def _reference(change: Change[Any]) -> str | None:
    """The image that is there: "ghcr.io/acme/models/qwen3-8b:mp-<12 hex>@sha256:…"; None for what is no image."""
    if change.kind != "image" or not change.resource or not change.observed or not change.observed.digest:
        return None
    where, live = change.resource.locator, change.observed.state.fingerprint
    tag = f":{image_tag(live)}" if live else ""  # somebody else's image: only its digest is sure
    return f"{where['registry']}/{where['repository']}{tag}@{change.observed.digest}"


def _live(change: Change[Any]) -> Live:
    """What is live where it was read, else what is wanted."""
    seen = change.observed
    held = seen.state if seen else change.resource.desired if change.resource else None
    return Live(
        change.address,
        change.kind,
        state(change, unread=False),
        str(change.action),
        change.reason,
        change.transfer,
        tuple(changes.parts(change)),
        drift=change.drift,
        drifted=changes.drift(change) if change.drift and not change.missing else "",
        url=seen.endpoint if seen else None,
        remote_id=seen.remote_id if seen else None,
        digest=seen.digest if seen else None,
        commit=change.entry.commit if change.entry else None,
        fields=fields_of(held) if held else {},
    )
