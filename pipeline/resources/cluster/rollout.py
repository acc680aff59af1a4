"""One roll-out: objects are applied, waited for with the pods' own words, and proven by a real request. Used by driver."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.clients.enginelog import first_error
from pipeline.clients.kube import KINDS, POD, Cluster, Object, forwarded
from pipeline.clients.openai import Server, wait_until_answering
from pipeline.core.errors import BackendError, Denied, Missing, StartFailed
from pipeline.core.frozen import frozen
from pipeline.core.resource import Proof
from pipeline.resources.cluster.applying import put
from pipeline.resources.cluster.filling import (
    CONTAINER,
    Filling,
    is_claim,
    is_filling,
    objects_of,
    stop_filling,
)
from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.live import Live, Pods, pods_in
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.pods import Trouble, is_ready, last_line
from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.state import ClusterRecipe
from pipeline.resources.cluster.turns import giving_way
from pipeline.resources.cluster.waiting import pauses
from pipeline.resources.cluster.workloads import gone_s_of, workload_of, workloads_in

SETTLE_S = 30.0  # conditions of what was before may still be there
PROVE_S = 60.0  # the pod is ready: its server answers /health at once
LOG_LINES = 400


@frozen
class Rollout:
    """One deployment on its way. `say` gets what keeps it, in words, when that changes."""

    cluster: Cluster
    system: str  # for messages: "qwen/kubernetes:prod"
    recipe: ClusterRecipe
    say: Callable[[str], None]
    take_from: frozenset[str] = frozenset()  # field managers whose fields are taken
    old_first: bool = False  # nothing is spare for a new pod beside the old one

    def bring(self, objects: Live, digests: dict[str, str], limit_s: float) -> Live:
        """Apply in order and wait, but for what comes last. Raises StartFailed with the pod's own reason, Conflict, Denied,
        Unreachable.
        """
        sent = giving_way(objects) if self.old_first else objects
        made = self._put({key: one for key, one in sent.items() if key not in self.recipe.last}, digests)
        for key in workloads_in(objects):
            self._restart_ended(key)
            self._wait(key, limit_s)
            if sent.get(key) != objects[key]:  # from now on it is as it is written down
                self._put_one(objects[key], digests)
                self._wait(key, limit_s)
            made |= self._found(key)  # after a roll-out its status is another one
        return made

    def finish(self, objects: Live, digests: dict[str, str]) -> Live:
        """Apply what comes last: what serves now is proven."""
        return self._put({key: one for key, one in objects.items() if key in self.recipe.last}, digests)

    def _put(self, objects: Live, digests: dict[str, str]) -> dict[str, Object]:
        return {key_of(one): self._put_one(one, digests) for one in ordered(objects)}

    def _put_one(self, one: Object, digests: Mapping[str, str]) -> Object:
        """An object as the server has it then; a claim holds its weights by then."""
        if is_claim(one):
            filling = Filling(self.cluster, self.system, self.recipe.namespace, self.say)
            return filling.bring(one, objects_of(self.recipe.tasks.get(key_of(one), ())), digests)
        return put(self.cluster, written(one, digests), take_from=self.take_from)

    def prove(self, key: str, port: int, api_key: str | None) -> Proof:
        """One real request to a pod of a workload's new version, through the API server. Raises StartFailed."""
        pods = [pod for one in self._found(key).values() for pod in self._pods(key).of(one)]
        pod = next((pod for pod in pods if is_ready(pod)), None)
        if pod is None:
            raise StartFailed(self.system, "no pod is ready any more")
        name, namespace = str(pod["metadata"]["name"]), self.recipe.namespace
        with forwarded(self.cluster, namespace, name, port) as endpoint:
            server = Server(
                system=self.system,
                endpoint=endpoint,
                served_name=self.recipe.served_name,
                api_key=api_key,
                alive=partial(self._ended, key),
                log=lambda: self._log(Trouble(name, "", lasting=True, container=_container(pod))),
            )
            try:
                proof = wait_until_answering(server, self.recipe.questions, PROVE_S, lambda: None)
            except (Denied, Missing) as problem:  # another key, another model
                raise StartFailed(self.system, problem.message, problem.hint) from problem
        return replace(proof, url=proof.url.replace(endpoint, f"http://{self.recipe.name}.{namespace}.svc"))

    def remove(self, objects: Live) -> None:
        """Delete exactly these, the other way round than they were made, and wait until they are gone."""
        leaving = list(reversed(ordered(objects)))
        stop_filling(self.cluster, self.recipe.namespace, [one for one in leaving if is_claim(one)])
        for one in leaving:
            kind, name = KINDS[one["kind"]], one["metadata"]["name"]
            self.cluster.delete(kind, self.recipe.namespace, name, one["metadata"]["uid"])
        patience_s = max((gone_s_of(one["kind"]) for one in leaving), default=0.0)
        deadline = time.monotonic() + patience_s
        for one in leaving:
            for pause_s in pauses():
                found = self._get(one["kind"], one["metadata"]["name"])
                if found is None or found["metadata"]["uid"] != one["metadata"]["uid"]:
                    break
                if time.monotonic() > deadline:
                    text = f"{key_of(one)} is still being deleted after {patience_s:.0f} s"
                    raise BackendError(
                        self.cluster.system, text, "a finalizer or a node that is gone holds it"
                    )
                time.sleep(pause_s)

    def _wait(self, key: str, limit_s: float) -> None:
        began, told = time.monotonic(), ""
        for pause_s in pauses():
            one = self._found(key).get(key)
            health = workload_of(key).health_of(one)
            if health.word is Word.HEALTHY:
                return
            waited_s = time.monotonic() - began
            pods = self._pods(key)
            found = pods.troubles(one) if one else []
            if why := _hopeless(health, found, waited_s):
                raise self._failed(why, found)
            if waited_s > limit_s:
                raise self._failed(f"it is not rolled out after {limit_s:.0f} s", found)
            words = found[0].reason if found else self._progress(pods)
            if words and words != told:
                told = words
                self.say(told)
            time.sleep(pause_s)

    def _progress(self, pods: Pods) -> str:
        """What the first container says that fills a volume now; "" where none does."""
        for pod in pods.pods:
            if is_filling(pod):
                name = str(pod["metadata"]["name"])
                said = last_line(self.cluster.log(self.recipe.namespace, name, CONTAINER, lines=1))
                return f"weights of {name}: {said}" if said else ""
        return ""

    def _failed(self, why: str, found: list[Trouble]) -> StartFailed:
        worst = next(iter(found), None)
        cause = self._cause(worst) if worst and worst.container else None
        if cause and worst and worst.reason in cause:  # it is that already
            cause = None
        text = f"did not start: {why}" + (f"; first error: {cause}" if cause else "")
        hint = None
        if worst:
            hint = f"kubectl -n {self.recipe.namespace} describe pod {worst.pod} tells more"
        return StartFailed(self.system, text, hint)

    def _cause(self, of: Trouble) -> str | None:
        """The first error in a container's log; in that of the run before where the kubelet started it again meanwhile."""
        return first_error(self._log(of)) or first_error(self._log(replace(of, previous=True)))

    def _restart_ended(self, key: str) -> None:
        """Pods of this very version that ended before are made anew: the kubelet may wait minutes before it tries again."""
        found = self._pods(key)
        uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found.pods}
        for one in self._troubles(key, found):
            if one.lasting and one.container:
                try:
                    self.cluster.delete(POD, self.recipe.namespace, one.pod, uids[one.pod])
                except Denied:  # then the kubelet's own next try decides
                    return

    def _ended(self, key: str) -> str | None:
        if not self._found(key):
            return f"{key} is gone"
        return next((one.reason for one in self._troubles(key, self._pods(key))), None)

    def _troubles(self, key: str, pods: Pods) -> list[Trouble]:
        return [trouble for one in self._found(key).values() for trouble in pods.troubles(one)]

    def _pods(self, key: str) -> Pods:
        selector = workload_of(key).selector(key.partition("/")[2])
        if self.recipe.standing and workload_of(key).labelled:  # its labels are another one's
            labels = self._found(key).get(key, {}).get("spec", {}).get("selector", {}).get("matchLabels", {})
            selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return pods_in(self.cluster, self.recipe.namespace, selector)

    def _found(self, key: str) -> Live:
        """One object as it is; {} where it is not."""
        kind, _, name = key.partition("/")
        found = self._get(kind, name)
        return {} if found is None else {key: found}

    def _log(self, of: Trouble) -> str:
        return self.cluster.log(
            self.recipe.namespace, of.pod, of.container, lines=LOG_LINES, previous=of.previous
        )

    def _get(self, kind: str, name: str) -> Object | None:
        return self.cluster.get(KINDS[kind], self.recipe.namespace, name)


def _hopeless(health: Health, found: list[Trouble], waited_s: float) -> str | None:
    if found and found[0].lasting:
        return found[0].reason
    if health.word is Word.DEGRADED and waited_s > SETTLE_S:
        return found[0].reason if found else health.reason
    if health.word in (Word.SUSPENDED, Word.MISSING):
        return health.reason
    return None


def _container(pod: Mapping[str, Any]) -> str:
    found: list[Any] = pod["spec"]["containers"]
    return str(found[0]["name"])
