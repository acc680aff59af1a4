"""What a file is, told by its name: weights, text, or what runs code when it is loaded. Pure; choice and safety use it."""

import enum
import re
from functools import lru_cache
from pathlib import PurePosixPath


class Kind(enum.Enum):
    """How a file may be treated. Only the first four are taken without being asked for by hash."""

    SAFETENSORS = "safetensors"
    GGUF = "GGUF"
    TEXT = "text"  # and the binary vocabularies of SentencePiece, which are plain data
    MEDIA = "media"  # pictures, sound, documents: of a model's card, no engine reads them
    PICKLE = "pickle"  # may run code when it is loaded
    CODE = "code"
    FOREIGN = "foreign"  # weights for engines that mp does not drive
    UNKNOWN = "unknown"


WEIGHTS = frozenset({Kind.SAFETENSORS, Kind.GGUF})

_SUFFIXES = {
    Kind.SAFETENSORS: ".safetensors",
    Kind.GGUF: ".gguf",
    Kind.TEXT: ".json .jsonl .txt .md .rst .jinja .jinja2 .j2 .yaml .yml .toml .cfg .ini .csv .tsv .html .bib .cff "
    ".tiktoken .bpe .vocab .merges .spm .template .license .sig",
    Kind.MEDIA: ".png .jpg .jpeg .gif .webp .svg .bmp .ico .tif .tiff .heic .pdf .docx .pptx .ipynb "
    ".mp4 .webm .mov .avi .mkv .m4v .mp3 .wav .flac .ogg .m4a .log",
    Kind.PICKLE: ".bin .pt .pth .pt2 .ckpt .pkl .pickle .joblib .dill .npy .npz .mar .nemo .keras .h5 .hdf5",
    Kind.CODE: ".py .pyc .pyd .pyi .so .dll .dylib .exe .sh .bash .bat .cmd .ps1 .pl .rb .lua .js .mjs .ts "
    ".c .cc .cpp .cu .cuh .h .hpp .rs .go .java .class .jar .wasm .whl",
    Kind.FOREIGN: ".msgpack .onnx .onnx_data .ot .tflite .mlmodel .pb .pte .engine .plan",
}
RUNNING = tuple(
    f"*{suffix}" for kind in (Kind.CODE, Kind.PICKLE) for suffix in _SUFFIXES[kind].split()
)  # globs
_OF_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

# Vocabularies as SentencePiece and mistral-common name them (tokenizer.model.v3, tokenizer.model.v7m1); gensim's
# *.model is a pickle, so the suffix alone says nothing.
_VOCABULARY = re.compile(
    r"(tokenizer|tiktoken|spiece|sentencepiece|sp|spm|bpe|source|target|.*\.bpe|.*\.spm|.*\.unigram)\.model(\.v\d+(m\d+)?)?"
)
# Files without a suffix: of every repository, and Ollama's and KitOps' own.
_PLAIN = re.compile(
    r".*licen[cs]e.*|copying|notice|readme|.*use.policy|authors|changelog|version|citation"
    r"|modelfile|kitfile|template|params|system"
)
# What training leaves behind beside a checkpoint, and what was measured to quantise it: no engine reads it.
_LEFTOVER = re.compile(
    r"(optimizer|scheduler|rng_state(_\d+)?|training_args|scaler)\.(bin|pt|pth)|events\.out\.tfevents\..*"
    r"|(.*[-_.])?imatrix([-_.].*)?"
)


@lru_cache(4096)  # asked several times of each file, and of the same names in many models
def kind_of(path: str) -> Kind:
    """By the name alone, as engines choose their loader by it."""
    name = PurePosixPath(path).name.lower()
    suffix = PurePosixPath(name).suffix
    if kind := _OF_SUFFIX.get(suffix):
        return kind
    if _VOCABULARY.fullmatch(name) or (_PLAIN.fullmatch(name) and not re.search(r"\.\D", name)):
        return Kind.TEXT
    return Kind.UNKNOWN


@lru_cache(4096)
def is_leftover(path: str) -> bool:
    return _LEFTOVER.fullmatch(PurePosixPath(path).name.lower()) is not None
