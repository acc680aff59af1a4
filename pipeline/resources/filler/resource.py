"""The filler image of an engine: what the engine image stands on, and mp's own files. Made from a registry alone.

The layers of the base are taken over from the engine image, which is in the same registry: no other registry is asked, no
Docker engine is needed, and a node that runs the engine has all but one megabyte already.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any, TypeAlias

from pipeline.clients.oci.repository import (
    BLOCK_BYTES,
    CONFIG,
    LAYER,
    MANIFEST,
    ImageManifest,
    Repository,
    contents,
    held,
)
from pipeline.core.change import Change
from pipeline.core.digest import Digest, Json, canonical, digest, fingerprint, image_tag
from pipeline.core.errors import BackendError, Missing
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, ImageName, Registry
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Mark,
    Observed,
    Resource,
    State,
    Transfer,
    Unreadable,
    address,
)
from pipeline.resources.filler.content import MODULE, ROOT, layer
from pipeline.resources.image.assembly import ENVIRONMENT, FINGERPRINT
from pipeline.resources.image.index import images, index, is_whole
from pipeline.resources.image.publish import OpenRepository
from pipeline.resources.image.recipe import engine_name, locator, registry_of
from pipeline.resources.image.trust.attach import Attestor

KIND = "filler"
OWNER = "@filler"
PYTHON_PATH = "PYTHONPATH"

Answer: TypeAlias = "Observed[FillerState] | Absent | Unreadable"


@frozen
class FillerState(State):
    fingerprint: str  # of the engine image and of mp's own files
    build: Build | None = field(default=None, compare=False)
    name: ImageName | None = field(default=None, compare=False)


def filler_name(build: Build, registry: Registry) -> ImageName:
    return ImageName(registry, f"{build.engine.template}.filler", image_tag(_fingerprint(build)))


def filler_address(build: Build, registry: Registry) -> Address:
    return address(OWNER, build.engine.key, registry.name)


def resource(build: Build, registry: Registry) -> Resource[FillerState]:
    name = filler_name(build, registry)
    return Resource(
        filler_address(build, registry),
        KIND,
        locator(name),
        FillerState(_fingerprint(build), build, name),
        needs=(address("@engine", build.engine.key, registry.name),),
        keep=True,
    )


class FillerDriver:
    """Makes filler images beside engine images."""

    def __init__(self, repositories: OpenRepository, owner: Mark, attestor: Attestor | None = None) -> None:
        self._open = repositories
        self._owner = owner  # its address is filled in for each
        self._attestor = attestor  # None: nothing is signed

    def observe(
        self, wanted: Sequence[Resource[FillerState]], known: Sequence[Entry]
    ) -> Mapping[Address, Answer]:
        """There is one an engine: one after the other."""
        entries = {entry.address: entry for entry in known}
        answers = {r.address: self._answer(r, entries.pop(r.address, None)) for r in wanted}
        return answers | {where: self._answer(None, entry) for where, entry in entries.items()}

    def apply(
        self, change: Change[FillerState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[FillerState] | None:
        """Push what is missing, then the tag. Raises Missing where the engine image is gone, Denied, Unreachable."""
        if change.resource is None:  # images are pruned, never deleted by apply
            return None
        desired, where = change.resource.desired, change.resource.address
        build, name = desired.build, desired.name
        assert build is not None and name is not None, "a desired filler knows how it is made"
        if self._attestor:
            self._attestor.require(name.registry)
        emit(Progress(where, "push"))
        repository = self._open(name.registry, name.repository)
        image = self._made(repository, build, name, inputs)
        if self._attestor:
            self._attestor.attest_index(repository, name.registry, image)
        repository.put_manifest(name.tag, image)
        return Observed(desired, self._mark(where), digest=image.digest)

    def _answer(self, wanted: Resource[FillerState] | None, entry: Entry | None) -> Answer:
        """The wanted image; where it is not there yet, the one that was applied last is what is there."""
        found = wanted or entry
        assert found is not None, "somebody asked"
        prints = [wanted.desired.fingerprint] if wanted else []
        prints += [str(entry.applied["fingerprint"])] if entry and entry.applied.get("fingerprint") else []
        build, name = (wanted.desired.build, wanted.desired.name) if wanted else (None, None)
        try:
            repository = self._open(
                name.registry if name else registry_of(found.locator), found.locator["repository"]
            )
            for each in prints:
                image = repository.manifest(image_tag(each))
                if image is not None and is_whole(repository, image):
                    state = FillerState(image.annotations().get(FINGERPRINT, ""), build, name)
                    return Observed(state, self._mark(found.address), digest=image.digest)
        except BackendError as problem:
            return Unreadable(problem.message, problem.hint)
        return Absent(Transfer(push_bytes=len(layer()), exact=False))

    def _made(
        self,
        repository: Repository,
        build: Build,
        name: ImageName,
        inputs: Mapping[Address, Observed[Any]],
    ) -> ImageManifest:
        """The image, all but its tag; of several platforms their index."""
        engine = engine_name(build, name.registry)
        where = address("@engine", build.engine.key, name.registry.name)
        source = self._open(engine.registry, engine.repository)
        found = source.manifest(str(inputs[where].digest) if where in inputs else engine.tag)
        if found is None:
            raise Missing(source.location, f"engine image {engine.tag} is gone", "run mp apply again")
        told = {FINGERPRINT: _fingerprint(build)}
        made = {
            platform: _image(repository, source, engine.repository, image, told)
            for platform, image in images(source, found)
        }
        if len(made) == 1:
            return next(iter(made.values()))
        for image in made.values():
            repository.put_manifest(image.digest, image)
        return index(made, told)

    def _mark(self, where: Address) -> Mark:
        return replace(self._owner, address=where)


def _fingerprint(build: Build) -> str:
    return fingerprint({"engine": build.fingerprint, "filler": digest(layer())})


def _image(
    repository: Repository, source: Repository, home: str, engine: ImageManifest, told: Mapping[str, str]
) -> ImageManifest:
    """One platform's image: the layers below the engine's environment, and ours."""
    config_digest, _ = contents(engine)
    body = source.blob(config_digest)
    if body is None:
        raise Missing(source.location, f"the config of {engine.digest} is gone", "run mp apply again")
    config: dict[str, Any] = json.loads(body)
    layers = _layers(engine)[: _height(config, len(_layers(engine)))]
    for one in layers:
        _take_over(repository, source, home, Digest(str(one["digest"])), int(str(one["size"])))
    own = layer()
    repository.push(digest(own), len(own), held(own))
    made = canonical(_config(config, len(layers), told))
    repository.push(digest(made), len(made), held(made))
    document: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(made), "size": len(made)},
        "layers": [*layers, {"mediaType": LAYER, "digest": digest(own), "size": len(own)}],
        "annotations": dict(told),
    }
    return ImageManifest(canonical(document), MANIFEST)


def _take_over(repository: Repository, source: Repository, home: str, one: Digest, size: int) -> None:
    if not repository.keeps(one, size) and not repository.mount(one, home, size):
        repository.push(one, size, partial(_blocks, source, one))


def _blocks(source: Repository, one: Digest, start: int) -> Iterator[bytes]:
    with source.open_blob(one, start) as blob:
        while block := blob.read(BLOCK_BYTES):
            yield block


def _height(config: Mapping[str, Any], layers: int) -> int:
    """How many layers are below the engine's environment; all of them where the history does not tell."""
    steps = config.get("history") or ()
    making = [step for step in steps if not step.get("empty_layer")]
    if len(making) != layers:
        return layers
    told = (at for at, step in enumerate(making) if ENVIRONMENT in str(step.get("created_by", "")))
    return next(told, layers)


