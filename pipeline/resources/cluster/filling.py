"""Claims are filled before the workload that mounts them is touched: by a Job, whose end is waited for. Used by rollout.

A claim that is filled says so in an annotation, once its Job has verified every file. So neither a Job that was removed nor
a newer mp fills a claim again, and one that was made anew under the same name is seen to be empty.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.clients.kube import CLAIM, EVENT, JOB, KINDS, POD, Cluster, Object
from pipeline.core.digest import Json
from pipeline.core.errors import Denied, StartFailed
from pipeline.core.frozen import frozen
from pipeline.resources.cluster.applying import put
from pipeline.resources.cluster.fields import is_leaving, met
from pipeline.resources.cluster.health import said
from pipeline.resources.cluster.live import OURS
from pipeline.resources.cluster.marks import FILLED
from pipeline.resources.cluster.pods import (
    BIND_S,
    REFUSED_S,
    UNBOUND,
    Trouble,
    end_of,
    last_line,
    troubles,
)
from pipeline.resources.cluster.sending import written
from pipeline.resources.cluster.waiting import pauses

JOB_LABEL = "batch.kubernetes.io/job-name"  # the Job controller's, of its pods
CONTAINER = "fill"
GONE_S = 60.0  # for a Job that ended: it has no pod that runs
STALL_S = (
    900.0  # without a word: also for storage that is made, an image that is pulled, a node that is added
)
NOT_MADE = frozenset(("FailedCreate",))  # the same, of a Job: a quota or an admission takes no pod of it


@frozen
class Filling:
    """The claims of one deployment on their way. `say` gets how far it is."""

    cluster: Cluster
    system: str  # for messages: "qwen/kubernetes:prod"
    namespace: str
    say: Callable[[str], None]

    def bring(self, claim: Object, task: Sequence[Object], digests: Mapping[str, str]) -> Object:
        """A claim that holds what it shall. `task`: a ConfigMap and a Job that fill it; () where nobody knows how.

        Raises StartFailed with the Job's own reason, Conflict, Denied, Unreachable.
        """
        name = str(claim["metadata"]["name"])
        live = self.cluster.get(CLAIM, self.namespace, name)
        if live is not None and is_leaving(live):
            hint = "Kubernetes keeps it while a pod mounts it: delete the workload as well, then run mp apply"
            raise StartFailed(self.system, f"claim {name} is being deleted", hint)
        if live is not None and _filled(live) == _filled(claim):
            return put(self.cluster, written(claim, digests))
        if not task:
            raise StartFailed(self.system, f"claim {name} is gone, and the weights that it held")
        empty = put(self.cluster, written(unfilled(claim), digests))
        self._clear_ended(task)
        for one in task:
            put(self.cluster, written(_of_claim(one, empty), digests))
        self._wait(name, str(task[-1]["metadata"]["name"]))
        made = put(self.cluster, written(claim, digests))
        self._remove(task)
        return made

    def _clear_ended(self, task: Sequence[Object]) -> None:
        """A Job that ended, and left its claim unfilled, starts once more; one that still runs is waited for."""
        name = str(task[-1]["metadata"]["name"])
        job = self.cluster.get(JOB, self.namespace, name)
        if job is None or not (_ended(job) or is_leaving(job)):
            return
        self._remove(task)
        deadline = time.monotonic() + GONE_S
        for pause_s in pauses():
            if self.cluster.get(JOB, self.namespace, name) is None:
                return
            if time.monotonic() > deadline:
                raise StartFailed(self.system, f"job {name} is still being deleted after {GONE_S:.0f} s")
            time.sleep(pause_s)

    def _remove(self, task: Sequence[Object]) -> None:
        for one in reversed(task):
            kind, name = KINDS[one["kind"]], str(one["metadata"]["name"])
            if live := self.cluster.get(kind, self.namespace, name):
                self.cluster.delete(kind, self.namespace, name, live["metadata"]["uid"])

    def _wait(self, claim: str, job: str) -> None:
        began = told_at = time.monotonic()
        told = ""
        for pause_s in pauses():
            one = self.cluster.get(JOB, self.namespace, job)
            if one is None:
                raise StartFailed(
                    self.system, f"job {job} was deleted while it filled {claim}", "run mp apply"
                )
            if met(one, "Complete"):
                return
            pods = self.cluster.list(POD, self.namespace, f"{JOB_LABEL}={job}")
            if failed := met(one, "Failed"):
                raise self._failed(claim, _end(pods) or str(failed.get("message") or failed.get("reason")))
            now = time.monotonic()
            words, lasting = self._words(claim, one, pods, now - began)
            if lasting:
                raise self._failed(claim, words)
            if words and words != told:
                told, told_at = words, now
                self.say(words)
            if now - told_at > STALL_S:
                raise self._failed(claim, f"nothing was heard of job {job} for {STALL_S / 60:.0f} minutes")
            time.sleep(pause_s)

    def _words(self, claim: str, job: Object, pods: Sequence[Object], waited_s: float) -> tuple[str, bool]:
        """What is to be said of it now, and whether waiting does not help."""
        active = [pod for pod in pods if _phase(pod) in ("Pending", "Running") and not is_leaving(pod)]
        if running := next((pod for pod in active if _phase(pod) == "Running"), None):
            name = str(running["metadata"]["name"])
            return f"weights: {last_line(self.cluster.log(self.namespace, name, CONTAINER, lines=1))}", False
        if not active and (end := _end(pods)):
            return f"weights: {end}; it is tried again", False
        events = self.cluster.list(EVENT, self.namespace)
        if not active:
            refused = _said_of(job, events, NOT_MADE)
            return refused or "", bool(refused) and waited_s > REFUSED_S
        found = next(iter(troubles(active, events, datetime.now(UTC))), None)
        if found is None:
            return "", False
        return self._unbound(claim, found, events, waited_s) or (found.reason, found.lasting)

    def _unbound(
        self, claim: str, found: Trouble, events: Sequence[Object], waited_s: float
    ) -> tuple[str, bool] | None:
        """Of a pod that waits for its claim's storage: what is said of that. None when it waits for something else."""
        live = self.cluster.get(CLAIM, self.namespace, claim)
        if live is None or (live.get("status") or {}).get("phase") == "Bound":
            return None
        if refused := _said_of(live, events, UNBOUND):
            return refused, waited_s > REFUSED_S
        return found.reason, found.lasting and waited_s > BIND_S

    def _failed(self, claim: str, why: str) -> StartFailed:
        hint = f"kubectl -n {self.namespace} describe pvc {claim} and the pods of its job tell more"
        return StartFailed(self.system, f"claim {claim} was not filled: {why}", hint)


