"""A preset of KAITO: its own image serves weights of the Hugging Face Hub, pinned by a ConfigMap. Pure.

The ConfigMap's vllm section is what KAITO 0.12 appends to vLLM's arguments, each as `--name value`, so the last word is ours
(presets/workspace/inference/vllm/inference_api.py). A switch has no value, and cannot be written there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json
from pipeline.core.model import WEIGHTS, Artifact, Model, Stated
from pipeline.core.protocols import Place
from pipeline.targets.deployment import option

CONFIG_FILE = "inference_config.yaml"
HUB = "hf://"
TOKEN, TOKEN_KEY = "HF_TOKEN", "HF_TOKEN"  # the variable, and the key that KAITO reads in a Secret
RUNTIME = "kaito.sh/runtime"
_TAKEN = (WEIGHTS, "tokenizer")  # of the sources of an entry
_OWN_IMAGE = "leave preset out: mp's own image has it"
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
        assert secret is not None, "preset_mistakes refuses a secret without a place"
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


def preset_mistakes(place: Place[Any], stated: Stated) -> Iterable[Mistake]:
    """What a preset cannot do: it takes nothing from mp but settings, and mp pins what it downloads itself."""
    for of_entry in (_additions, _token, _settings):
        yield from of_entry(stated)
    for of_place in (_source, _runtime, _image):
        yield from of_place(place, stated)


def _source(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    preset, source = str(place.options.preset), stated.sources.get(WEIGHTS, "")
    if source and not source.startswith(HUB):
        text = f'a preset downloads from the Hugging Face Hub, not from "{source}"'
        hint = "leave preset out: mp's own image holds weights from anywhere"
        yield Mistake((*stated.path, "source"), text, hint)
    elif source and "/" in preset and preset.casefold() != source.removeprefix(HUB).casefold():
        hint = f"write preset: {source.removeprefix(HUB)}, or name the preset's repository as the source"
        text = f'the pins of "{source}" do not fit preset "{preset}"'
        yield Mistake(option(place, stated, "preset"), text, hint)
    if stated.template != "vllm":
        text = f'a preset is served by vLLM, not by template "{stated.template}"'
        yield Mistake((*stated.path, "template"), text, "write template: vllm, or leave preset out")


def _additions(stated: Stated) -> Iterator[Mistake]:
    taken = {
        **{tuple(role.split(".")): f'"{role}" of the entry' for role in stated.sources if role not in _TAKEN},
        ("chat",): "chat template of the entry" if stated.chat_template else "",
        ("env",): f"environment variables: {', '.join(sorted(stated.env))}" if stated.env else "",
    }
    for keys, what in taken.items():
        if what:
            yield Mistake((*stated.path, *keys), f"a preset takes no {what}", _OWN_IMAGE)
    if (tokenizer := stated.sources.get("tokenizer")) and not tokenizer.startswith(HUB):
        text = "a preset takes a tokenizer only from the Hugging Face Hub"
        yield Mistake((*stated.path, "tokenizer", "source"), text, _OWN_IMAGE)
    if stated.api_key is not None:
        yield Mistake((*stated.path, "serve", "api_key"), "a preset asks clients for no key", _OWN_IMAGE)


def _token(stated: Stated) -> Iterator[Mistake]:
    for variable, secret in sorted(stated.secret_env.items()):
        if variable != TOKEN:
            text = f'a preset takes no secret but {TOKEN}: "{variable}"'
            yield Mistake((*stated.path, "env", variable), text, _OWN_IMAGE)
        elif secret.kubernetes is None or secret.kubernetes[1] != TOKEN_KEY:
            text = f'KAITO reads the key {TOKEN_KEY} of a Secret, and secret "{secret.name}" has none'
            hint = f"secrets: {{{secret.name}: {{kubernetes: {{name: …, key: {TOKEN_KEY}}}}}}}"
            yield Mistake(("secrets", secret.name, "kubernetes"), text, hint)


def _settings(stated: Stated) -> Iterator[Mistake]:
    for name, value in sorted(stated.args.items()):
        where = (*stated.path, "serve", "args", name)
        if _flag(name) in OWN:
            text = f'serve.args: "{name}" is not yours to set here'
            yield Mistake(where, text, f"it comes from {OWN[_flag(name)]}")
        elif isinstance(value, bool):
            text = f'serve.args: "{name}" is a switch, and KAITO passes every setting with a value'
            yield Mistake(where, text, "leave preset out: mp's own image takes it")


def _runtime(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    if place.options.annotations.get(RUNTIME, "vllm") != "vllm":
        hint = "leave preset and this annotation out: mp's own image takes template: transformers"
        where = option(place, stated, "annotations", RUNTIME)
        yield Mistake(where, f"KAITO's other runtime takes no revision: {RUNTIME}", hint)


def _image(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    if not place.options.image:
        return
    version = place.spec.kaito
    if version is None or tuple(map(int, version.split("."))) > LAST_WITH_IMAGES:
        hint = 'leave image and preset out: mp\'s image is private too; for an old KAITO write kaito: "0.4" in the target'
        text = "only KAITO 0.4 and older take a private image for a preset"
        yield Mistake(option(place, stated, "image"), text, hint)


def repository_of(artifact: Artifact) -> str:
    """ "hf://Qwen/Qwen3-8B" → "Qwen/Qwen3-8B"."""
    return artifact.source.removeprefix(HUB)


def _tokenizer(model: Model) -> Artifact | None:
    return next((part.artifact for part in model.parts if part.role == "tokenizer"), None)


def _flag(name: str) -> str:
    return name.removeprefix("--").replace("_", "-")


def _text(value: Json) -> str:
    """As one argument: lists and mappings as JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping | list | tuple) else str(value)
