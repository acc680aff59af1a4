"""Secrets that restart what uses them (`on_rotate: restart`): which revision pods began with, and which is there now.

A revision is an HMAC of the value alone, keyed with the Secret's uid: other keys, labels and what operators note on it
change nothing, as they would a resourceVersion, and who may read Deployments and no Secrets cannot try values against
it. A Secret that was deleted and made again has another uid, and counts as changed. It is an annotation of the pods'
template, so that a changed one is a new version of them.
"""

import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.clients.kube import SECRET, Cluster, Object
from pipeline.core.errors import Denied
from pipeline.core.resource import Observed
from pipeline.resources.cluster.marks import REVISIONS
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.workloads import workload_in

LENGTH = 12  # hex digits
TEMPLATES = ("leaderTemplate", "workerTemplate")  # of a LeaderWorkerSet

Rotating = Mapping[str, tuple[str, str]]  # name in `secrets:` → name and key of a Secret


class Secrets:
    """Secrets of one namespace, each asked for once by its name. Values stay here."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._found: dict[str, Object | None] = {}

    def revisions(self, rotating: Rotating) -> dict[str, str]:
        """By name in `secrets:`; without those that are not there, or may not be read: preflight says so."""
        found = {}
        for name, (secret, key) in sorted(rotating.items()):
            one = self._get(secret)
            value = ((one or {}).get("data") or {}).get(key)
            if one is not None and value is not None:
                found[name] = revision(str(one["metadata"]["uid"]), base64.b64decode(value))
        return found

    def _get(self, name: str) -> Object | None:
        if name not in self._found:
            try:
                self._found[name] = self._cluster.get(SECRET, self._namespace, name)
            except Denied:
                self._found[name] = None
        return self._found[name]


def revision(uid: str, value: bytes) -> str:
    return hmac.new(uid.encode(), value, hashlib.sha256).hexdigest()[:LENGTH]


def recorded(objects: Mapping[str, Any]) -> dict[str, str]:
    """The revisions that the pods of a live workload began with."""
    key = workload_in(objects)
    for template in _templates(objects[key]) if key and key in objects else ():
        text = ((template.get("metadata") or {}).get("annotations") or {}).get(REVISIONS)
        with contextlib.suppress(ValueError, AttributeError):  # changed by hand: then nothing is recorded
            return {str(name): str(value) for name, value in json.loads(text or "").items()}
    return {}


def recording(objects: Mapping[str, Any], revisions: Mapping[str, str]) -> dict[str, Any]:
    """The objects with these revisions on their pods' templates; as they are where there is none."""
    key = workload_in(objects)
    if key is None or not revisions:
        return dict(objects)
    one = json.loads(json.dumps(objects[key]))
    for template in _templates(one):
        metadata = template.setdefault("metadata", {})
        text = json.dumps(dict(revisions), sort_keys=True)
        metadata["annotations"] = {**(metadata.get("annotations") or {}), REVISIONS: text}
    return {**objects, key: one}


def rotated(
    seen: Observed[ClusterState], objects: Mapping[str, Any], desired: ClusterState, secrets: Secrets
) -> Observed[ClusterState]:
    """What was seen, with the revisions that its pods began with beside those that are there."""
    rotating = desired.recipe.rotating if desired.recipe else {}
    if not rotating:
        return seen
    now = secrets.revisions(rotating)
    own = {key: one for key, one in objects.items() if key in desired.objects}
    began = {name: value for name, value in recorded(own).items() if name in now}
    would_be = replace(seen.would_be or desired, revisions=now)
    state = replace(seen.state, revisions=began)
    if seen.otherwise is None:
        return replace(seen, state=state, would_be=would_be)
    otherwise = rotated(seen.otherwise, objects, desired, secrets)
    return replace(seen, state=state, would_be=would_be, otherwise=otherwise)


def _templates(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = one.get("spec") or {}
    group = spec.get("leaderWorkerTemplate") or {}
    found = [spec.get("template"), *(group.get(name) for name in TEMPLATES)]
    return [template for template in found if isinstance(template, dict)]
