"""The objects of one deployment under KAITO. Pure.

Fields are those of kaito.sh/v1beta1 (KAITO 0.12, config/crd/bases). KAITO refuses changes of most fields of a Workspace
(api/v1beta1/workspace_validation.go), and does not roll out those that it takes: a template is read once
(pkg/workspace/controllers), an InferenceSet changes none of its Workspaces. So an object never changes: its name carries the hash of
what it says, another version is another object beside it, and the Service turns to the new one once that is proven.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json, fingerprint
from pipeline.core.image import Launch
from pipeline.core.model import Model, Stated
from pipeline.core.protocols import Place
from pipeline.resources.cluster.kaito import INDEX_LABEL, SET_LABEL, WORKSPACE_LABEL
from pipeline.resources.cluster.pod import Images, pod
from pipeline.targets.deployment import option
from pipeline.targets.kaito.preset import adapters_of, inference_config, preset_of
from pipeline.targets.objects import (
    config_map,
    labels_of,
    launch_map,
    name_of,
    named,
    service,
    service_account,
)

API = "kaito.sh/v1beta1"
PORT = 5000  # where KAITO's own Services expect every server (pkg/utils/consts)
NODES = "dev.mp.deployment"  # label of nodes that KAITO makes for one version: no other one's pods come there
SCALED = "scaledobject.kaito.sh/"  # annotations with which KAITO's autoscaler changes the replicas


def objects(place: Place[Any], model: Model, launch: Launch, images: Images) -> tuple[Object, ...]:
    """Everything one model is made of, in the order it is applied; images without digests."""
    preset = place.options.preset is not None
    if preset:
        config = config_map(place, model, inference_config(model, launch.served_name))
        inference = _preset(place, model, str(config["metadata"]["name"]))
        first = [config]
    else:
        first = [service_account(place, model), launch_map(place, model, launch, images)]
        inference = _template(place, model, launch, images, str(first[1]["metadata"]["name"]))
    main = _main(place, model, inference)
    return (*first, _service(place, model, main, preset=preset), main)


def replica_mistakes(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    """A Workspace that is to be several, whoever made it."""
    options = place.options
    if options.object == "Workspace" and options.replicas != 1:
        text = f"a Workspace is one replica, not {options.replicas}"
        hint = "leave replicas out, or write object: InferenceSet"
        yield Mistake(option(place, stated, "object"), text, hint)


def kind_of(place: Place[Any]) -> str:
    """What stands for the model: "Workspace" or "InferenceSet"."""
    if place.options.object != "auto":
        return str(place.options.object)
    return "Workspace" if place.options.replicas == 1 and not scaled(place) else "InferenceSet"


def _main(place: Place[Any], model: Model, inference: Object) -> Object:
    """The Workspace or InferenceSet, under a name of what it says. How many replicas there are is no part of that."""
    options, kind = place.options, kind_of(place)
    resource = _resource(place, model)
    switches = {k: v for k, v in options.annotations.items() if not k.startswith(SCALED)}
    said = {"kind": kind, "resource": resource, "count": model.hardware.nodes, "nodes": options.node_labels}
    name = (
        f"{name_of(place, model)}-{fingerprint({**said, 'inference': inference, 'switches': switches})[:8]}"
    )
    nodes = {"matchLabels": dict(options.node_labels) or {NODES: name}}
    if kind == "Workspace":
        counted = {"count": model.hardware.nodes} if model.hardware.nodes > 1 else {}
        body: Object = {"resource": {**resource, **counted, "labelSelector": nodes}, "inference": inference}
    else:
        template = {"resource": resource, "inference": inference}
        counted = {} if scaled(place) else {"replicas": options.replicas}
        body = {"spec": {**counted, "labelSelector": nodes, "template": template}}
    main = named(place, model, API, kind, name, **body)
    annotations = {**main["metadata"]["annotations"], **options.annotations}
    return {**main, "metadata": {**main["metadata"], "annotations": annotations}}


def _resource(place: Place[Any], model: Model) -> Object:
    options, hardware = place.options, model.hardware
    part = options.partition
    return {
        **({"instanceType": hardware.instance_type} if hardware.instance_type else {}),
        **({"preferredNodes": list(options.preferred_nodes)} if options.preferred_nodes else {}),
        **({"partition": part.model_dump(exclude_none=True)} if part else {}),
    }


def _preset(place: Place[Any], model: Model, config: str) -> Object:
    adapters = adapters_of(place)
    return {
        "preset": preset_of(place, model),
        "config": config,
        **({"adapters": adapters} if adapters else {}),
    }


def _template(place: Place[Any], model: Model, launch: Launch, images: Images, config: str) -> Object:
    """mp's own image; KAITO adds its labels, and puts its own affinity in the place of another one."""
    name = name_of(place, model)
    spec = pod(place, model, launch, images, name=name, config=config)
    spec.pop("affinity", None)
    return {"template": {"metadata": {"labels": labels_of(place, model)}, "spec": spec}}


def _service(place: Place[Any], model: Model, main: Object, *, preset: bool) -> Object:
    """Of the name that stays. Of a preset on several nodes the first pod of a group answers."""
    label = WORKSPACE_LABEL if main["kind"] == "Workspace" else SET_LABEL
    first: Mapping[str, Json] = {INDEX_LABEL: "0"} if preset else {}
    return service(place, model, {label: main["metadata"]["name"], **first}, PORT)


def scaled(place: Place[Any]) -> bool:
    """Whether KAITO's autoscaler decides how many replicas there are."""
    return any(key.startswith(SCALED) for key in place.options.annotations)
