"""How models are served: one file per template, flags and packages of each version as data. Used by engine and targets."""

from collections.abc import Mapping

from pipeline.core.lazily import Lazily
from pipeline.core.protocols import Template


def _vllm() -> Template:
    from pipeline.templates.vllm import Vllm

    return Vllm()


def _transformers() -> Template:
    from pipeline.templates.transformers import Transformers

    return Transformers()


TEMPLATES: Mapping[str, Template] = Lazily({"vllm": _vllm, "transformers": _transformers})
