"""Server-side apply of one object, and whose fields may be taken by it. Used by everything that writes objects."""

from collections.abc import Mapping

from pipeline.clients.kube import MANAGER, Cluster, Conflict, Object, address_of
from pipeline.core.digest import Json

HAND = "kubectl"  # what kubectl's field managers begin with: kubectl-edit, kubectl-patch, kubectl of kubectl scale


def put(
    cluster: Cluster,
    wanted: Mapping[str, Json],
    *,
    dry_run: bool = False,
    take_from: frozenset[str] = frozenset(),
) -> Object:
    """Server-side apply. What somebody set by hand with kubectl is taken back, and what the named managers have; what
    another tool manages is not.

    Raises Conflict, which names who manages what.
    """
    try:
        return cluster.apply(wanted, dry_run=dry_run)
    except Conflict as problem:
        live = cluster.get(*address_of(wanted))
        if live is None or not _takeable(problem, live, take_from):
            raise
        return cluster.apply(wanted, dry_run=dry_run, force=True)


def _takeable(conflict: Conflict, live: Object, take_from: frozenset[str]) -> bool:
    """All of it was set by kubectl's imperative commands, or is to be taken: an Apply says that somebody else declares it."""
    declaring = {
        one.get("manager")
        for one in live["metadata"].get("managedFields") or ()
        if one.get("operation") == "Apply" and one.get("manager") != MANAGER
    }
    managers = {manager for manager, _ in conflict.held}
    return bool(managers) and all(
        m in take_from or (m.startswith(HAND) and m not in declaring) for m in managers
    )
