"""How models lie in the layers of OCI artifacts and images: the media types and annotations of each form. Pure.

ModelPack    CNCF ModelPack specification 0.0.7, as core/modelpack has it
ModelKit     KitOps 1.15 (kitops-ml/kitops, pkg/lib/constants/mediatype); `kit pack --use-model-pack` writes the above
Ollama       what `ollama push` writes (ollama/ollama, server/internal/manifest, docs of 0.30)
image        OCI image specification 1.1.1 and Docker's schema 2: files below /models, as KServe's modelcars have them
files        layers with a title, as ORAS 1.3 pushes and pulls them; InstructLab's models on quay.io are such
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field

from pipeline.clients.oci.repository import CONFIG, FILES
from pipeline.core.digest import Digest, Json
from pipeline.core.frozen import frozen
from pipeline.core.modelpack import FILEPATH, FORM, METADATA
from pipeline.core.modelpack import LAYER as MODEL_PACK

ROOT = "models"  # the folder of an image that holds the model
TITLE = "org.opencontainers.image.title"
LICENSES = "org.opencontainers.image.licenses"
CREATED = "org.opencontainers.image.created"

_UNPACK = "io.deis.oras.content.unpack"  # ORAS: the layer is a folder, as tar+gzip
_REGULAR = (0, ord("0"))  # `typeflag` of a regular file: KitOps takes it from Go's mode bits, modctl from tar

_MODEL_KIT = re.compile(r"application/vnd\.kitops\.modelkit\.(?P<kind>[a-z]+)" + FORM)
_TAKEN = ("weight", "weight.config", "doc", "model", "modelpart", "docs")
_CODE = "code"

_IMAGE_CONFIGS = (CONFIG, "application/vnd.docker.container.image.v1+json")
_IMAGE_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)"
    r"([+.](?P<compression>gzip|zstd))?"
)
_OLLAMA = "application/vnd.ollama.image."
_GGUF = b"GGUF"
_OLLAMA_FILES = {
    "model": "model.gguf",
    "projector": "mmproj.gguf",
    "adapter": "adapter.gguf",
    "license": "LICENSE",
    "template": "template",
    "params": "params",
    "system": "system",
}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class NoModel(Exception):
    """Why an image manifest cannot be read as a model, and what to do then."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@frozen
class Packed:
    """A layer with files of a model."""

    digest: Digest
    size_bytes: int  # as it is stored
    archive: bool  # a tar; else the layer is one file
    compression: str = ""  # "", "gzip", "zstd"
    path: str = ""  # of one file: its path; of a tar: the folder that its names count from
    root: str = ""  # only what lies below this folder of the tar is the model's: set for images alone
    sha256: Mapping[str, str] = field(default_factory=dict)  # by path, where somebody wrote them down
    expanded_bytes: int | None = None  # of its one file, where that is told
    is_code: bool = False  # taken only as far as Filter.allow lists its files
    magic: bytes = b""  # what it must begin with

    @property
    def is_plain(self) -> bool:
        """Stored as the file itself: the layer's digest is the file's."""
        return not self.archive and not self.compression


@frozen
class _Layer:
    """A layer as the image manifest describes it."""

    digest: Digest
    size_bytes: int
    media_type: str  # without parameters
    annotations: Mapping[str, str]

    @property
    def file(self) -> str:
        return (self.annotations.get(FILEPATH) or self.annotations.get(TITLE, "")).removeprefix("./")


def packed(manifest: Mapping[str, Json], config: Callable[[], Mapping[str, Json]]) -> tuple[Packed, ...]:
    """The layers with files of the model, lowest first; `config` is asked for only where it is needed. Raises NoModel."""
    layers = _layers(manifest)
    media_types = [layer.media_type for layer in layers]
    if any(one.startswith(_OLLAMA) for one in media_types):
        return tuple(_ollama(layers))
    if any(MODEL_PACK.fullmatch(one) or _MODEL_KIT.fullmatch(one) for one in media_types):
        return tuple(_artifact(layers, config))
    if _is_image(manifest, layers, config):
        return tuple(_image(layers))
    if any(layer.file for layer in layers):
        return tuple(_titled(layer) for layer in layers if layer.file)
    shown = ", ".join(sorted(set(media_types))) or "none"
    raise NoModel(f"holds no model that mp can read: its layers are {shown}", "see docs/sources.md, oci")


def license_of(manifest: Mapping[str, Json], config: Callable[[], Mapping[str, Json]]) -> str | None:
    """The licence: of the image manifest's annotations, else as ModelPack and KitOps write it into the config."""
    told = _texts(manifest.get("annotations")).get(LICENSES)
    if told or not re.fullmatch(r".*\.(cncf\.model|kitops\.modelkit)\..*", _config_type(manifest)):
        return told
    found = config()
    descriptor, kit, model = (_object(found.get(key)) for key in ("descriptor", "package", "model"))
    names = descriptor.get("licenses")
    names = names if isinstance(names, list) else [kit.get("license") or model.get("license")]
    return " AND ".join(str(name) for name in names if name) or None


def created_of(manifest: Mapping[str, Json]) -> str | None:
    """When the content was made, as the image manifest's annotations say it; a config has the time of its build."""
    return _texts(manifest.get("annotations")).get(CREATED)


def _layers(manifest: Mapping[str, Json]) -> tuple[_Layer, ...]:
    found = manifest.get("layers")
    if not isinstance(found, list):
        raise NoModel("is no image manifest with layers", "check the reference")
    return tuple(_layer(_object(one)) for one in found)


