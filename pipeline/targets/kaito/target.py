"""KAITO as a target: from a model to a Workspace or an InferenceSet, or to what is wrong with it. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from pipeline.core.diagnostic import Mistake
from pipeline.core.image import Build, Launch
from pipeline.core.model import Model, Standing, Stated
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource, address
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.pod import Images, startup_s
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState
from pipeline.resources.image.recipe import image_name
from pipeline.targets.deployment import option
from pipeline.targets.kaito.objects import PORT, kind_of, objects, replica_mistakes
from pipeline.targets.kaito.preset import preset_mistakes
from pipeline.targets.kaito.spec import LONGEST_NAME, KaitoSpec
from pipeline.targets.kaito.standing import standing, standing_mistakes
from pipeline.targets.objects import key_of_name, name_of, pod_mistakes, unplaced

KIND = "kaito"
# A node that is made, images or weights that are pulled at 60 MB/s, a server that starts: at least half an hour, three hours at most.
NODE_S, PULL_BYTES_PER_S, SHORTEST_S, LONGEST_S = 900, 60_000_000, 1800, 10800


class KaitoTarget:
    """Expands a model into one deployment."""

    def mistakes(self, place: Place[KaitoSpec], stated: Stated) -> Iterable[Mistake]:
        if place.options.stands:
            return (*unplaced(stated.secret_env.values()), *standing_mistakes(place, stated))
        return _mistakes(place, stated)

    def expand(
        self, place: Place[KaitoSpec], model: Model, build: Build, launch: Launch
    ) -> Iterable[Resource[ClusterState]]:
        launch = replace(launch, port=PORT)
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


def _mistakes(place: Place[KaitoSpec], stated: Stated) -> Iterable[Mistake]:
    """What the words allow and KAITO does not."""
    yield from _names(place, stated)
    yield from _nodes(place, stated)
    yield from (preset_mistakes if place.options.preset is not None else _own_image)(place, stated)


def _names(place: Place[KaitoSpec], stated: Stated) -> Iterable[Mistake]:
    options, name = place.options, name_of(place, stated)
    if len(name) > LONGEST_NAME or not name[0].isalpha():
        text = f'"{name}" is no name for KAITO: a letter first, and {LONGEST_NAME} characters at most'
        yield Mistake(key_of_name(place, stated), text, f"give it a name: {place.name}: {{name: …}}")
    adapters = [adapter.name for adapter in options.adapters]
    for index, twice in enumerate(adapters):
        if twice in adapters[:index]:
            where = option(place, stated, "adapters")
            yield Mistake(
                (*where, index, "name"), f'two adapters are called "{twice}"', "give each a name of its own"
            )
    yield from replica_mistakes(place, stated)
    if options.preferred_nodes and kind_of(place) == "InferenceSet":
        where = option(place, stated, "preferred_nodes")
        yield Mistake(where, "an InferenceSet prefers no nodes", "choose them by node_labels")


def _nodes(place: Place[KaitoSpec], stated: Stated) -> Iterable[Mistake]:
    options, hardware, partition = place.options, stated.hardware, option(place, stated, "partition")
    if not options.node_labels and not hardware.instance_type:
        text = f'KAITO makes no node of hardware "{hardware.name}": it has no instance_type'
        hint = "instance_type: Standard_NC24ads_A100_v4 in its hardware class, or node_labels: {…} of nodes that are there"
        yield Mistake((*stated.path, "hardware"), text, hint)
    if options.partition and not options.node_labels:
        yield Mistake(partition, "KAITO divides only GPUs of nodes that are there", "write node_labels: {…}")
    if options.partition and hardware.instance_type:
        text, hint = "KAITO divides no GPUs of an instance_type", "use a hardware class without one"
        yield Mistake(partition, text, hint)
    for key in sorted(key for key in options.node_labels if "kaito.sh/" in key):
        where, hint = option(place, stated, "node_labels", key), "use another label of the nodes"
        yield Mistake(where, f"labels of KAITO's own are not looked at: {key}", hint)


def _own_image(place: Place[KaitoSpec], stated: Stated) -> Iterable[Mistake]:
    options = place.options
    yield from pod_mistakes(place, stated)
    if options.adapters:
        hint = "the entry's own adapters: are in mp's image; or name a preset"
        yield Mistake(option(place, stated, "adapters"), "adapters of a target belong to a preset", hint)
    if options.image:
        text = "image: belongs to a preset of an old KAITO"
        yield Mistake(option(place, stated, "image"), text, "leave it out: mp's own image is taken")
    if stated.hardware.nodes > 1:
        hint = "name a preset, or use a kubernetes target, which has LeaderWorkerSets"
        yield Mistake((*stated.path, "hardware"), "KAITO runs mp's image on one node each", hint)
