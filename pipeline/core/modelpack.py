"""The words of the CNCF ModelPack specification, in which models lie in registries as files. Read by sources, written by resources.

modelpack/model-spec 0.0.7: docs/spec.md, docs/config.md, docs/annotations.md and specs-go/v1.
"""

import re
from pathlib import PurePosixPath

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"  # the artifact type: the manifest itself is OCI's
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT, WEIGHT_CONFIG, DOC, CODE, DATASET = "weight", "weight.config", "doc", "code", "dataset"

FILEPATH = "org.cncf.model.filepath"  # annotation of a layer: the file's path in the model
METADATA = "org.cncf.model.file.metadata+json"  # annotation of a layer: mode, size and times of its file

FORM = r"\.v1\.(?P<form>raw|tar)(\+(?P<compression>gzip|zstd))?"
LAYER = re.compile(
    r"application/vnd\.cncf\.model\.(?P<kind>weight(\.config)?|doc|code|dataset)" + FORM
)  # of every media type of a layer

PRECISIONS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float64": "fp64",
}  # by PyTorch's name

# What is neither belongs to the weights' configuration: tokenizers, templates, vocabularies.
_SUFFIXES = {
    WEIGHT: ".safetensors .gguf .bin .pt .pth .pt2 .ckpt .pkl .pickle .npy .npz .h5 .onnx .msgpack",
    DOC: ".md .rst .html .bib .cff .png .jpg .jpeg .gif .webp .svg .pdf",
    CODE: ".py .so .sh .js .jar .wasm .c .cc .cpp .cu .go .rs",
}
_OF_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_DOCUMENT = re.compile(
    r"(.*licen[cs]e.*|copying|notice|readme|.*use.policy|authors|changelog|citation)(\.txt)?"
)


def raw(path: str) -> str:
    """The media type of a layer that is one file as it is, told by the file's name."""
    name = PurePosixPath(path).name.lower()
    kind = _OF_SUFFIX.get(PurePosixPath(name).suffix)
    if kind is None:
        kind = DOC if _DOCUMENT.fullmatch(name) else WEIGHT_CONFIG
    return f"application/vnd.cncf.model.{kind}.v1.raw"