def stop_filling(cluster: Cluster, namespace: str, claims: Sequence[Object]) -> None:
    """Delete the Jobs that fill these claims, before the claims themselves are deleted.

    The garbage collector would, but for a race (seen with Kubernetes 1.36: 5 of 400 claims under load): when it is done with
    a claim before it looks at the claim's Job, the Job stays, its pods hold the claim, and neither ever goes.
    """
    owners = {one["metadata"]["uid"] for one in claims}
    if not owners:
        return
    with contextlib.suppress(Denied):  # then the garbage collector decides
        for job in cluster.list(JOB, namespace, OURS):
            of = job["metadata"]
            if owners & {owner["uid"] for owner in of.get("ownerReferences") or ()}:
                cluster.delete(JOB, namespace, str(of["name"]), of["uid"])


def is_claim(one: Mapping[str, Json]) -> bool:
    return one["kind"] == CLAIM.name


def is_filling(pod: Object) -> bool:
    """A pod that fills a volume of its own, before its server starts."""
    each = (pod.get("status") or {}).get("initContainerStatuses") or ()
    return any(one["name"] == CONTAINER and "running" in (one.get("state") or {}) for one in each)


def objects_of(task: Sequence[Json]) -> tuple[Object, ...]:
    return tuple(one for one in task if isinstance(one, dict))


def _filled(claim: Mapping[str, Any]) -> str:
    """What a claim says that it holds; "" where it says nothing."""
    return str((claim["metadata"].get("annotations") or {}).get(FILLED) or "")


def unfilled(claim: Object) -> Object:
    """A claim as it is before its Job has ended."""
    annotations = {key: value for key, value in claim["metadata"]["annotations"].items() if key != FILLED}
    return {**claim, "metadata": {**claim["metadata"], "annotations": annotations}}


def _of_claim(one: Object, claim: Object) -> Object:
    """An object that goes with its claim, also where nobody waits for its end."""
    owner = {
        "apiVersion": claim["apiVersion"],
        "kind": claim["kind"],
        "name": claim["metadata"]["name"],
        "uid": claim["metadata"]["uid"],
    }
    return {**one, "metadata": {**one["metadata"], "ownerReferences": [owner]}}


def _said_of(one: Object, events: Sequence[Object], reasons: frozenset[str]) -> str | None:
    """The last event of an object that has one of these reasons, in the words of whoever wrote it."""
    uid = one["metadata"]["uid"]
    own = [event for event in events if event.get("involvedObject", {}).get("uid") == uid]
    return next((said(event) for event in reversed(own) if event.get("reason") in reasons), None)


def _ended(job: Object) -> bool:
    return any(met(job, word) for word in ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"))


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase"))


def _end(pods: Sequence[Object]) -> str | None:
    """Why the pod that ended last did so: the last line of its log, which the kubelet keeps in its status."""
    ended = []
    for pod in pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            state = (status.get("state") or {}).get("terminated")
            if state and state.get("exitCode"):
                ended.append(state)
    if not ended:
        return None
    last = max(ended, key=lambda state: str(state.get("finishedAt")))
    return end_of(last) or f"it ended with exit code {last['exitCode']}"
