"""Engine images in registries: seen there, built where none has them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.clients import uv
from pipeline.clients.buildkit import Builds
from pipeline.clients.oci.repository import ImageManifest, Repository, contents
from pipeline.core.change import Action, Change
from pipeline.core.digest import image_tag
from pipeline.core.errors import BackendError, Corrupt
from pipeline.core.image import Build, ImageName
from pipeline.core.protocols import Findings
from pipeline.core.report import Emit
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Mark,
    Observed,
    Resource,
    Transfer,
    Unreadable,
)
from pipeline.resources.engine.resource import EngineState
from pipeline.resources.engine.workshop import ENGINE, Builders, Install, Places, Workshop
from pipeline.resources.image.assembly import FINGERPRINT, labels
from pipeline.resources.image.index import images, index, is_whole
from pipeline.resources.image.publish import OpenRepository
from pipeline.resources.image.recipe import registry_of
from pipeline.resources.image.trust.annotations import of_engine
from pipeline.resources.image.trust.attach import Attestor
from pipeline.resources.image.trust.signing import outlives, seen_signed

Answer: TypeAlias = Observed[EngineState] | Absent | Unreadable


class EngineDriver:
    """Builds with BuildKit what no registry has. The environment is made outside: a build needs no network."""

    def __init__(
        self,
        builder: Builds,
        cache_root: Path,
        repositories: OpenRepository,
        owner: Mark,
        install: Install = uv.install_into,
        attestor: Attestor | None = None,
        places: Places = lambda base: (base,),
        platform: str = "linux/amd64",
        own_builders: Mapping[str, Builds] | None = None,
    ) -> None:
        """`own_builders`: of templates that do not take `builder`, by template."""
        builders = Builders(builder, own_builders or {})
        self._workshop = Workshop(builders, cache_root, repositories, install, places, platform)
        self._open = repositories
        self._owner = owner  # its address is filled in for each
        self._attestor = attestor  # None: nothing is said of new images beside them

    def observe(
        self, wanted: Sequence[Resource[EngineState]], known: Sequence[Entry]
    ) -> Mapping[Address, Answer]:
        """Engine images are few: one after the other."""
        entries = {entry.address: entry for entry in known}
        answers = {r.address: self._answer(r, entries.pop(r.address, None)) for r in wanted}
        return answers | {where: self._answer(None, entry) for where, entry in entries.items()}

    def check(self, changes: Sequence[Change[Any]]) -> Findings:
        """Whether the builders of new images can be trusted, and trust this machine."""
        builds = [c.resource.desired.build for c in changes if c.resource and _is_built(c)]
        return Findings(remarks=self._workshop.check([part for build in builds for part in build.parts]))

    def apply(
        self, change: Change[EngineState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[EngineState] | None:
        """Build and push, unless the image is there by now: whoever makes it first, makes it for all."""
        if change.resource is None:  # images are pruned, never deleted by apply
            return None
        desired, where = change.resource.desired, change.resource.address
        build, name = desired.build, desired.name
        assert build is not None and name is not None, "a desired engine knows how it is built"
        repository = self._open(name.registry, name.repository)
        image = self._standing(repository, build, name, change.entry)
        if image is None:
            if self._attestor:
                self._attestor.require(name.registry)
            image = self._make(where, repository, build, name, change.entry, emit)
        elif desired.signed and self._attestor:
            self._attestor.sign_standing(repository, name.registry, image)
        repository.put_manifest(name.tag, image)
        return Observed(desired, self._mark(where), digest=image.digest)

    def _answer(self, wanted: Resource[EngineState] | None, entry: Entry | None) -> Answer:
        """The wanted image; where it is not there yet, the one that was applied last is what is there."""
        found = wanted or entry
        assert found is not None, "somebody asked"
        fingerprints = [wanted.desired.fingerprint] if wanted else []
        if entry and entry.applied.get("fingerprint"):
            fingerprints.append(str(entry.applied["fingerprint"]))
        desired = wanted.desired if wanted else EngineState("")
        registry = desired.name.registry if desired.name else registry_of(found.locator)
        try:
            repository = self._open(registry, found.locator["repository"])
            for fingerprint in fingerprints:
                if image := repository.manifest(image_tag(fingerprint)):
                    signed = seen_signed(repository, image.digest, wanted=desired.signed, entry=entry)
                    live = _fingerprint(repository, image)
                    state = replace(desired, fingerprint=live, signed=signed)
                    would_be = replace(desired, signed=True) if outlives(state, desired) else None
                    mark = self._mark(found.address)
                    return Observed(state, mark, digest=image.digest, would_be=would_be)
        except BackendError as problem:
            return Unreadable(problem.message, problem.hint)
        return Absent(Transfer(exact=False))  # what a build weighs is known when it is there

    def _standing(
        self, repository: Repository, build: Build, name: ImageName, entry: Entry | None
    ) -> ImageManifest | None:
        """The image of the inventory's digest; without one, what our tag names. A moved tag is not believed."""
        known = entry and entry.digest and entry.applied.get("fingerprint") == build.fingerprint
        image = repository.manifest(str(entry.digest) if entry and known else name.tag)
        if image is None or _fingerprint(repository, image) != build.fingerprint:
            return None
        return image if is_whole(repository, image) else None

    def _make(
        self,
        where: Address,
        repository: Repository,
        build: Build,
        name: ImageName,
        entry: Entry | None,
        emit: Emit,
    ) -> ImageManifest:
        """The image, all but its tag; of several platforms their index, which names those that stand already."""
        if not build.others:
            image = self._workshop.make(
                where, repository, build, name, emit, lambda: self._standing(repository, build, name, None)
            )
            self._attest(repository, name, build, image)
            return image
        found = _former(repository, entry)
        for part in build.parts:
            image = found.get(part.fingerprint) or self._workshop.make(
                where, repository, part, name, emit, lambda: None, one_of_several=True
            )
            repository.put_manifest(image.digest, image)
            self._attest(repository, name, part, image)
            found[part.fingerprint] = image
        by_platform = {part.engine.platform: found[part.fingerprint] for part in build.parts}
        told = {FINGERPRINT: build.fingerprint, ENGINE: build.engine.key, **of_engine(build.engine)}
        made = index(by_platform, told)
        if self._attestor:
            self._attestor.attest_index(repository, name.registry, made)
        return made

    def _attest(self, repository: Repository, name: ImageName, build: Build, image: ImageManifest) -> None:
        if self._attestor:
            self._attestor.attest_engine(repository, name, build, image)

    def _mark(self, where: Address) -> Mark:
        return replace(self._owner, address=where)


def _is_built(change: Change[EngineState]) -> bool:
    """Not where an image stands that is only adopted, or signed."""
    fields = {diff.path for diff in change.diffs}
    return change.action is not Action.ADOPT and (not fields or fields != {"signed"})


def _former(repository: Repository, entry: Entry | None) -> dict[str, ImageManifest]:
    """Images of single platforms that were applied before and stand, by fingerprint: they are not built again."""
    applied = repository.manifest(str(entry.digest)) if entry and entry.digest else None
    found = images(repository, applied) if applied else ()
    return {
        image.annotations().get(FINGERPRINT, ""): image for _, image in found if is_whole(repository, image)
    }


def _fingerprint(repository: Repository, image: ImageManifest) -> str:
    """From the annotation, or from the label where a Docker engine pushed; "" for somebody else's image."""
    if found := image.annotations().get(FINGERPRINT):
        return found
    try:
        config = repository.blob(contents(image)[0])
    except Corrupt:  # an index, an artifact
        return ""
    return labels(config).get(FINGERPRINT, "") if config else ""
