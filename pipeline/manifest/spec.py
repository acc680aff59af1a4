"""models.yaml, version 1, as records: what a user may write. Read by manifest/read, resolved by engine/resolve."""

import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, StringConstraints, Tag

from pipeline.manifest.options import OptionsByKind, SpecByKind
from pipeline.manifest.places import (
    DefaultsSpec,
    EngineSpec,
    HardwareSpec,
    ImageRegistrySpec,
    InventorySpec,
    SecretReference,
    SecretSpec,
)
from pipeline.manifest.scalars import POINTER, EnvName, FlagName, Name, Sha256, Spec, Template, Text, mistake
from pipeline.manifest.trust import SignSpec, VerifySpec
from pipeline.targets import TargetSpec


def _text_or_secret(value: object) -> str:
    return (
        "=secret" if isinstance(value, dict | SecretReference) else "=text"
    )  # "=": no key of a user begins so


EnvValue: TypeAlias = Annotated[
    Annotated[str, Tag("=text")] | Annotated[SecretReference, Tag("=secret")], Discriminator(_text_or_secret)
]


def _whole_one(value: object) -> object:
    """To Python, `true` and `1.0` equal 1."""
    if isinstance(value, bool | float):
        raise mistake(f"must be 1, not {json.dumps(value)}", "write version: 1")
    return value


class FilesSpec(Spec):
    """Which files of the source belong to the model: globs over their paths."""

    include: tuple[Text, ...] = Field(
        default=(), description="Only these, such as `*.safetensors`; empty is all"
    )
    exclude: tuple[Text, ...] = Field(default=(), description="But not these, such as `original/*`")
    format: Literal["auto", "safetensors", "gguf"] = Field(
        default="auto",
        description="Format of the weights; `auto`: safetensors where there are any, else GGUF",
    )
    allow: dict[Text, Sha256] = Field(
        default={},
        description="Code or pickles that are taken along, each with its sha256; needs a version that cannot move",
    )


class PartSpec(Spec):
    """A source beside the weights."""

    source: Text = Field(description="Where it comes from, as for the weights")
    version: Text | None = Field(default=None, description="Branch, tag or commit, as for the weights")
    files: FilesSpec = Field(
        default=FilesSpec.model_construct(), description="Which of its files; the usual ones when left out"
    )


class ModelEngineSpec(Spec):
    """An engine version for this model alone."""

    version: Text = Field(description='Engine version, quoted: `"0.32.0"`')


class ServeSpec(Spec):
    """How the engine serves the model."""

    max_model_len: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Longest context in tokens; the engine's own when left out",
    )
    args: dict[FlagName, JsonValue] = Field(
        default={}, description="Further flags of the engine, without dashes: `max-num-seqs: 64`"
    )
    api_key: SecretReference | None = Field(
        default=None, description="Clients must send this key; none when left out"
    )
    faces: tuple[Literal["llama2-generate", "llama2-chat"], ...] = Field(
        default=(),
        description="Old APIs to serve beside OpenAI's, with template transformers: KAITO's `/generate` and `/chat` of Llama 2",
    )


class ChatSpec(Spec):
    """How messages become one prompt."""

    template: Text = Field(
        description="Jinja file, relative to models.yaml; laid over the model's own template"
    )


class ExpectSpec(Spec):
    """What an answer must hold."""

    contains: Text = Field(description="Text that the answer must contain")


class TestSpec(Spec):
    """One request that a deployment must answer before it counts as applied."""

    __test__ = False  # pytest: not a test class

    prompt: Text = Field(description="What is asked; up to 40 tokens are answered, without sampling")
    expect: ExpectSpec | None = Field(
        default=None, description="What the answer must hold; any answer when left out"
    )


class LifecycleSpec(Spec):
    """What may happen to what this model made."""

    protect: bool = Field(
        default=False, description="Refuse to delete or replace its deployments, also when the entry is gone"
    )
    on_remove: Literal["delete", "forget"] = Field(
        default="delete",
        description="When the entry is removed: `delete` its deployments, or `forget` them and let them run",
    )
    ignore_drift: tuple[Annotated[str, StringConstraints(pattern=POINTER)], ...] = Field(
        default=(),
        description="Fields of the object that runs it in a cluster which others may set, as JSON pointers: `[/spec/replicas]`; "
        "mp sets them when it makes the object, and never again",
    )