def _layers(engine: ImageManifest) -> list[dict[str, Json]]:
    """Their descriptors under the names that OCI has for them, without what is said of each."""
    found = engine.document()["layers"]
    assert isinstance(found, list), "it is the image manifest of one platform"
    return [
        {"mediaType": _media_type(str(one["mediaType"])), "digest": one["digest"], "size": one["size"]}
        for one in found
        if isinstance(one, dict)
    ]


def _media_type(name: str) -> str:
    compression = next((known for known in ("gzip", "zstd") if name.endswith(known)), "")
    return f"{LAYER}+{compression}" if compression else LAYER


def _config(engine: Mapping[str, Any], layers: int, told: Mapping[str, str]) -> dict[str, Any]:
    """What is run, by the user and in the folder of the engine."""
    settings = engine.get("config") or {}
    kept = [line for line in settings.get("Env") or () if not line.startswith(f"{PYTHON_PATH}=")]
    diff_ids = list(engine["rootfs"]["diff_ids"])[:layers]
    return {
        "os": engine["os"],
        "architecture": engine["architecture"],
        "config": {
            "Env": [*kept, f"{PYTHON_PATH}=/{ROOT}"],
            "Entrypoint": ["python3", "-m", MODULE],
            "User": settings.get("User", ""),
            "WorkingDir": settings.get("WorkingDir", ""),
            "Labels": dict(told),
        },
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, digest(layer())]},
    }
