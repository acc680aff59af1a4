"""KAITO as a target: from a model to a Workspace or an InferenceSet, or to what is wrong with it. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.errors import UserError
from pipeline.core.image import Build, Launch
from pipeline.core.model import Model, Standing
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource, address
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.pod import Images, startup_s
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState
from pipeline.resources.image.recipe import image_name
from pipeline.targets.kaito.objects import PORT, kind_of, objects
from pipeline.targets.kaito.preset import preset_problems
from pipeline.targets.kaito.spec import LONGEST_NAME, KaitoSpec
from pipeline.targets.kaito.standing import standing
from pipeline.targets.objects import name_of, pod_problems

KIND = "kaito"
# A node that is made, images or weights that are pulled at 60 MB/s, a server that starts: at least half an hour, three hours at most.
NODE_S, PULL_BYTES_PER_S, SHORTEST_S, LONGEST_S = 900, 60_000_000, 1800, 10800


class KaitoTarget:
    """Expands a model into one deployment. Raises UserError for what KAITO cannot do."""

    def expand(
        self, place: Place[KaitoSpec], model: Model, build: Build, launch: Launch
    ) -> Iterable[Resource[ClusterState]]:
        launch = replace(launch, port=PORT)
        if problems := tuple(_problems(place, model, launch)):
            raise UserError(problems)
        preset = place.options.preset is not None
        image = str(image_name(model, build, place.registry))
        images = {} if preset else {image: address(model.name, "image", place.registry.name)}
        made = objects(place, model, launch, Images(image))
        spec, name = place.spec, name_of(place, model)
        recipe = ClusterRecipe(
            images=images,
            namespace=spec.namespace,
            context=spec.context,
            name=name,
            served_name=launch.served_name,
            port=PORT if place.options.replicas else None,
            questions=model.questions,
            api_key=model.api_key,
            prove=place.options.prove,
            on_failure=place.options.rollout.on_failure,
            start_timeout_s=_rollout_s(model, launch),
            last=(f"Service/{name}",),
            recreate=place.options.rollout.when_no_spare == "recreate",
        )
        yield Resource(
            address(model.name, KIND, place.name),
            KIND,
            {"context": spec.context or "", "namespace": spec.namespace, "name": name},
            ClusterState({key_of(one): one for one in made}, recipe),
            needs=tuple(images.values()),
            optional=spec.optional,
            lifecycle=model.lifecycle,
            where=place.where,
        )

    def stand(self, place: Place[KaitoSpec], entry: Standing) -> Resource[ClusterState]:
        """What others made, as far as the entry describes it."""
        return standing(place, entry)


def _rollout_s(model: Model, launch: Launch) -> int:
    size_bytes = sum(file.size_bytes for file in model.files)
    wanted_s = NODE_S + startup_s(launch) + -(-size_bytes // PULL_BYTES_PER_S)
    return min(max(wanted_s, SHORTEST_S), LONGEST_S)


def _problems(place: Place[KaitoSpec], model: Model, launch: Launch) -> Iterable[Diagnostic]:
    """What the words allow and KAITO does not."""
    for summary, hint in (*_names(place, model), *_nodes(place, model)):
        yield error(f"{model.name}: {summary}", place.where, hint, model.name)
    if place.options.preset is not None:
        yield from preset_problems(place, model)
        return
    for summary, hint in _own_image(place, model, launch):
        yield error(f"{model.name}: {summary}", place.where, hint, model.name)


def _names(place: Place[KaitoSpec], model: Model) -> Iterable[tuple[str, str]]:
    name = name_of(place, model)
    if len(name) > LONGEST_NAME or not name[0].isalpha():
        text = f'"{name}" is no name for KAITO: a letter first, and {LONGEST_NAME} characters at most'
        yield text, f"give it a name: {place.name}: {{name: …}}"
    adapters = [adapter.name for adapter in place.options.adapters]
    for twice in sorted({one for one in adapters if adapters.count(one) > 1}):
        yield f'two adapters are called "{twice}"', "give each a name of its own"
    if place.options.object == "Workspace" and place.options.replicas != 1:
        text = f"a Workspace is one replica, not {place.options.replicas}"
        yield text, "leave object out, or write object: InferenceSet"
    if place.options.preferred_nodes and kind_of(place) == "InferenceSet":
        yield "an InferenceSet prefers no nodes", "choose them by node_labels"


def _nodes(place: Place[KaitoSpec], model: Model) -> Iterable[tuple[str, str]]:
    options, hardware = place.options, model.hardware
    if not options.node_labels and not hardware.instance_type:
        hint = "instance_type: Standard_NC24ads_A100_v4 in its hardware class, or node_labels: {…} of nodes that are there"
        yield f'KAITO makes no node of hardware "{hardware.name}": it has no instance_type', hint
    if options.partition and not options.node_labels:
        yield "KAITO divides only GPUs of nodes that are there", "write node_labels: {…}"
    if options.partition and hardware.instance_type:
        yield "KAITO divides no GPUs of an instance_type", "use a hardware class without one"
    reserved = sorted(key for key in options.node_labels if "kaito.sh/" in key)
    if reserved:
        yield (
            f"labels of KAITO's own are not looked at: {', '.join(reserved)}",
            "use another label of the nodes",
        )


def _own_image(place: Place[KaitoSpec], model: Model, launch: Launch) -> Iterable[tuple[str, str]]:
    options = place.options
    yield from pod_problems(place, model, launch)
    if options.adapters:
        hint = "the entry's own adapters: are in mp's image; or name a preset"
        yield "adapters of a target belong to a preset", hint
    if options.image:
        yield "image: belongs to a preset of an old KAITO", "leave it out: mp's own image is taken"
    if model.hardware.nodes > 1:
        hint = "name a preset, or use a kubernetes target, which has LeaderWorkerSets"
        yield "KAITO runs mp's image on one node each", hint
