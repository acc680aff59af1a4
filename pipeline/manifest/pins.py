"""The form of models.lock as records: what is checked when it is read, and its JSON schema. Used by lock and schema."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from pipeline.manifest.scalars import Name, Sha256, Spec, Text, mistake

FORMAT_VERSION = 1
METADATA = ".metadata"  # the cache's own file in a model's folder

Pin = Annotated[str, StringConstraints(pattern="^([0-9a-f]{40}|sha256-[0-9a-f]{64})$")]

Role = Annotated[
    str, StringConstraints(pattern=r"^(weights|tokenizer|config|adapters\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)$")
]
ImageDigest = Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    """A path that cannot leave the folder it is put into."""
    if "\\" in path or "\0" in path or str(PurePosixPath(path)) != path:
        raise mistake("is not a plain relative path", "run mp lock")
    if path.startswith("/") or ".." in path.split("/") or path == ".":
        raise mistake("leaves the model's folder", "run mp lock")
    if path == METADATA:
        raise mistake("is a name of mp's own in the cache", "leave the file out: files.exclude")
    return path


class FilePin(Spec):
    """One file of a pinned model."""

    path: Annotated[str, StringConstraints(min_length=1), AfterValidator(_inside)] = Field(
        description="Relative to the model's folder"
    )
    size: int = Field(ge=0, description="Size in bytes")
    sha256: Sha256 = Field(description="Hash of its content")


class FactsPin(Spec):
    """What is known of a model without its weights; what is not known is left out."""

    architecture: str | None = Field(default=None, description="Class of the model")
    dtype: str | None = Field(default=None, description="Type of its weights")
    layers: int | None = Field(default=None, description="Hidden layers")
    hidden_size: int | None = Field(default=None, description="Width")
    attention_heads: int | None = Field(default=None, description="Attention heads")
    kv_heads: int | None = Field(default=None, description="Key and value heads")
    head_dim: int | None = Field(default=None, description="Width of one head")
    vocab_size: int | None = Field(default=None, description="Tokens of its vocabulary")
    context_tokens: int | None = Field(default=None, description="Longest context in tokens")
    lora_rank: int | None = Field(default=None, description="Rank of an adapter")
    chat_template_sha256: str | None = Field(default=None, description="Hash of its chat template")
    license: str | None = Field(default=None, description="Licence as the source names it")
    license_sha256: str | None = Field(default=None, description="Hash of the licence's text")
    gated: bool | None = Field(default=None, description="Access must be asked for")
    created: str | None = Field(
        default=None, description="When this revision was made, as its source says (RFC 3339, UTC)"
    )


class FilterPin(Spec):
    """What chose the files, as it was when it was pinned."""

    include: tuple[str, ...] = Field(default=(), description="Only these; empty is all")
    exclude: tuple[str, ...] = Field(default=(), description="But not these")
    format: Literal["auto", "safetensors", "gguf", "text"] = Field(description="Format of the weights")
    allow: dict[str, Sha256] = Field(description="Code and pickles that may come along, with their hashes")


class ArtifactPin(Spec):
    """One source of a model, pinned."""

    source: Text = Field(description="Where the files come from; a folder is relative to models.lock")
    version: str = Field(description="What models.yaml says; empty for a folder")
    filter: FilterPin = Field(description="What chose the files")
    pin: Pin = Field(description="The commit, or the hash of the content")
    files: tuple[FilePin, ...] = Field(description="Every file, by path")
    left_out_bytes: int = Field(ge=0, description="Duplicates of the weights that nobody fetches")
    facts: FactsPin = Field(default=FactsPin.model_construct(), description="What is known of the model")


class EnginePin(Spec):
    """An engine with everything pinned."""

    template: Text = Field(description="`vllm` or `transformers`")
    version: Text = Field(description="Engine version")
    variant: Text = Field(description="`cuda` or `cpu`")
    platform: Text = Field(description="`linux/amd64`")
    python: Text = Field(description="Python version of its environment")
    base: Text = Field(description="Base image, without digest")
    base_digest: ImageDigest | None = Field(
        description="Digest of the base image; null where its registry was not reachable"
    )
    index: str = Field(description="Package index of the requirements")
    requirements: tuple[str, ...] = Field(description="Packages with versions and hashes, sorted")


class LockFile(Spec):
    """models.lock: what the versions of models.yaml resolved to. Written by `mp lock`, committed, not edited."""

    format_version: Literal[1] = Field(description="Version of this file's form: 1")
    engines: dict[str, EnginePin] = Field(description="Engines, by template-version/variant/platform")
    models: dict[Name, dict[Role, ArtifactPin]] = Field(
        description="Models by name: their sources by role, `weights` and `tokenizer`, `config`, `adapters.NAME`"
    )