class ModelSpec(Spec):
    """One model: where it comes from, how it is served and where it runs."""

    source: Text | None = Field(
        default=None,
        description="Where the weights are: `hf://Qwen/Qwen3-8B`, an alias, or a folder: `./checkpoint`; needed unless others "
        "made what runs at all of its targets",
    )
    version: Text | None = Field(
        default=None,
        description="Branch, tag or commit, pinned in models.lock; needed for hf:// unless `source` has it, not for folders",
    )
    files: FilesSpec = Field(
        default=FilesSpec.model_construct(), description="Which files of the source belong to the model"
    )
    tokenizer: PartSpec | None = Field(
        default=None, description="A tokenizer from elsewhere; its files replace those of the weights' source"
    )
    config: PartSpec | None = Field(
        default=None, description="A config.json from elsewhere, for weights that come without one"
    )
    adapters: dict[Name, PartSpec] = Field(
        default={}, description="LoRA adapters by name: each is served under its name beside the model"
    )
    cache: Literal["keep", "none"] = Field(
        default="keep",
        description="`none`: the weights go straight from the source into images, nothing stays on this disk",
    )
    template: Template | None = Field(default=None, description="How it is served")
    engine: ModelEngineSpec | None = Field(default=None, description="An engine version for this model alone")
    serve: ServeSpec = Field(default=ServeSpec.model_construct(), description="How the engine serves it")
    chat: ChatSpec | None = Field(default=None, description="A chat template of your own")
    hardware: Name | None = Field(default=None, description="A key of `hardware:`")
    env: dict[EnvName, EnvValue] = Field(
        default={}, description="Environment variables of the engine: text, or `{secret: NAME}`"
    )
    test: tuple[TestSpec, ...] = Field(default=(), description="Requests that each deployment must answer")
    lifecycle: LifecycleSpec = Field(
        default=LifecycleSpec.model_construct(), description="What may happen to what this model made"
    )
    targets: Annotated[dict[str, Any], OptionsByKind()] = Field(
        default={},
        description="Where it runs: keys of `targets:`, each with options of its kind (or nothing)",
    )  # Any: each target kind has an options class of its own


class LicensesSpec(Spec):
    """Licences by the identifiers that sources give, such as `apache-2.0`; globs."""

    allow: tuple[Text, ...] = Field(default=("*",), description="Only these")
    deny: tuple[Text, ...] = Field(default=(), description="None of these")


class PolicySpec(Spec):
    """What plans must keep to; what breaks it is refused with exit 4."""

    formats: tuple[Literal["safetensors", "gguf", "pickle"], ...] = Field(
        default=("safetensors", "gguf", "pickle"),
        description="Formats of weights; a pickle also has to be listed in its entry under `files.allow`",
    )
    remote_code: Literal["listed", "deny"] = Field(
        default="listed",
        description="Code in a source: only files an entry lists by hash, or `deny` even these",
    )
    gated: Literal["allow", "deny"] = Field(
        default="allow", description="Sources whose terms must be accepted first"
    )
    licenses: LicensesSpec = Field(
        default=LicensesSpec.model_construct(), description="Licences of the weights and adapters"
    )


class Manifest(Spec):
    """The declared state of a project's models."""

    version: Annotated[Literal[1], BeforeValidator(_whole_one)] = Field(
        description="Version of this file's form: 1"
    )
    project: Name = Field(description="Owner mark on everything that mp makes for this file")
    defaults: DefaultsSpec = Field(
        default=DefaultsSpec.model_construct(), description="What models have when they do not say otherwise"
    )
    inventory: InventorySpec = Field(
        default=InventorySpec.model_construct(), description="Where the list of what is owned is kept"
    )
    aliases: dict[Name, Text] = Field(
        default={}, description="Short names for references: `qwen: hf://Qwen/Qwen3-8B`"
    )
    policy: PolicySpec = Field(default=PolicySpec.model_construct(), description="What plans must keep to")
    verify: VerifySpec = Field(
        default=VerifySpec.model_construct(), description="Signatures without which a plan is refused"
    )
    sign: SignSpec | None = Field(
        default=None, description="How new images are signed; not at all when left out"
    )
    secrets: dict[Name, SecretSpec] = Field(default={}, description="Secrets by name: where each is found")
    hardware: dict[Name, HardwareSpec] = Field(default={}, description="Hardware classes by name")
    registries: dict[Name, ImageRegistrySpec] = Field(default={}, description="Image registries by name")
    engines: dict[Name, EngineSpec] = Field(default={}, description="Engine versions and bases, by template")
    targets: dict[Name, Annotated[TargetSpec, SpecByKind()]] = Field(
        default={}, description="Places to run or publish, by name"
    )
    models: dict[Name, ModelSpec] = Field(default={}, description="Models by name")