def _layer(descriptor: Mapping[str, Json]) -> _Layer:
    digest, size = str(descriptor.get("digest")), descriptor.get("size")
    if not DIGEST.fullmatch(digest):  # it becomes a part of addresses and of file names
        raise NoModel(f"has a layer with the digest {digest[:80]!r}", "only sha256 digests are supported")
    if not isinstance(size, int) or size < 0:
        raise NoModel(f"has a layer without a size: {digest}", "publish it again")
    media_type = str(descriptor.get("mediaType", "")).partition(";")[0].strip()
    return _Layer(Digest(digest), size, media_type, _texts(descriptor.get("annotations")))


def _artifact(layers: Sequence[_Layer], config: Callable[[], Mapping[str, Json]]) -> Iterator[Packed]:
    """ModelPack and ModelKits: data sets and whatever is neither weights nor text stays where it is."""
    seen: dict[str, int] = {}
    for layer in layers:
        found = MODEL_PACK.fullmatch(layer.media_type) or _MODEL_KIT.fullmatch(layer.media_type)
        kind = found["kind"] if found else ""
        index = seen[kind] = seen.get(kind, -1) + 1
        if found is None or kind not in (*_TAKEN, _CODE):
            continue
        archive = found["form"] == "tar"
        path = layer.file if not archive else _old_folder(layer, kind, index, config)
        if not archive and not path:
            raise NoModel(f"has a file without a name: {layer.digest}", f"its layer needs {FILEPATH}")
        size_bytes = _told_size(layer)
        compression = found["compression"] or ""
        if compression and not archive and size_bytes is None:
            raise NoModel(f'does not tell the size of "{path}" inside {layer.digest}', f"add {METADATA}")
        yield Packed(
            layer.digest,
            layer.size_bytes,
            archive,
            compression,
            path,
            expanded_bytes=size_bytes,
            is_code=kind == _CODE,
        )


def _old_folder(layer: _Layer, kind: str, index: int, config: Callable[[], Mapping[str, Json]]) -> str:
    """Where the names of a tar count from: of ModelKits before 1.0 the parent of the Kitfile's path, else the top.

    Newer ones tell the layer's digest in the Kitfile, and have whole paths in the tar (kitops-ml/kitops#489).
    """
    if layer.file or kind not in ("model", "modelpart", "docs", "code"):
        return ""
    kitfile = config()
    entries: Json = kitfile.get(kind)
    if kind == "model":
        entries = [kitfile.get("model")]
    elif kind == "modelpart":
        entries = _object(kitfile.get("model")).get("parts")
    entry = _object(entries[index]) if isinstance(entries, list) and index < len(entries) else {}
    if "digest" in entry:
        return ""
    return posixpath.dirname(posixpath.normpath(str(entry.get("path", "")))).removeprefix("./")


def _told_size(layer: _Layer) -> int | None:
    """The size of the one file inside, as ModelPack's annotation tells it."""
    try:
        told = json.loads(layer.annotations.get(METADATA, "{}"))
        size = told.get("size") if told.get("typeflag") in _REGULAR else None
    except (ValueError, AttributeError):
        return None
    return size if isinstance(size, int) and size >= 0 else None


def _image(layers: Sequence[_Layer]) -> Iterator[Packed]:
    """Layers of a root file system. Where mp wrote the image, only its layers of weights matter."""
    ours = [layer for layer in layers if FILES in layer.annotations]
    for layer in ours or layers:
        found = _IMAGE_LAYER.fullmatch(layer.media_type)
        if found is None:
            raise NoModel(
                f"has a layer of a type that is not known: {layer.media_type}", "see docs/sources.md, oci"
            )
        yield Packed(
            layer.digest,
            layer.size_bytes,
            archive=True,
            compression=found["compression"] or "",
            root=ROOT,
            sha256=_listing(layer.annotations.get(FILES, "{}")),
        )


def _listing(text: str) -> dict[str, str]:
    try:
        return {path: str(sha256) for path, sha256 in json.loads(text).items() if _is_sha256(str(sha256))}
    except (ValueError, AttributeError):  # somebody else's annotation
        return {}


def _is_sha256(text: str) -> bool:
    return DIGEST.fullmatch(f"sha256:{text}") is not None


def _ollama(layers: Sequence[_Layer]) -> Iterator[Packed]:
    """One GGUF file and its texts. Ollama keeps newer safetensors models as one layer a tensor: no engine reads those."""
    licences = 0
    for layer in layers:
        kind = layer.media_type.removeprefix(_OLLAMA)
        if kind == "tensor":
            raise NoModel(
                "keeps every tensor in a layer of its own, which only Ollama reads", "take a GGUF version"
            )
        path = _OLLAMA_FILES.get(kind)
        if path is None:
            continue
        if kind == "license":
            licences += 1
            path = path if licences == 1 else f"{path}.{licences}"
        magic = _GGUF if path.endswith(".gguf") else b""
        yield Packed(layer.digest, layer.size_bytes, archive=False, path=path, magic=magic)


def _titled(layer: _Layer) -> Packed:
    unpack = layer.annotations.get(_UNPACK) == "true"
    path = "" if unpack else layer.file  # a folder's tar has whole paths
    return Packed(layer.digest, layer.size_bytes, unpack, "gzip" if unpack else "", path)


def _is_image(
    manifest: Mapping[str, Json], layers: Sequence[_Layer], config: Callable[[], Mapping[str, Json]]
) -> bool:
    """Old ORAS gave files the types of images: only a config with a root file system tells them apart."""
    if _config_type(manifest) not in _IMAGE_CONFIGS:
        return False
    if not any(TITLE in layer.annotations for layer in layers):
        return True
    return bool(_object(config().get("rootfs")).get("diff_ids"))


def _config_type(manifest: Mapping[str, Json]) -> str:
    return str(_object(manifest.get("config")).get("mediaType", ""))


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _texts(value: Json) -> dict[str, str]:
    return {key: str(text) for key, text in _object(value).items()}
