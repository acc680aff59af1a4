"""Which rule keeps or removes each entry of the cache: what this project names stays, what others had goes by its age."""

import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.cli.cache.storage import Storage
from pipeline.cli.views import units
from pipeline.cli.views.entries import Fate
from pipeline.core.frozen import frozen
from pipeline.resources.cache.cached import Cached
from pipeline.resources.cache.reclaim import RECENT_S, Reclaim
from pipeline.resources.cache.serving import served

if TYPE_CHECKING:
    from pipeline.cli.cache.roots import Roots  # reads inventories

DAY_S = 86400.0
OLDER_THAN_DAYS = 30  # what nobody used for so long goes, when nothing else is said


@frozen
class Pruning:
    """What would be removed, and why each entry goes or stays."""

    plan: Reclaim
    fates: tuple[Fate, ...]

    @property
    def is_empty(self) -> bool:
        plan = self.plan
        return not (plan.entries or plan.views or plan.downloads or plan.leftovers or plan.blobs)


def pruning(storage: Storage, older_than_days: int | None, *, everything: bool) -> Pruning:
    """Changes nothing. `everything`: age does not matter, nor that something was used a moment ago."""
    days = OLDER_THAN_DAYS if older_than_days is None else older_than_days
    now = time.time()
    named = _roots(storage)
    pins = named.pins if named else {}
    views = named.views if named else frozenset()
    before = float("inf") if everything else now - days * DAY_S
    cached = storage.shelf.list()
    young = {(one.source, one.pin) for one in cached if one.used_at > before}
    wanted = {pair for pair in (*pins, *young) if pair[0]}
    folder = storage.settings.cache / "views"
    kept = {
        view.name
        for view in (folder.iterdir() if folder.is_dir() else ())
        if view.stat().st_ctime > before or view.name in views
    }
    plan = storage.shelf.unwanted(wanted, kept | served(), named.contents if named else (), forced=everything)
    gone = {one.path for one in plan.entries}
    fates = [
        Fate(
            one,
            one.path in gone,
            _rule(
                one, pins, now, days, goes=one.path in gone, everything=everything, spared=one in plan.spared
            ),
        )
        for one in cached
    ]
    return Pruning(plan, tuple(sorted(fates, key=lambda fate: not fate.goes)))


def _roots(storage: Storage) -> "Roots | None":
    """What the project of this folder needs, when there is one."""
    if storage.project is None:
        return None
    named: Roots = import_module("pipeline.cli.cache.roots").roots(storage.project)
    return named


def _rule(
    one: Cached,
    pins: Mapping[tuple[str, str], Sequence[str]],
    now: float,
    days: int,
    *,
    goes: bool,
    everything: bool,
    spared: bool,
) -> str:
    used = units.ago(now - one.used_at)
    if goes:
        return "--all: models.lock does not name it" if everything else f"last used {used}, limit {days} days"
    if names := pins.get((one.source, one.pin)):
        return f"models.lock: {', '.join(names)}"
    if spared:
        recent = now - one.used_at <= RECENT_S
        return f"used {used}: may be in use" if recent else "a download is under way: it may share files"
    return f"used {used}: goes after {days} days"
