"""The sources of one model by role, as the manifest declares them: weights, tokenizer, config, adapters. Pure; used by resolve and place."""

from collections.abc import Iterator
from typing import TypeAlias

from pipeline.core.frozen import frozen
from pipeline.core.model import WEIGHTS, Filter
from pipeline.manifest.spec import FilesSpec, ModelSpec, PartSpec

# What a part's source gives when its entry names no files: what the engines look for beside the weights.
TOKENIZER = (
    "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "spiece.model", "sentencepiece*.model", "*.tiktoken",
)  # fmt: skip
CONFIG = ("config.json", "generation_config.json")
TEXT = "text"  # a part that holds no weights

Key: TypeAlias = tuple[str, str]  # model, role


@frozen
class Declared:
    """One source as the entry has it."""

    source: str  # as the user wrote it
    version: str | None
    filter: Filter
    folder: str  # in the model's folder; "" is beside the weights
    path: tuple[str, ...]  # of the entry that declares it, below the model's: ("adapters", "fr")


def declared(spec: ModelSpec) -> dict[str, Declared]:
    """Every source of a model by role, the weights first; none of one that others made and whose source is not known."""
    return dict(_declared(spec))


def label(key: Key) -> str:
    """How messages name a source: the model alone for its weights."""
    name, role = key
    return name if role == WEIGHTS else f"{name} {role}"


def _declared(spec: ModelSpec) -> Iterator[tuple[str, Declared]]:
    if spec.source is not None:
        yield WEIGHTS, Declared(spec.source, spec.version, filter_of(spec.files), "", ())
    for role, part, globs in (("tokenizer", spec.tokenizer, TOKENIZER), ("config", spec.config, CONFIG)):
        if part is not None:
            yield role, Declared(part.source, part.version, _text(part, globs), "", (role,))
    for name, part in sorted(spec.adapters.items()):
        folder = f"adapters/{name}"
        found = Declared(part.source, part.version, filter_of(part.files), folder, ("adapters", name))
        yield f"adapters.{name}", found


def filter_of(files: FilesSpec) -> Filter:
    return Filter(files.include, files.exclude, files.format, tuple(sorted(files.allow.items())))


def _text(part: PartSpec, globs: tuple[str, ...]) -> Filter:
    """No weights come with a tokenizer or a config."""
    return Filter(
        part.files.include or globs, part.files.exclude, TEXT, tuple(sorted(part.files.allow.items()))
    )
