"""Whose fields are to be taken: a name that has none is told, with those that have some."""

from typing import Any

from pipeline.resources.cluster.managers import managers_of, slips


def one(*managers: str, **more: str) -> dict[str, Any]:
    return {"metadata": {"managedFields": [{"manager": name, **more} for name in managers]}}


LIVE = {
    "Deployment/qwen": one("mp", "helm", "kubectl-edit"),
    "Service/qwen": one("flux"),
    "Deployment/other": one("argo"),
    "Deployment/new": one("controller", subresource="status"),
}


def test_managers_are_those_of_wanted_objects() -> None:
    wanted = ("Deployment/qwen", "Service/qwen", "Deployment/new", "Deployment/not-there")
    assert managers_of(LIVE, wanted) == {"helm", "kubectl-edit", "flux"}


def test_name_without_fields_is_told_with_those_that_have_some() -> None:
    (told,) = slips(frozenset({"helm", "nobody"}), {"kubectl-edit", "helm"})
    assert told.summary == '--take-from nobody: "nobody" manages no field of the objects that are wanted'
    assert told.hint == "fields are managed by helm, kubectl-edit"
    assert [each.hint for each in slips(frozenset({"nobody"}), ())] == [
        "leave it out: mp alone has fields of them"
    ]


def test_nothing_is_told_where_everybody_has_fields() -> None:
    assert slips(frozenset({"helm"}), {"helm"}) == ()
    assert slips(frozenset(), {"helm"}) == ()
