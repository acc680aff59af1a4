"""A Kubernetes cluster as a target: what the user says, what is compared, and what one model becomes."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.core.diagnostic import Mistake
from pipeline.core.errors import UserError
from pipeline.core.image import Build, Launch
from pipeline.core.model import Model, Standing, Stated
from pipeline.core.names import DNS_LABEL, DNS_SUBDOMAIN, SERVICE_NAME
from pipeline.core.protocols import Place
from pipeline.core.resource import Address, Resource, address
from pipeline.core.size import PATTERN as SIZE
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.pod import Images
from pipeline.resources.cluster.products import products_of
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState
from pipeline.resources.filler.resource import filler_address
from pipeline.resources.image.recipe import engine_name, image_name, weights_name
from pipeline.targets.deployment import option, others_made
from pipeline.targets.kubernetes.autoscaling import AutoscaleOptions, left_alone, most_replicas
from pipeline.targets.kubernetes.canary import KubernetesRollout, canary_mistakes, is_canary, last_of
from pipeline.targets.kubernetes.claims import (
    Claimed,
    ClaimOptions,
    claim_mistakes,
    claimed,
    too_small,
    untrusted,
)
from pipeline.targets.kubernetes.groups import group_mistakes
from pipeline.targets.kubernetes.objects import objects, rollout_s
from pipeline.targets.kubernetes.standing import RunsOptions, standing
from pipeline.targets.kubernetes.volumes import volume_mistakes
from pipeline.targets.objects import key_of_name, name_of, pod_mistakes, unplaced
from pipeline.targets.rollouts import WavesSpec
from pipeline.targets.standing import refuse_unknown


class KubernetesSpec(BaseModel):
    """A target that runs models as Deployments in one namespace of a Kubernetes cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["kubernetes"]
    context: str | None = Field(
        default=None,
        min_length=1,
        description="A context of the kubeconfig; the current one, or the cluster that mp runs in, when it is left out",
    )
    namespace: Annotated[str, StringConstraints(pattern=DNS_LABEL, max_length=63)] = Field(
        description="Where the objects are; it has to exist"
    )
    registry: str | None = Field(
        default=None, description="A key of `registries:`; the model's registry when it is left out"
    )
    pull_secret: Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, max_length=253)] | None = Field(
        default=None, description="Secret of the namespace with which the nodes pull images"
    )
    optional: bool = Field(
        default=False,
        description="A cluster that does not answer is named and skipped; the plan stays complete",
    )
    rollout: WavesSpec = Field(
        default=WavesSpec(), description="How its deployments are changed when a plan changes several"
    )


