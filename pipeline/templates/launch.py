"""launch.json: what a target hands to runtime/<template>/serve.py, and its JSON Schema. Read there by runtime/launch.py."""

from collections.abc import Mapping
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.digest import Json
from pipeline.core.image import Launch

FORMAT_VERSION: Literal[1] = 1


class Group(BaseModel):
    """Several nodes serve one model; environment variables tell each process its place among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(ge=2, description="How many there are")
    rank: str = Field(description="Variable with this node's number; 0 is the leader, which takes requests")
    leader: str = Field(description="Variable with the leader's address")
    own: str = Field(description="Variable with this node's address")


class LaunchDocument(BaseModel):
    """What starts a model inside its environment. Holds no secret, only the files that do."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="mp launch document")

    format_version: Literal[1] = Field(description="Version of this file's form")
    template: str = Field(description="Which serve.py reads it: `vllm`, `transformers`")
    model: str = Field(description="Folder of the weights, chat template laid over them")
    served_name: str = Field(description="Name that requests use")
    host: str = Field(description="Address to listen on")
    port: int = Field(ge=1, le=65535, description="Port to listen on")
    adapters: dict[str, str] = Field(description="Adapters by name: their folders inside the model's")
    argv: tuple[str, ...] = Field(description="The engine's own flags")
    env: dict[str, str] = Field(description="Environment variables")
    secrets: dict[str, str] = Field(description="Environment variable → file that holds its value")
    group: Group | None = Field(description="The nodes that serve it together; null when it is one")


def document(
    launch: Launch,
    *,
    model: str,
    host: str,
    port: int,
    secrets: Mapping[str, str],
    group: Group | None = None,
) -> dict[str, Json]:
    """The launch document of one deployment; `secrets` maps environment variables to the files that hold them."""
    if set(secrets) != set(launch.secrets):
        raise ValueError(f"files for {sorted(secrets)}, but the launch has secrets {sorted(launch.secrets)}")
    written = LaunchDocument(
        format_version=FORMAT_VERSION,
        template=launch.template,
        model=model,
        served_name=launch.served_name,
        host=host,
        port=port,
        adapters=dict(sorted(launch.adapters.items())),
        argv=launch.argv,
        env=dict(sorted(launch.env.items())),
        secrets=dict(sorted(secrets.items())),
        group=group,
    )
    return cast(dict[str, Json], written.model_dump(mode="json"))


def launch_schema() -> dict[str, Json]:
    """JSON Schema of launch.json: schema/launch.schema.json."""
    schema = LaunchDocument.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
