"""Whether the account that asks may do what the plan needs. Used by preflight.

One SelfSubjectRulesReview a namespace lists everything that is allowed. Where an authorizer does not list its rules (those
of clouds), what is missing in it is asked for one by one (SelfSubjectAccessReview).
"""

from collections.abc import Iterable, Sequence

from pipeline.clients.kube import EVENT, KINDS, POD, REPLICA_SET, Cluster, Kind
from pipeline.core.diagnostic import Diagnostic, warning
from pipeline.resources.cluster.preflight.steps import Step
from pipeline.resources.cluster.workloads import WORKLOADS

# What is brought is read, written, and taken back when its roll-out fails.
WRITING = ("get", "list", "create", "patch", "delete")
REMOVING = ("get", "list", "delete")
SHARING = ("get", "list", "patch")  # of what others made and mp writes a part of

Need = tuple[str, Kind, str]  # verb, kind, subresource


def rights(cluster: Cluster, namespace: str, steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """One warning for a namespace that names every verb that is missing: whoever may not apply still plans."""
    needs = sorted(_needs(steps), key=lambda need: (need[1].plural, need[2], need[0]))
    rules = cluster.rules(namespace)
    missing = [
        (verb, kind, sub)
        for verb, kind, sub in needs
        if not rules.allow(verb, kind.group, f"{kind.plural}/{sub}" if sub else kind.plural)
    ]
    if not rules.complete:
        missing = [need for need in missing if not cluster.may(need[0], need[1], namespace, need[2])]
    if missing:
        yield warning(
            f"{steps[0].target}: this account may not {_said(missing)} in namespace {namespace} of {cluster.system}",
            steps[0].where,
            "ask for a role that allows it, or apply from an account that has one",
        )


def _needs(steps: Iterable[Step]) -> set[Need]:
    found: set[Need] = set()
    for step in steps:
        for key in step.wanted:
            found |= {(verb, _kind(key), "") for verb in (WRITING if step.whole else SHARING)}
            if _name(key) in WORKLOADS:
                found |= {("list", kind, "") for kind in (POD, REPLICA_SET, EVENT)}
        found |= {(verb, _kind(key), "") for key in step.live if key not in step.wanted for verb in REMOVING}
        found |= {(verb, kind, "") for kind in _filling(step) for verb in WRITING}
        if step.recipe and step.recipe.prove == "request" and step.recipe.port is not None:
            found.add(("create", POD, "portforward"))
    return found


def _filling(step: Step) -> set[Kind]:
    """What is made for the time that a claim is filled."""
    tasks = step.recipe.tasks.values() if step.recipe else ()
    return {KINDS[str(one["kind"])] for task in tasks for one in task if isinstance(one, dict)}


def _said(missing: Iterable[Need]) -> str:
    """ "create, patch deployments.apps; create pods/portforward"."""
    verbs: dict[str, list[str]] = {}
    for verb, kind, sub in missing:
        name = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        verbs.setdefault(f"{name}/{sub}" if sub else name, []).append(verb)
    return "; ".join(f"{', '.join(each)} {name}" for name, each in verbs.items())


def _name(key: str) -> str:
    return key.partition("/")[0]


def _kind(key: str) -> Kind:
    return KINDS[_name(key)]
