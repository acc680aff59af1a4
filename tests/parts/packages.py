"""Models packed for registries by hand, byte for byte as the specifications say: what the source oci:// is tested with."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from pipeline.clients.oci.repository import CONFIG, MANIFEST, ImageManifest, Repository, held
from pipeline.core.digest import digest
from pipeline.core.frozen import frozen

# ModelPack specification 0.0.7, docs/spec.md
MODEL_PACK = "application/vnd.cncf.model.manifest.v1+json"
MODEL_PACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
# KitOps 1.15, pkg/lib/constants/mediatype
MODEL_KIT = "application/vnd.kitops.modelkit.manifest.v1+json"
MODEL_KIT_CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
# OCI image specification 1.1.1, media-types.md and manifest.md ("Guidance for an Empty Descriptor")
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
METADATA = "org.cncf.model.file.metadata+json"


@frozen
class Layer:
    content: bytes
    media_type: str
    annotations: Mapping[str, str] = field(default_factory=dict)


def weight(path: str, content: bytes, kind: str = "weight") -> Layer:
    """A file as ModelPack's raw layer."""
    return Layer(content, f"application/vnd.cncf.model.{kind}.v1.raw", {FILEPATH: path})


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Files by name, and members that are something else."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def image_layer(*members: tuple[str, bytes] | tarfile.TarInfo, compressed: bool = False) -> Layer:
    content = tar(*members)
    return Layer(gzip.compress(content, mtime=0), LAYER_GZIP) if compressed else Layer(content, LAYER_TAR)


def push(repository: Repository, content: bytes) -> dict[str, object]:
    """Store a blob; digest and size of its descriptor."""
    return {
        "digest": repository.push(digest(content), len(content), held(content)),
        "size": len(content),
    }


def put(
    repository: Repository,
    layers: Sequence[Layer],
    tag: str = "v1",
    config: Mapping[str, object] | None = None,
    config_type: str = MODEL_PACK_CONFIG,
    artifact_type: str | None = MODEL_PACK,
    annotations: Mapping[str, str] | None = None,
) -> ImageManifest:
    """Push an artifact or image under a tag; by default a ModelPack one."""
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        **({"artifactType": artifact_type} if artifact_type else {}),
        "config": {"mediaType": config_type, **push(repository, json.dumps(config or {}).encode())},
        "layers": [
            {
                "mediaType": layer.media_type,
                **push(repository, layer.content),
                "annotations": dict(layer.annotations),
            }
            for layer in layers
        ],
        "annotations": dict(annotations or {}),
    }
    manifest = ImageManifest(json.dumps(body).encode(), MANIFEST)
    repository.put_manifest(tag, manifest)
    return manifest


def put_image(repository: Repository, layers: Iterable[Layer], tag: str = "v1") -> ImageManifest:
    """Push an image for linux/amd64 whose layers are a root file system."""
    layers = list(layers)
    plain = [gzip.decompress(one.content) if one.media_type == LAYER_GZIP else one.content for one in layers]
    rootfs = {"type": "layers", "diff_ids": [digest(content) for content in plain]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    return put(repository, layers, tag, config, CONFIG, artifact_type=None)
