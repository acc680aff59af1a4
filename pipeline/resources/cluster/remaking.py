"""What is deleted to be made again under its name, which the server may refuse: asked before, and made again as it was after.
Used by driver.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.errors import BackendError, Refused, StartFailed, Unreachable
from pipeline.core.resource import Mark
from pipeline.resources.cluster.completing import made_anew
from pipeline.resources.cluster.live import Live, listed_of
from pipeline.resources.cluster.marks import mark_of
from pipeline.resources.cluster.rollout import Rollout
from pipeline.resources.cluster.sending import written
from pipeline.resources.cluster.standing import restored
from pipeline.resources.cluster.workloads import workloads_in

_OVER_QUOTA = "exceeded quota"  # Kubernetes 1.36, plugin/pkg/admission/resourcequota


def refuse_unplanned(change: Change[Any], live: Live) -> None:
    """Raises Refused where an object would be deleted of which the plan did not say so: it was changed meanwhile."""
    assert change.resource is not None, "what is made is wanted"
    planned = change.action is Action.REPLACE or (change.action is Action.ADOPT and change.interrupts)
    if (keys := made_anew(change.resource, live)) and not planned:
        text = f"{', '.join(keys)} was changed since it was planned, and would be deleted and made again"
        raise Refused(f"{change.address}: {text}", "run mp plan again")


def rehearse(rollout: Rollout, removed: Live, sent: Live, digests: Mapping[str, str]) -> None:
    """Whether the server takes what is to be made in the place of what is deleted: asked under a free name.

    Raises Refused with the server's words, Unreachable; nothing was changed by then.
    """
    for key in workloads_in(removed):
        if key not in sent:
            continue
        try:
            rollout.cluster.apply(_elsewhere(written(sent[key], digests)), dry_run=True)
        except Unreachable:
            raise
        except (BackendError, Refused) as problem:
            if _OVER_QUOTA in problem.message:  # by what is deleted before
                continue
            text = f"{key} is not deleted, for it could not be made again: {problem.message}"
            raise Refused(f"{rollout.system}: {text}", problem.hint) from problem


def goes_back(problem: BackendError | Refused, on_failure: str, removed: Live) -> bool:
    """Whether what was before comes back: what did not start may be left to be looked at, what was never made may not."""
    return on_failure == "rollback" if isinstance(problem, StartFailed) else bool(removed)


def said(problem: BackendError | Refused, outcome: str) -> str:
    """What to do next, and what serves now: of what did not start its pods' words say the former."""
    own = None if isinstance(problem, StartFailed) else problem.hint
    return f"{own}; {outcome}" if own else outcome


def lacking(rollout: Rollout, removed: Live, mark: Mark) -> dict[str, Any]:
    """Of what was deleted what is to be made again, once it is gone, and with it what we made in its place.

    What is there as it was, because its deletion never began, stays, and so does what others made meanwhile. Raises BackendError.
    """
    locator = (rollout.recipe.namespace, rollout.recipe.name)
    live = listed_of(rollout.cluster, *locator, tuple(removed))
    ours = {key: one for key, one in live.items() if key in removed and mark_of(one) == mark}
    ours = {
        key: one for key, one in ours.items() if one["metadata"]["uid"] != removed[key]["metadata"]["uid"]
    }
    gone = {key: one for key, one in removed.items() if key in ours or key not in live}
    rollout.remove(ours)
    rollout.remove({key: one for key, one in gone.items() if key not in live})  # until it has left
    return {key: restored(one) for key, one in gone.items()}


def _elsewhere(one: Mapping[str, Any]) -> dict[str, Any]:
    """The same under a name that nothing has."""
    ending, name = uuid.uuid4().hex[:8], str(one["metadata"]["name"])
    free = f"{name[: -len(ending)] or 'x'}{ending}"  # no longer than it is: a kind may take less than 63 characters
    return {**one, "metadata": {**one["metadata"], "name": free}}
