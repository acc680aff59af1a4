"""Template vllm: vLLM's OpenAI-compatible server, on GPUs or on CPU."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.image import Build, Engine, Launch, Variant
from pipeline.core.model import Hardware, Model
from pipeline.templates.files import runtime_files, runtime_root
from pipeline.templates.flags import arguments, flag_name, merged, problems
from pipeline.templates.release import release, start_timeout_s, variant, versions
from pipeline.templates.secrets import secrets

NAME = "vllm"
API_KEY = "VLLM_API_KEY"
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


@dataclass(frozen=True)
class Vllm:
    """Serves one model with vLLM; what changes with its version is in data/vllm/."""

    def versions(self) -> tuple[str, ...]:
        return versions(NAME)

    def variant(self, version: str | None, hardware: Hardware) -> Variant:
        return variant(NAME, version, hardware)

    def faces(self) -> tuple[str, ...]:
        return ()

    def build(self, engine: Engine) -> Build:
        return Build(engine, runtime_files(NAME), str(runtime_root()))

    def launch(self, model: Model, variant: Variant) -> Launch:
        known = release(NAME, variant.version)
        wrong = (
            *problems(model, known.own, known.flags, f"vllm {variant.version}"),
            *_parallel_problems(model, variant),
        )
        if wrong:
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
        args["tensor-parallel-size"] = _gpus(model) // _other_ranks(model)
    return args


def _lora_args(ranks: Sequence[int | None]) -> Mapping[str, Json]:
    """Room for every adapter at once, and for the largest rank where it is told."""
    largest = max((rank for rank in ranks if rank is not None), default=None)
    room = next((step for step in LORA_RANKS if largest is not None and step >= largest), None)
    return {"max-loras": len(ranks), "max-lora-rank": room}


def _gpus(model: Model) -> int:
    """Of a replica, on all its nodes."""
    return model.hardware.gpus * model.hardware.nodes


def _other_ranks(model: Model) -> int:
    """Into how many parts a replica's GPUs are split before tensor parallelism does: pipelines × data ranks.

    A pipeline goes over the nodes, since tensor parallelism wants what joins the GPUs of one node.
    """
    ranks = {"pipeline-parallel-size": model.hardware.nodes, "data-parallel-size": 1}
    given = {flag_name(name): value for name, value in model.args.items()}
    ranks |= {name: max(value, 1) for name in ranks if isinstance(value := given.get(name), int)}
    return math.prod(ranks.values())


def _parallel_problems(model: Model, variant: Variant) -> Iterator[Diagnostic]:
    gpus, ranks = _gpus(model), _other_ranks(model)
    if variant.name == "cuda" and gpus % ranks:
        yield error(
            f"{model.name}: serve.args: {ranks} pipeline and data ranks do not divide {gpus} GPUs",
            model.where,
            f'hardware "{model.hardware.name}" has {gpus} GPUs per replica',
            model.name,
        )
