"""How models are served: one file per template, flags and packages of each version as data. Used by engine and targets."""

from collections.abc import Mapping

from pipeline.core.protocols import Template
from pipeline.templates.transformers import Transformers
from pipeline.templates.vllm import Vllm

TEMPLATES: Mapping[str, Template] = {"vllm": Vllm(), "transformers": Transformers()}
