"""What a cluster says of changes before they are made: every problem at once, by reading alone. Used by driver.

Questions are asked of a cluster or of a namespace, never of a deployment, so 300 changes cost what 3 do: for a namespace
its own object, its rules, quotas and limits, and each Secret that is named; for a cluster its APIs, nodes and pods.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

from pipeline.clients.kube import NODE, Cluster
from pipeline.core.change import Change
from pipeline.core.diagnostic import Diagnostic, Severity
from pipeline.core.errors import BackendError, Denied
from pipeline.core.protocols import Findings
from pipeline.resources.cluster.fields import labels_in
from pipeline.resources.cluster.live import Place
from pipeline.resources.cluster.preflight.admission import ENFORCE, admission, lacking, namespace_in
from pipeline.resources.cluster.preflight.gpus import drivers, gpus, wants_gpus
from pipeline.resources.cluster.preflight.kinds import image_volumes, kinds, mounting, runtimes
from pipeline.resources.cluster.preflight.quota import quota
from pipeline.resources.cluster.preflight.replicas import with_replicas
from pipeline.resources.cluster.preflight.rights import rights
from pipeline.resources.cluster.preflight.secrets import secrets
from pipeline.resources.cluster.preflight.steps import Step, steps_in

AT_ONCE = 8  # requests

Question = tuple[str, Callable[[], Iterable[Diagnostic]]]  # what it is about, and what asks it


def preflight(connect: Callable[[str | None], Cluster], changes: Sequence[Change[Any]]) -> Findings:
    """Everything that would keep these changes from being made. What may not be asked is said, and no refusal."""
    found = steps_in(changes)
    with ThreadPoolExecutor(AT_ONCE, "preflight") as pool:
        counted = pool.map(
            lambda one: with_replicas(connect(one[0].context), one[0].namespace, one[1]), found.items()
        )
        places = dict(zip(found, counted, strict=True))
        clusters: defaultdict[str | None, list[Step]] = defaultdict(list)
        for place, steps in places.items():
            clusters[place.context] += steps
        asked = [
            pool.submit(_namespace, connect(place.context), place, steps) for place, steps in places.items()
        ]
        asked += [pool.submit(_cluster, connect(context), steps) for context, steps in clusters.items()]
        return sum((one.result() for one in asked), Findings())


def _namespace(cluster: Cluster, place: Place, steps: Sequence[Step]) -> Findings:
    try:
        one = namespace_in(cluster, place.namespace)
    except Denied:
        one = {}
    except BackendError as problem:
        return Findings(remarks=(_unasked(steps, cluster, [("namespace", problem)]),))
    if one is None:
        return Findings(refusals=tuple(lacking(cluster, place.namespace, steps)))
    level = labels_in(one).get(ENFORCE, "")
    brought = [step for step in steps if step.whole]
    answers = _answers(cluster, steps, _questions(cluster, place.namespace, level, brought))
    try:
        return answers + Findings(barred=tuple(rights(cluster, place.namespace, steps)))
    except BackendError as problem:
        return answers + Findings(remarks=(_unasked(steps, cluster, [("rights", problem)]),))


def _questions(cluster: Cluster, namespace: str, level: str, steps: Sequence[Step]) -> Iterator[Question]:
    if steps:
        yield "quotas", partial(quota, cluster, namespace, steps)
        yield "secrets", partial(secrets, cluster, namespace, steps)
        yield "pod security", partial(admission, cluster, namespace, level, steps)


def _cluster(cluster: Cluster, steps: Sequence[Step]) -> Findings:
    brought = [step for step in steps if step.whole]
    questions: list[Question] = [
        ("kinds", partial(kinds, cluster, brought)),
        ("image volumes", partial(image_volumes, cluster, brought)),
    ]
    if wants_gpus(brought) or mounting(brought):
        questions.append(("nodes", partial(_nodes, cluster, steps, brought)))
    return _answers(cluster, steps, questions)


def _nodes(cluster: Cluster, steps: Sequence[Step], brought: Sequence[Step]) -> Iterable[Diagnostic]:
    nodes = cluster.list(NODE, "")
    return chain(
        gpus(cluster, nodes, steps), drivers(cluster, nodes, brought), runtimes(cluster, nodes, brought)
    )


def _answers(cluster: Cluster, steps: Sequence[Step], questions: Iterable[Question]) -> Findings:
    """Errors are refusals; questions that may not be asked, or get no answer, are one remark together."""
    said: list[Diagnostic] = []
    unasked: list[tuple[str, BackendError]] = []
    for name, ask in questions:
        try:
            said += ask()
        except BackendError as problem:
            unasked.append((name, problem))
    if unasked:
        said.append(_unasked(steps, cluster, unasked))
    refusals = tuple(one for one in said if one.severity is Severity.ERROR)
    return Findings(
        refusals=refusals, remarks=tuple(one for one in said if one.severity is not Severity.ERROR)
    )


def _unasked(
    steps: Sequence[Step], cluster: Cluster, problems: Sequence[tuple[str, BackendError]]
) -> Diagnostic:
    denied = ", ".join(name for name, problem in problems if isinstance(problem, Denied))
    others = [f"{name} ({problem.message})" for name, problem in problems if not isinstance(problem, Denied)]
    texts = [f"{denied} (no right to read them)"] if denied else []
    targets = ", ".join(sorted({step.target for step in steps}))
    summary = f"{targets}: not checked before apply in {cluster.system}: {'; '.join([*texts, *others])}"
    return Diagnostic(Severity.NOTE, summary, steps[0].where)
