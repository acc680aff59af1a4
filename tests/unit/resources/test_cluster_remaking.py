"""What is deleted to be made again under its name: only when it was planned, and never when it is to be left to others."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.change import Action, Change, differences
from pipeline.core.errors import Refused
from pipeline.core.resource import Mark, Resource, address, fields_of
from pipeline.resources.cluster.completing import made_anew
from pipeline.resources.cluster.marks import annotations_of
from pipeline.resources.cluster.remaking import lacking, refuse_unplanned
from pipeline.resources.cluster.rollout import Rollout
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState, recipe_of

KEY = "Workspace/qwen"
Object = dict[str, Any]  # Any: an object of the API


def workspace(preset: str) -> Object:
    metadata = {"name": "qwen", "namespace": "models", "uid": "1"}
    inference = {"preset": {"name": preset}}
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": metadata,
        "inference": inference,
    }


def wanted(*ignored: str) -> Resource[ClusterState]:
    recipe = ClusterRecipe(
        {},
        "models",
        None,
        "qwen",
        "qwen",
        None,
        (),
        None,
        "skip",
        "rollback",
        60,
        ignored=ignored,
        standing=True,
    )
    locator = {"context": "", "namespace": "models", "name": "qwen"}
    desired = ClusterState({KEY: workspace("phi-4")}, recipe)
    return Resource(address("qwen", "kaito", "aks"), "kaito", locator, desired)


def change_of(action: Action, live: Object) -> Change[ClusterState]:
    resource = wanted()
    diffs = tuple(
        differences(fields_of(replace(resource.desired, objects={KEY: live})), fields_of(resource.desired))
    )
    return Change(resource.address, "kaito", action, resource, None, None, diffs)


def test_what_was_changed_since_it_was_planned_is_not_deleted() -> None:
    there = {KEY: workspace("another")}
    for action in (Action.UPDATE, Action.CREATE):
        with pytest.raises(Refused, match=f"{KEY} was changed since it was planned"):
            refuse_unplanned(change_of(action, workspace("phi-4")), there)
    with pytest.raises(Refused, match="changed since it was planned"):
        refuse_unplanned(change_of(Action.ADOPT, workspace("phi-4")), there)


def test_what_was_planned_is_made_anew() -> None:
    there = {KEY: workspace("another")}
    refuse_unplanned(change_of(Action.REPLACE, there[KEY]), there)
    refuse_unplanned(change_of(Action.ADOPT, there[KEY]), there)
    refuse_unplanned(change_of(Action.UPDATE, workspace("phi-4")), {KEY: workspace("phi-4")})


def test_field_that_is_left_to_others_makes_nothing_anew() -> None:
    there = {KEY: workspace("another")}
    assert list(made_anew(wanted(), there)) == [KEY]
    assert made_anew(wanted("/inference/preset/name"), there) == {}


class Server:
    """What a Rollout asks while it deletes: objects by name, and which uids it is told to delete."""

    system = "kubernetes test"

    def __init__(self, *objects: Object) -> None:
        self.objects = {one["metadata"]["name"]: one for one in objects}
        self.deleted: list[str] = []

    def list(self, *_: object) -> tuple[Object, ...]:
        return ()

    def get(self, _: object, __: str, name: str) -> Object | None:
        return self.objects.get(name)

    def delete(self, _: object, __: str, name: str, uid: str) -> None:
        self.deleted.append(uid)
        if name in self.objects and self.objects[name]["metadata"]["uid"] == uid:
            del self.objects[name]


OURS = Mark("acme", "default", address("qwen", "kaito", "aks"))


def made(uid: str, mark: Mark | None) -> Object:
    one = workspace("phi-4")
    annotations = annotations_of(mark, KEY) if mark else {}
    return {**one, "metadata": {**one["metadata"], "uid": uid, "annotations": annotations}}


def again(server: Server) -> list[str]:
    """What is made again of a Workspace that was deleted, or was to be."""
    cluster: Any = server
    rollout = Rollout(cluster, "qwen/kaito:aks", recipe_of(wanted()), lambda _: None)
    return list(lacking(rollout, {KEY: made("1", OURS)}, OURS))


def test_what_is_gone_is_made_again_and_what_was_never_deleted_stays() -> None:
    assert again(Server()) == [KEY]
    untouched = Server(made("1", OURS))
    assert (again(untouched), untouched.deleted) == ([], [])


def test_what_we_made_in_its_place_goes_and_what_others_made_stays() -> None:
    ours = Server(made("2", OURS))
    assert again(ours) == [KEY]
    assert "2" in ours.deleted
    theirs = Server(made("2", None))
    assert (again(theirs), theirs.deleted) == ([], [])
