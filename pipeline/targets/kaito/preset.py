"""A preset of KAITO: its own image serves weights of the Hugging Face Hub, pinned by a ConfigMap. Pure.

The ConfigMap's vllm section is what KAITO 0.12 appends to vLLM's arguments, each as `--name value`, so the last word is ours
(presets/workspace/inference/vllm/inference_api.py). A switch has no value, and cannot be written there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.core.model import Artifact, Model
from pipeline.core.protocols import Place
from pipeline.core.spelling import COMMIT

CONFIG_FILE = "inference_config.yaml"
HUB = "hf://"
TOKEN, TOKEN_KEY = "HF_TOKEN", "HF_TOKEN"  # the variable, and the key that KAITO reads in a Secret
RUNTIME = "kaito.sh/runtime"
LAST_WITH_IMAGES = (0, 4)  # api/v1beta1/workspace_validation.go asks for no private image any more since 0.5
# What KAITO sets by the nodes that it has chosen (pkg/workspace/inference), and what is written here.
OWN = {
    "revision": "models.lock",
    "tokenizer": "the entry's tokenizer",
    "tokenizer-revision": "models.lock",
    "code-revision": "models.lock",
    "served-model-name": "the model's name",
    "max-model-len": "serve.max_model_len",
    "model": "preset",
    "port": "KAITO",
    "tensor-parallel-size": "KAITO",
    "pipeline-parallel-size": "KAITO",
    "data-parallel-size": "KAITO",
}


def inference_config(model: Model, served_name: str) -> dict[str, Json]:
    """The contents of the ConfigMap: pins from models.lock, then what the entry says of its server."""
    pin, tokenizer = model.artifact.pin, _tokenizer(model)
    settings: dict[str, str] = {
        "served-model-name": served_name,
        "revision": pin,
        "tokenizer-revision": tokenizer.pin if tokenizer else pin,
        "code-revision": pin,
        **({"tokenizer": repository_of(tokenizer)} if tokenizer else {}),
        **({"max-model-len": str(model.max_model_len)} if model.max_model_len else {}),
        **{_flag(name): _text(value) for name, value in model.args.items() if value is not None},
    }
    lines = (
        f"  {name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in sorted(settings.items())
    )
    return {CONFIG_FILE: "vllm:\n" + "".join(lines)}


def preset_of(place: Place[Any], model: Model) -> dict[str, Any]:
    """The field `inference.preset`."""
    options, spec = place.options, place.spec
    settings: dict[str, Any] = {}
    if TOKEN in model.secret_env:
        secret = model.secret_env[TOKEN].kubernetes
        assert secret is not None, "preset_problems refuses a secret without a place"
        settings["modelAccessSecret"] = secret[0]
    if options.image:
        settings["image"] = options.image
        if spec.pull_secret:
            settings["imagePullSecrets"] = [spec.pull_secret]
    preset: dict[str, Any] = {"name": options.preset}
    if options.image:
        preset["accessMode"] = "private"
    return {**preset, **({"presetOptions": settings} if settings else {})}


def adapters_of(place: Place[Any]) -> list[dict[str, Any]]:
    """The field `inference.adapters`."""
    pulled = {"imagePullSecrets": [place.spec.pull_secret]} if place.spec.pull_secret else {}
    return [
        {
            "source": {"name": adapter.name, "image": adapter.image, **pulled},
            **({} if adapter.strength is None else {"strength": str(adapter.strength)}),
        }
        for adapter in place.options.adapters
    ]


def preset_problems(place: Place[Any], model: Model) -> Iterable[Diagnostic]:
    """What a preset cannot do: it takes nothing from mp but settings, and mp pins what it downloads itself."""
    of_model = (*_source(place, model), *_additions(model), *_token(model), *_settings(model))
    for summary, hint in (*of_model, *_runtime(place), *_image(place)):
        yield error(f"{model.name}: {summary}", place.where, hint, model.name)


def _source(place: Place[Any], model: Model) -> Iterator[tuple[str, str]]:
    preset = str(place.options.preset)
    own = "leave preset out: mp's own image holds weights from anywhere"
    if not _is_pinned(model.artifact):
        yield f'a preset downloads from the Hugging Face Hub, not from "{model.artifact.source}"', own
    elif "/" in preset and preset.casefold() != repository_of(model.artifact).casefold():
        hint = f"write preset: {repository_of(model.artifact)}, or name the preset's repository as the source"
        yield f'the pins of "{model.artifact.source}" do not fit preset "{preset}"', hint
    if model.template != "vllm":
        yield (
            f'a preset is served by vLLM, not by template "{model.template}"',
            "write template: vllm, or leave preset out",
        )


def _additions(model: Model) -> Iterator[tuple[str, str]]:
    own = "leave preset out: mp's own image has it"
    taken = {
        **{f'"{part.role}" of the entry': part.role != "tokenizer" for part in model.parts},
        "chat template of the entry": bool(model.overlays),
        f"environment variables: {', '.join(sorted(model.env))}": bool(model.env),
    }
    yield from ((f"a preset takes no {what}", own) for what, given in taken.items() if given)
    tokenizer = _tokenizer(model)
    if tokenizer is not None and not _is_pinned(tokenizer):
        yield "a preset takes a tokenizer only from the Hugging Face Hub", own
    if model.api_key is not None:
        yield "a preset asks clients for no key", own


def _token(model: Model) -> Iterator[tuple[str, str]]:
    for variable, secret in sorted(model.secret_env.items()):
        if variable != TOKEN:
            hint = "leave preset out: mp's own image has it"
            yield f'a preset takes no secret but {TOKEN}: "{variable}"', hint
        elif secret.kubernetes is None or secret.kubernetes[1] != TOKEN_KEY:
            hint = f"secrets: {{{secret.name}: {{kubernetes: {{name: …, key: {TOKEN_KEY}}}}}}}"
            yield f'KAITO reads the key {TOKEN_KEY} of a Secret, and secret "{secret.name}" has none', hint


def _settings(model: Model) -> Iterator[tuple[str, str]]:
    for name, value in sorted(model.args.items()):
        if _flag(name) in OWN:
            yield f'serve.args: "{name}" is not yours to set here', f"it comes from {OWN[_flag(name)]}"
        elif isinstance(value, bool):
            hint = "leave preset out: mp's own image takes it"
            yield f'serve.args: "{name}" is a switch, and KAITO passes every setting with a value', hint


def _runtime(place: Place[Any]) -> Iterator[tuple[str, str]]:
    if place.options.annotations.get(RUNTIME, "vllm") != "vllm":
        hint = "leave preset and this annotation out: mp's own image takes template: transformers"
        yield f"KAITO's other runtime takes no revision: {RUNTIME}", hint


def _image(place: Place[Any]) -> Iterator[tuple[str, str]]:
    if not place.options.image:
        return
    version = place.spec.kaito
    if version is None or tuple(map(int, version.split("."))) > LAST_WITH_IMAGES:
        hint = 'leave image and preset out: mp\'s image is private too; for an old KAITO write kaito: "0.4" in the target'
        yield "only KAITO 0.4 and older take a private image for a preset", hint


def repository_of(artifact: Artifact) -> str:
    """ "hf://Qwen/Qwen3-8B" → "Qwen/Qwen3-8B"."""
    return artifact.source.removeprefix(HUB)


def _is_pinned(artifact: Artifact) -> bool:
    return artifact.source.startswith(HUB) and COMMIT.fullmatch(artifact.pin) is not None


def _tokenizer(model: Model) -> Artifact | None:
    return next((part.artifact for part in model.parts if part.role == "tokenizer"), None)


def _flag(name: str) -> str:
    return name.removeprefix("--").replace("_", "-")


def _text(value: Json) -> str:
    """As one argument: lists and mappings as JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping | list | tuple) else str(value)
