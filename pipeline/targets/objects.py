"""Objects that every target in a cluster writes the same way: names, labels, the ServiceAccount, the launch; and what no cluster can do. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json, canonical, fingerprint
from pipeline.core.image import Launch
from pipeline.core.model import Model, Secret, Stated
from pipeline.core.protocols import Place
from pipeline.core.resource import Mark, address
from pipeline.resources.cluster.live import MANAGED
from pipeline.resources.cluster.marks import annotations_of
from pipeline.resources.cluster.pod import HTTP, LAUNCH, Images
from pipeline.resources.cluster.workloads import INSTANCE
from pipeline.targets.deployment import option
from pipeline.templates.launch import Group, document


def name_of(place: Place[Any], model: Model | Stated) -> str:
    """Of what requests are sent to: "qwen", "staging-qwen"."""
    if place.options.name:
        return str(place.options.name)
    return model.name if place.environment == "default" else f"{place.environment}-{model.name}"


def named(place: Place[Any], model: Model, api: str, kind: str, name: str, **body: Any) -> Object:
    """An object with our labels and marks; `body` is what else it has: spec, data."""
    mark = Mark(place.project, place.environment, address(model.name, place.spec.kind, place.name))
    metadata = {
        "name": name,
        "namespace": place.spec.namespace,
        "labels": labels_of(place, model),
        "annotations": annotations_of(mark, f"{kind}/{name}"),
    }
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def labels_of(place: Place[Any], model: Model) -> dict[str, Json]:
    return {"app.kubernetes.io/name": model.name, **selector_of(name_of(place, model))}


def selector_of(name: str) -> dict[str, Json]:
    """A Deployment's selector never changes: only what is fixed by the object's name is in it."""
    return {INSTANCE: name, MANAGED: "mp"}


def service_account(place: Place[Any], model: Model) -> Object:
    """Of its own, without a token: a server of models asks the cluster nothing."""
    name = name_of(place, model)
    return named(place, model, "v1", "ServiceAccount", name, automountServiceAccountToken=False)


def config_map(place: Place[Any], model: Model, contents: Mapping[str, Json]) -> Object:
    """Its name carries its hash: pods of the version before keep theirs until the new ones serve."""
    name = f"{name_of(place, model)}-{fingerprint(dict(contents))[:8]}"
    return named(place, model, "v1", "ConfigMap", name, immutable=True, data=dict(contents))


def launch_map(
    place: Place[Any], model: Model, launch: Launch, images: Images, group: Group | None = None
) -> Object:
    """The ConfigMap with the launch document; `group` of a model on several nodes."""
    from_files = {variable: f"{LAUNCH.secrets}/{variable}" for variable in launch.secrets}
    written = document(
        launch, model=images.folder, host="0.0.0.0", port=launch.port, secrets=from_files, group=group
    )
    return config_map(place, model, {LAUNCH.file: canonical(written).decode()})


def service(place: Place[Any], model: Model, selector: Mapping[str, Json], port: int | str = HTTP) -> Object:
    """Port 80 of the name that stays, in front of the pods' `port`."""
    ports = [{"name": HTTP, "port": 80, "protocol": "TCP", "targetPort": port}]
    spec = {"type": "ClusterIP", "selector": dict(selector), "ports": ports}
    return named(place, model, "v1", "Service", name_of(place, model), spec=spec)


def key_of_name(place: Place[Any], stated: Stated) -> tuple[str, ...]:
    """Where the name of the objects comes from: the option, else the entry's own key."""
    return (*option(place, stated), "name") if place.options.name else stated.path


def pod_mistakes(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    """What keeps pods of mp's own image from starting in any cluster."""
    if place.registry.layout is not None:
        yield Mistake(
            ("targets", place.name, "registry"),
            f'a cluster cannot pull "{place.registry.name}", which is a layout folder',
            "use a registry with a url",
        )
    yield from unplaced(stated.secrets.values())


def unplaced(secrets: Iterable[Secret]) -> Iterator[Mistake]:
    """Secrets that pods find nowhere."""
    for secret in secrets:
        if secret.kubernetes is None:
            hint = f"secrets: {{{secret.name}: {{kubernetes: {{name: …, key: …}}}}}} names a Secret of the namespace"
            yield Mistake(("secrets", secret.name), f'secret "{secret.name}" has no place in a cluster', hint)
