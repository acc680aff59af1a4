"""Template transformers: any causal language model behind our own server, runtime/transformers."""

from collections.abc import Iterable, Mapping

from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Engine, Launch, Variant
from pipeline.core.model import ADAPTERS, Hardware, Model, Stated
from pipeline.templates.files import runtime_files, runtime_root
from pipeline.templates.flags import arguments, merged, problems
from pipeline.templates.release import release, start_timeout_s, variant, versions
from pipeline.templates.secrets import secrets

NAME = "transformers"
API_KEY = "MP_API_KEY"
FACES = ("llama2-generate", "llama2-chat")


@frozen
class Transformers:
    """Serves one model with transformers; what changes with its version is in data/transformers/."""

    def versions(self) -> tuple[str, ...]:
        return versions(NAME)

    def variant(self, version: str | None, hardware: Hardware) -> Variant:
        return variant(NAME, version, hardware)

    def faces(self) -> tuple[str, ...]:
        return FACES

    def mistakes(self, stated: Stated) -> Iterable[Mistake]:
        if any(role.startswith(ADAPTERS) for role in stated.sources):
            summary = "adapters: the transformers server serves none"
            yield Mistake((*stated.path, "adapters"), summary, "use template: vllm")
        if stated.hardware.nodes > 1:
            summary = f"the transformers server runs on one node, and {stated.hardware.name} has {stated.hardware.nodes}"
            yield Mistake(
                (*stated.path, "hardware"), summary, "use template: vllm, or another hardware class"
            )

    def build(self, engine: Engine) -> Build:
        return Build(engine, runtime_files(NAME), str(runtime_root()))

    def launch(self, model: Model, variant: Variant) -> Launch:
        known = release(NAME, variant.version)
        if wrong := tuple(problems(model, known.own, known.flags, "the transformers server")):
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


def _own_args(model: Model, variant: Variant) -> Mapping[str, Json]:
    args: dict[str, Json] = {"max-model-len": model.max_model_len}
    if model.faces:
        args["faces"] = [*sorted(set(model.faces))]
    if variant.name == "cpu" and model.hardware.cpus is not None:
        # else it runs a thread per core of the machine, however few of them a container may use
        args["threads"] = max(1, int(model.hardware.cpus))
    return args
