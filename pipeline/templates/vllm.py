"""Template vllm: vLLM's OpenAI-compatible server, on GPUs or on CPU."""

import math
from collections.abc import Iterable, Mapping, Sequence

from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Engine, Launch, Variant
from pipeline.core.model import Hardware, Model, Stated
from pipeline.templates.files import runtime_files, runtime_root
from pipeline.templates.flags import arguments, flag_name, merged, problems
from pipeline.templates.release import release, start_timeout_s, variant, versions
from pipeline.templates.secrets import secrets

NAME = "vllm"
API_KEY = "VLLM_API_KEY"
_RANKS = ("pipeline-parallel-size", "data-parallel-size")
# Default 600: a start that takes longer would end with the engine still loading (vLLM 0.32.0, envs.py).
READY_TIMEOUT = "VLLM_ENGINE_READY_TIMEOUT_S"
LORA_RANKS = (
    1,
    8,
    16,
    32,
    64,
    128,
    256,
    320,
    512,
)  # what --max-lora-rank takes (vLLM 0.32.0, config/lora.py)


@frozen
class Vllm:
    """Serves one model with vLLM; what changes with its version is in data/vllm/."""

    def versions(self) -> tuple[str, ...]:
        return versions(NAME)

    def variant(self, version: str | None, hardware: Hardware) -> Variant:
        return variant(NAME, version, hardware)

    def faces(self) -> tuple[str, ...]:
        return ()

    def mistakes(self, stated: Stated) -> Iterable[Mistake]:
        hardware = stated.hardware
        gpus, ranks = _gpus(hardware), math.prod(_other_ranks(hardware, stated.args).values())
        if gpus % ranks:
            given = [name for name in stated.args if flag_name(name) in _RANKS]
            summary = f"serve.args: {ranks} pipeline and data ranks do not divide {gpus} GPUs"
            hint = f'hardware "{hardware.name}" has {gpus} GPUs per replica'
            yield Mistake((*stated.path, "serve", "args", *given[:1]), summary, hint)

    def build(self, engine: Engine) -> Build:
        return Build(engine, runtime_files(NAME), str(runtime_root()))

    def launch(self, model: Model, variant: Variant) -> Launch:
        known = release(NAME, variant.version)
        if wrong := tuple(problems(model, known.own, known.flags, f"vllm {variant.version}")):
            raise UserError(wrong)
        args = {**_own_args(model, variant), **{flag_name(name): value for name, value in model.args.items()}}
        timeout_s = start_timeout_s(model, variant)
        return Launch(
            template=NAME,
            served_name=model.name,
            argv=merged(variant.args, arguments(args, known.switches)),
            env={**variant.env, READY_TIMEOUT: str(timeout_s), **model.env},
            secrets=secrets(model, API_KEY),
            adapters={part.adapter: part.folder for part in model.parts if part.adapter},
            shm_bytes=known.shm_bytes.get(variant.name, 0) * max(model.hardware.gpus, 1),
            start_timeout_s=timeout_s,
            gpu_driver=variant.gpu_driver,
            nodes=model.hardware.nodes,
        )


def _own_args(model: Model, variant: Variant) -> Mapping[str, Json]:
    args: dict[str, Json] = {"max-model-len": model.max_model_len}
    if adapters := [part for part in model.parts if part.adapter]:
        args |= _lora_args([part.artifact.facts.lora_rank for part in adapters])
    if variant.name == "cuda":
        if model.hardware.nodes > 1:
            args["pipeline-parallel-size"] = model.hardware.nodes
        ranks = math.prod(_other_ranks(model.hardware, model.args).values())
        args["tensor-parallel-size"] = _gpus(model.hardware) // ranks
    return args


def _lora_args(ranks: Sequence[int | None]) -> Mapping[str, Json]:
    """Room for every adapter at once, and for the largest rank where it is told."""
    largest = max((rank for rank in ranks if rank is not None), default=None)
    room = next((step for step in LORA_RANKS if largest is not None and step >= largest), None)
    return {"max-loras": len(ranks), "max-lora-rank": room}


def _gpus(hardware: Hardware) -> int:
    """Of a replica, on all its nodes."""
    return hardware.gpus * hardware.nodes


def _other_ranks(hardware: Hardware, args: Mapping[str, Json]) -> dict[str, int]:
    """Into how many parts a replica's GPUs are split before tensor parallelism does: pipelines, data ranks.

    A pipeline goes over the nodes, since tensor parallelism wants what joins the GPUs of one node.
    """
    given = {flag_name(name): value for name, value in args.items()}
    ranks = dict(zip(_RANKS, (hardware.nodes, 1), strict=True))
    return ranks | {name: max(value, 1) for name in ranks if isinstance(value := given.get(name), int)}