class KubernetesOptions(BaseModel):
    """What a model says about a kubernetes target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=SERVICE_NAME, max_length=63)] | None = Field(
        default=None,
        description="Name of the objects; the model's when it is left out, with the environment before it if it is not the default one",
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="How many pods serve the model, or groups of pods on several nodes; with `autoscale` how many there are at first",
    )
    autoscale: AutoscaleOptions | None = Field(
        default=None, description="Replicas that follow the load, and who sets them then"
    )
    weights: Literal["baked", "volume", "pvc"] = Field(
        default="baked",
        description="`baked`: the model image, which holds them; `volume`: the engine image, with the weights image mounted "
        "as an image volume (Kubernetes 1.33 or newer); `pvc`: the engine image, with a claim that a Job has filled",
    )
    claim: ClaimOptions = Field(default=ClaimOptions(), description="The claim of `weights: pvc`")
    memory: str | None = Field(
        default=None,
        pattern=SIZE,
        description='Memory request and limit, such as "48Gi"; the hardware class\'s memory when it is left out',
    )
    prove: Literal["request", "skip"] = Field(
        default="request",
        description="`request`: a roll-out counts once a real request is answered; `skip`: once its pods are ready",
    )
    rollout: KubernetesRollout = Field(
        default=KubernetesRollout(), description="How it is brought to a new version"
    )
    manage: Literal["full", "observe"] = Field(
        default="full",
        description="`observe`: what runs under this name is only watched, whoever made it; mp never touches it",
    )
    runs: RunsOptions | None = Field(
        default=None,
        description="Of a Deployment that mp did not make: what runs in it; mp builds nothing for it, and writes nothing else",
    )

    @property
    def stands(self) -> bool:
        """Others made it."""
        return others_made(self.manage, self.runs)


class KubernetesTarget:
    """Expands a model into one deployment. Raises UserError for what a cluster cannot do."""

    def mistakes(self, place: Place[KubernetesSpec], stated: Stated) -> Iterable[Mistake]:
        if place.options.stands:
            return _of_standing(place, stated)
        return _mistakes(place, stated)

    def expand(
        self, place: Place[KubernetesSpec], model: Model, build: Build, launch: Launch
    ) -> Iterable[Resource[ClusterState]]:
        if problems := (*too_small(place, model), *untrusted(place, model)):
            raise UserError(problems)
        weights = claimed(place, model, build)
        images, addresses = _images(place, model, build, weights)
        made = objects(place, model, launch, images, weights)
        refuse_unknown(place, model.name, {key_of(one): one for one in made}, model.lifecycle.ignore_drift)
        name, spec = name_of(place, model), place.spec
        recipe = ClusterRecipe(
            images=addresses,
            namespace=spec.namespace,
            context=spec.context,
            name=name,
            served_name=launch.served_name,
            port=launch.port if most_replicas(place) else None,
            questions=model.questions,
            api_key=model.api_key,
            prove=place.options.prove,
            on_failure=place.options.rollout.on_failure,
            recreate=place.options.rollout.when_no_spare == "recreate",
            start_timeout_s=rollout_s(model, launch, most_replicas(place)),
            gpu_driver=launch.gpu_driver,
            rotating=_rotating(model, launch),
            ignored=(*model.lifecycle.ignore_drift, *left_alone(place)),
            last=last_of(place, model),
            tasks=weights.tasks,
        )
        yield Resource(
            address(model.name, "kubernetes", place.name),
            "kubernetes",
            {"context": spec.context or "", "namespace": spec.namespace, "name": name},
            ClusterState({key_of(one): one for one in made}, recipe),
            needs=tuple(addresses.values()),
            optional=spec.optional,
            lifecycle=model.lifecycle,
            canary=is_canary(place),
            where=place.where,
        )

    def stand(self, place: Place[KubernetesSpec], entry: Standing) -> Resource[ClusterState]:
        """What others made, as far as the entry describes it."""
        return standing(place, entry)


def _images(
    place: Place[KubernetesSpec], model: Model, build: Build, claimed: Claimed
) -> tuple[Images, Mapping[str, Address]]:
    """The images of a pod and of what fills its claim, and the address of each."""
    registry = place.registry
    if place.options.weights == "baked":
        whole = str(image_name(model, build, registry))
        return Images(whole), {whole: address(model.name, "image", registry.name)}
    engine, weights = str(engine_name(build, registry)), str(weights_name(model, registry))
    found = {engine: address("@engine", model.engine.key, registry.name)}
    published = {weights: address(model.name, "weights", registry.name)}
    if claimed.claim is None:
        return Images(engine, weights), found | published
    fills = {claimed.filler: filler_address(build, registry), **published} if claimed.filler else {}
    return Images(engine, claim=claimed.claim), found | fills


def _of_standing(place: Place[KubernetesSpec], stated: Stated) -> Iterable[Mistake]:
    """What cannot be said of a Deployment that others made."""
    yield from unplaced(stated.secret_env.values())
    if is_canary(place):
        hint = "leave strategy out, or leave runs and manage out"
        where = option(place, stated, "rollout", "strategy")
        yield Mistake(where, "strategy: canary is for what mp makes whole", hint)
    if "claim" in place.options.model_fields_set:
        text = "claim: says where mp puts weights, and others made what runs here"
        hint = "leave claim out, or leave runs and manage out"
        yield Mistake(option(place, stated, "claim"), text, hint)


def _mistakes(place: Place[KubernetesSpec], stated: Stated) -> Iterable[Mistake]:
    """What the words allow and a cluster does not."""
    yield from pod_mistakes(place, stated)
    yield from claim_mistakes(place, stated)
    yield from group_mistakes(place, stated)
    yield from volume_mistakes(place, stated)
    yield from canary_mistakes(place, stated)
    name, hardware = name_of(place, stated), stated.hardware
    if len(name) > 63 or not name[0].isalpha():
        text = f'"{name}" is no name of a Service: a letter first, and 63 characters at most'
        yield Mistake(key_of_name(place, stated), text, f"give it a name: {place.name}: {{name: …}}")
    if hardware.gpus and not products_of(hardware.gpu or ""):
        yield Mistake(
            ("hardware", hardware.name, "gpu"),
            f'no node label is known for the GPU "{hardware.gpu}"',
            "write the label itself, gpu: NVIDIA-…: kubectl get nodes -L nvidia.com/gpu.product shows it",
        )


def _rotating(model: Model, launch: Launch) -> Mapping[str, tuple[str, str]]:
    """The secrets that restart its pods."""
    used = [one for one in model.secrets.values() if one.name in launch.secrets.values() and one.restarts]
    return {one.name: one.kubernetes for one in used if one.kubernetes is not None}
