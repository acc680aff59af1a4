"""What a user says of a cluster with KAITO, and of a model in it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from pipeline.core.names import DNS_LABEL, DNS_SUBDOMAIN, SERVICE_NAME
from pipeline.core.size import PATTERN as SIZE
from pipeline.targets.deployment import others_made
from pipeline.targets.kaito.standing import KaitoRuns
from pipeline.targets.rollouts import RolloutOptions, WavesSpec

# What KAITO and Kubernetes hang on has to stay below 64 characters:
# the hash of the version (9), the InferenceSet's suffix (6) and that of a StatefulSet's revision label (11).
LONGEST_NAME = 37
# KAITO's webhook takes a tag or a digest, never both (api/v1beta1/workspace_validation.go).
_IMAGE = r"^[^\s@]+/[^\s:/@]+(:[^\s:/@]+|@sha256:[0-9a-f]{64})$"
_SWITCH = r"^(scaledobject\.)?kaito\.sh/[A-Za-z0-9._-]+$"
_VERSION = r"^0\.[0-9]{1,3}$"

SecretName = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, max_length=253)]


class KaitoSpec(BaseModel):
    """A target that runs models as KAITO Workspaces and InferenceSets in one namespace of a cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["kaito"]
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
    pull_secret: SecretName | None = Field(
        default=None, description="Secret of the namespace with which the nodes pull images"
    )
    kaito: Annotated[str, StringConstraints(pattern=_VERSION)] | None = Field(
        default=None, description='Version of KAITO, quoted: `"0.4"`; only fields of old versions ask for it'
    )
    optional: bool = Field(
        default=False,
        description="A cluster that does not answer is named and skipped; the plan stays complete",
    )
    rollout: WavesSpec = Field(
        default=WavesSpec(), description="How its deployments are changed when a plan changes several"
    )


class KaitoAdapter(BaseModel):
    """A LoRA adapter of a preset: an image that has its files under /data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, max_length=63)] = Field(
        description="Name that requests use"
    )
    image: Annotated[str, StringConstraints(pattern=_IMAGE)] = Field(
        description="Its image, by a tag or by a digest: `ghcr.io/acme/adapters/fr@sha256:…`"
    )
    strength: float | None = Field(
        default=None, ge=0, le=1, description="Factor on its weights; KAITO's vLLM runtime does not apply it"
    )


class KaitoPartition(BaseModel):
    """A part of a GPU, or some of a node's GPUs, on nodes that are there (KAITO 0.12, behind a feature gate)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["mig", "accelerator"] = Field(
        description="`mig`: a slice of a GPU; `accelerator`: whole GPUs"
    )
    profile: str | None = Field(default=None, min_length=1, description="Slice of `mig`, such as `3g.40gb`")
    count: int | None = Field(default=None, ge=1, description="GPUs of `accelerator`")

    @model_validator(mode="after")
    def _says_how_much(self) -> Self:
        if (self.mode == "mig") != (self.profile is not None) or (self.mode == "mig") == (
            self.count is not None
        ):
            hint = "mode: mig has a profile, mode: accelerator has a count"
            said = {"summary": "does not fit its mode", "hint": hint}
            raise PydanticCustomError("mp", "{summary}", said)
        return self


class KaitoOptions(BaseModel):
    """What a model says about a kaito target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=SERVICE_NAME, max_length=63)] | None = Field(
        default=None,
        description="Name of the Service; the model's when it is left out, with the environment before it if it is not the default one; "
        "of what mp did not make, the name of the Workspace or InferenceSet",
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="How many times the model is served, each on nodes of its own; left to KAITO with `scaledobject.kaito.sh/` annotations",
    )
    object: Literal["auto", "Workspace", "InferenceSet"] = Field(
        default="auto", description="`auto`: a Workspace for one replica, an InferenceSet for another number"
    )
    preset: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?$",
        description="A preset of KAITO, or a repository of the Hugging Face Hub, served by KAITO's own image; "
        "mp's model image when left out",
    )
    image: Annotated[str, StringConstraints(pattern=_IMAGE)] | None = Field(
        default=None,
        description="Private image of a preset (`accessMode: private`); only KAITO 0.4 and older have it",
    )
    adapters: tuple[KaitoAdapter, ...] = Field(
        default=(), max_length=10, description="LoRA adapters of a preset"
    )
    node_labels: dict[str, str] = Field(
        default={},
        description="Labels of nodes that are there; when left out KAITO makes nodes of the hardware class's `instance_type`",
    )
    preferred_nodes: tuple[str, ...] = Field(
        default=(), description="Nodes that are taken first (deprecated in KAITO)"
    )
    partition: KaitoPartition | None = Field(default=None, description="Parts of GPUs")
    annotations: dict[Annotated[str, StringConstraints(pattern=_SWITCH)], str] = Field(
        default={}, description='Switches of KAITO: `{kaito.sh/disable-benchmark: "true"}`'
    )
    memory: str | None = Field(
        default=None,
        pattern=SIZE,
        description="Memory request and limit of mp's image, such as \"48Gi\"; the hardware class's memory when it is left out",
    )
    prove: Literal["request", "skip"] = Field(
        default="request",
        description="`request`: a roll-out counts once a real request is answered; `skip`: once KAITO says that it is ready",
    )
    rollout: RolloutOptions = Field(
        default=RolloutOptions(), description="How it is brought to a new version"
    )
    manage: Literal["full", "observe"] = Field(
        default="full",
        description="`observe`: the Workspace or InferenceSet of this name is only watched, whoever made it; mp never touches it",
    )
    runs: KaitoRuns | None = Field(
        default=None,
        description="Of a Workspace or an InferenceSet that mp did not make: what runs in it; mp builds nothing for it, and writes nothing else",
    )

    @property
    def stands(self) -> bool:
        """Others made it."""
        return others_made(self.manage, self.runs)
