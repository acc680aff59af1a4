"""Template transformers: any causal language model behind our own server, runtime/transformers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.image import Build, Engine, Launch, Variant
from pipeline.core.model import Hardware, Model
from pipeline.templates.files import runtime_files, runtime_root
from pipeline.templates.flags import arguments, merged, problems
from pipeline.templates.release import release, start_timeout_s, variant, versions
from pipeline.templates.secrets import secrets

NAME = "transformers"
API_KEY = "MP_API_KEY"
FACES = ("llama2-generate", "llama2-chat")


@dataclass(frozen=True)
class Transformers:
    """Serves one model with transformers; what changes with its version is in data/transformers/."""

    def versions(self) -> tuple[str, ...]:
        return versions(NAME)

    def variant(self, version: str | None, hardware: Hardware) -> Variant:
        return variant(NAME, version, hardware)

    def faces(self) -> tuple[str, ...]:
        return FACES

    def build(self, engine: Engine) -> Build:
        return Build(engine, runtime_files(NAME), str(runtime_root()))

    def launch(self, model: Model, variant: Variant) -> Launch:
        known = release(NAME, variant.version)
        wrong = (
            *problems(model, known.own, known.flags, "the transformers server"),
            *_adapter_problems(model),
            *_node_problems(model),
        )
        if wrong:
            raise UserError(wrong)
        chosen = arguments({**_own_args(model, variant), **model.args}, known.switches)
        return Launch(
            template=NAME,
            served_name=model.name,
            argv=merged(variant.args, chosen),
            env={**variant.env, **model.env},
            secrets=secrets(model, API_KEY),
            shm_bytes=known.shm_bytes.get(variant.name, 0),
            start_timeout_s=start_timeout_s(model, variant),
            gpu_driver=variant.gpu_driver,
        )


def _adapter_problems(model: Model) -> Iterator[Diagnostic]:
    if any(part.adapter for part in model.parts):
        summary = f"{model.name}: adapters: the transformers server serves none"
        yield error(summary, model.where, "use template: vllm", model.name)


def _node_problems(model: Model) -> Iterator[Diagnostic]:
    if model.hardware.nodes > 1:
        summary = f"{model.name}: the transformers server runs on one node, and {model.hardware.name} has {model.hardware.nodes}"
        yield error(summary, model.where, "use template: vllm, or another hardware class", model.name)


def _own_args(model: Model, variant: Variant) -> Mapping[str, Json]:
    args: dict[str, Json] = {"max-model-len": model.max_model_len}
    if model.faces:
        args["faces"] = [*sorted(set(model.faces))]
    if variant.name == "cpu" and model.hardware.cpus is not None:
        # else it runs a thread per core of the machine, however few of them a container may use
        args["threads"] = max(1, int(model.hardware.cpus))
    return args
