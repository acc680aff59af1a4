"""What a model is once it is resolved: pinned files, hardware, how it is served. Built by engine/resolve."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pipeline.core.diagnostic import Where
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine

WEIGHTS = "weights"  # the role of a model's main source
ADAPTERS = "adapters."  # roles of adapters begin so


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file of an artifact."""

    path: str  # relative, "/" separated: "model-00001-of-00004.safetensors"
    size_bytes: int
    sha256: str  # 64 hex


@frozen
class Facts:
    """What is known of a model without its weights; None is "not known"."""

    architecture: str | None = None  # "LlamaForCausalLM"
    dtype: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    context_tokens: int | None = None
    lora_rank: int | None = None  # of an adapter
    chat_template_sha256: str | None = None
    license: str | None = None
    license_sha256: str | None = None
    gated: bool | None = None
    created: str | None = None  # when this revision was made, as its source says: "2024-02-19T10:57:45Z"


@frozen
class Filter:
    """Which files of a source are taken."""

    include: tuple[str, ...] = ()  # globs; empty is everything
    exclude: tuple[str, ...] = ()
    format: str = "auto"  # of the weights: "auto", "safetensors", "gguf"; "text": no weights are wanted
    allow: tuple[tuple[str, str], ...] = ()  # code and pickles that may come along: path, sha256; sorted


@frozen
class Artifact:
    """The files of one pinned source: a view, no bytes. Exactly what models.lock holds of it."""

    source: str  # canonical reference: "hf://Qwen/Qwen3-8B", "file:///abs/path"
    version: str  # what the user wrote: "main"; "" for a local path
    pin: str  # 40-hex commit, or "sha256-<64 hex>" of the content
    files: tuple[FileEntry, ...]  # sorted by path
    facts: Facts = Facts()
    filter: Filter = Filter()
    left_out_bytes: int = 0  # duplicates of the weights that the source has and nobody fetches

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files)


@frozen
class Part:
    """A source beside the weights: a tokenizer from elsewhere, an adapter."""

    role: str  # its key in models.lock: "tokenizer", "config", "adapters.fr"
    artifact: Artifact
    folder: str = ""  # where its files lie in the model's folder: "adapters/fr"; "" is beside the weights

    @property
    def adapter(self) -> str:
        """Its name when it is an adapter: "fr"; else ""."""
        return self.role.removeprefix(ADAPTERS) if self.role.startswith(ADAPTERS) else ""


@frozen
class Origin:
    """Where one file of a model comes from: a source, and the file as that source has it."""

    artifact: Artifact
    entry: FileEntry


@frozen
class Overlay:
    """A small file of the user's that lies over the weights: a chat template."""

    path: str  # inside the model folder: "chat_template.jinja"
    sha256: str
    size_bytes: int
    file: str = field(compare=False)  # absolute path on this machine


@frozen
class Hardware:
    """A hardware class, resolved."""

    name: str
    gpus: int  # of each node of a replica; 0 is CPU
    gpu: str | None = None  # product: "L40S"
    gpu_memory_gib: float | None = None  # per GPU
    cpus: float | None = None  # cores
    memory_bytes: int | None = None  # of each node
    nodes: int = 1  # that one replica spans
    instance_type: str | None = None  # of a node that a cloud makes: "Standard_NC24ads_A100_v4"


@frozen
class Secret:
    """A reference to a secret, never its value."""

    name: str  # its key in `secrets:`
    env: str | None = None  # the environment variable that holds it on this machine
    file: str | None = None  # or the file, relative to models.yaml
    kubernetes: tuple[str, str] | None = None  # where pods find it: name and key of a Secret
    restarts: bool = False  # pods that use it, when its value there has changed


@frozen
class Question:
    """One real request and what its answer must hold."""

    prompt: str
    contains: str | None = None
    chat: bool = False  # it has a chat template: an answer to the bare text is none


@frozen
class Lifecycle:
    protect: bool = False
    on_remove: str = "delete"  # or "forget"
    ignore_drift: tuple[str, ...] = ()  # JSON pointers into the object that runs it: "/spec/replicas"


@frozen
class Standing:
    """An entry at a target where mp makes nothing: what runs there was made by others, and is watched or taken over."""

    name: str
    env: tuple[tuple[str, "str | Secret"], ...] = ()  # in the entry's order
    hardware: Hardware | None = None  # None: the entry says nothing of it
    lifecycle: Lifecycle = Lifecycle()


def secrets_of(env: Mapping[str, Secret], api_key: Secret | None) -> Mapping[str, Secret]:
    """The secrets of an entry by their names."""
    found = {secret.name: secret for secret in env.values()}
    return found | ({api_key.name: api_key} if api_key else {})


@frozen
class Stated:
    """One entry of `models:` as far as models.yaml says it by itself, before any source is asked."""

    name: str
    hardware: Hardware
    template: str
    sources: Mapping[str, str] = field(default_factory=dict)  # role → canonical: "hf://Qwen/Qwen3-8B"
    engine_version: str | None = None  # that the entry or `engines:` names
    cached: bool = True
    chat_template: bool = False  # one of the user's own
    args: Mapping[str, Json] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, Secret] = field(default_factory=dict)  # environment variable → secret
    api_key: Secret | None = None
    lifecycle: Lifecycle = Lifecycle()

    @property
    def path(self) -> tuple[str, ...]:
        """Where it stands in models.yaml."""
        return ("models", self.name)

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """Every secret that it refers to, by its name."""
        return secrets_of(self.secret_env, self.api_key)


@frozen
class Model:
    """One entry of `models:`, resolved: what targets and templates work with."""

    name: str
    artifact: Artifact
    hardware: Hardware
    template: str
    engine: Engine
    other_engines: tuple[Engine, ...] = ()  # the same for further platforms that its images are made for
    parts: tuple[Part, ...] = ()
    cached: bool = True  # False: its bytes go straight from the source into images, and never to this disk
    overlays: tuple[Overlay, ...] = ()
    max_model_len: int | None = None
    args: Mapping[str, Json] = field(
        default_factory=dict
    )  # engine flags as the user wrote them, without "--"
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, Secret] = field(default_factory=dict)  # environment variable → secret
    api_key: Secret | None = None
    faces: tuple[str, ...] = ()  # APIs beside OpenAI's: "llama2-generate"
    questions: tuple[Question, ...] = ()
    lifecycle: Lifecycle = Lifecycle()
    where: Where | None = field(default=None, compare=False)

    @cached_property
    def files(self) -> tuple[FileEntry, ...]:
        """The model's folder as it is served, by path: the files of a part lie over those of the weights."""
        return tuple(replace(self.origins[path].entry, path=path) for path in sorted(self.origins))

    @cached_property
    def origins(self) -> Mapping[str, Origin]:
        """By its path in the model's folder: where each file comes from."""
        found = {entry.path: Origin(self.artifact, entry) for entry in self.artifact.files}
        for part in self.parts:
            start = f"{part.folder}/" if part.folder else ""
            found |= {start + entry.path: Origin(part.artifact, entry) for entry in part.artifact.files}
        return found

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """Every secret that it refers to, by its name."""
        return secrets_of(self.secret_env, self.api_key)

    @property
    def platforms(self) -> tuple[str, ...]:
        """What its images are made for, sorted: "linux/amd64"."""
        return tuple(sorted(engine.platform for engine in (self.engine, *self.other_engines)))

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """Every source by its role, the weights first."""
        return {WEIGHTS: self.artifact, **{part.role: part.artifact for part in self.parts}}
