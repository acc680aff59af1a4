"""What is deleted to be made again under its name: only when it was planned, and never when it is to be left to others."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.change import Action, Change, differences
from pipeline.core.errors import Refused
from pipeline.core.resource import Resource, address, fields_of
from pipeline.resources.cluster.completing import made_anew
from pipeline.resources.cluster.remaking import refuse_unplanned
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState

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
