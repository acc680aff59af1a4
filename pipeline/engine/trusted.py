"""What `verify:` and `sign:` say of a plan: sources that are not signed as they must be, images that cannot be signed here."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from os.path import normpath
from pathlib import Path
from typing import Any

from pipeline.clients.cosign import Authority, Cosign
from pipeline.core.change import Change
from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.core.errors import MpError, Refused
from pipeline.core.model import Artifact
from pipeline.core.resource import place_of
from pipeline.engine.parts import Key, label
from pipeline.engine.place import registries_of
from pipeline.engine.world import World
from pipeline.manifest.stated import secret_of
from pipeline.manifest.trust import SERVICE, SourceRuleSpec
from pipeline.resources.cache.store import Cache
from pipeline.resources.image.trust.signing import can_sign
from pipeline.resources.image.trust.verify import ModelSigner, Trusted, Verifier

CHECKS = 8  # signatures at once
IMAGES = ("image", "engine")  # kinds of resources that are signed


def untrusted(
    world: World, models: Mapping[str, Mapping[str, Artifact]]
) -> tuple[tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """Refusals for sources that break a rule, and errors for those of which it cannot be told."""
    asked = [
        (index, (name, role), artifact)
        for index, rule in enumerate(world.manifest.verify.sources)
        for name, parts in models.items()
        for role, artifact in parts.items()
        if _fits(world, rule.match, artifact.source)
    ]
    if not asked:
        return (), ()
    settings = world.settings
    cosign = Cosign(settings.environ)
    registries = registries_of(world).values()
    verifier = Verifier(Cache(settings.cache), world.sources, cosign, registries, offline=settings.offline)

    def check(one: tuple[int, Key, Artifact]) -> tuple[bool, Diagnostic] | None:
        index, key, artifact = one
        try:
            verifier.require(artifact, _trusted(world, world.manifest.verify.sources[index]))
        except MpError as problem:
            refused = isinstance(problem, Refused)
            summary = f"{label(key)}: {artifact.source}: {problem.message}"
            where = world.document.where("verify", "sources", index)
            return refused, error(summary, where, problem.hint, key[0])
        return None

    with ThreadPoolExecutor(min(CHECKS, len(asked)), "verify") as pool:
        found = [each for each in pool.map(check, asked) if each is not None]
    return tuple(d for refused, d in found if refused), tuple(d for refused, d in found if not refused)


def unsignable(world: World, changes: Iterable[Change[Any]]) -> tuple[Diagnostic, ...]:
    """Why the images of a plan could not be signed here; nothing where none is made."""
    sign = world.manifest.sign
    made = {place_of(c.address) for c in changes if c.kind in IMAGES and c.resource is not None}
    return tuple(_unsignable(world, made)) if sign and made else ()


def _unsignable(world: World, registries: set[str | None]) -> Iterator[Diagnostic]:
    assert world.manifest.sign is not None, "somebody asked"
    cosign, where = world.manifest.sign.cosign, world.document.where("sign")
    known = registries_of(world)
    folders = sorted(str(name) for name in registries if name not in known or not can_sign(known[str(name)]))
    for name in folders:
        yield warning(
            f'images in "{name}" are not signed: it is a folder, and cosign signs in registries', where
        )
    if len(folders) == len(registries):
        return
    try:
        Cosign(world.settings.environ).require()
    except MpError as problem:
        yield error(problem.message, where, problem.hint)
    for reference in filter(None, (cosign.key, cosign.password)):
        try:
            world.settings.text(secret_of(world.manifest, reference.secret))
        except MpError as problem:
            yield warning(f"images cannot be signed here: {problem.message}", where, problem.hint)


def _trusted(world: World, rule: SourceRuleSpec) -> Trusted:
    root = world.settings.root
    if rule.cosign is not None:
        key = rule.cosign.key
        if key is not None and SERVICE not in key:
            key = str(root / key)
        return Authority(key, rule.cosign.identity, rule.cosign.issuer, rule.cosign.transparency_log)
    assert rule.model_signing is not None, "a rule has one of the two"
    own = rule.model_signing
    return ModelSigner(root / own.key if own.key else None, tuple(root / name for name in own.certificates))


def _fits(world: World, pattern: str, source: str) -> bool:
    """A glob over canonical references; one over paths begins like a path."""
    if pattern.startswith((".", "/", "~")):
        pattern = f"file://{normpath(world.settings.root / Path(pattern).expanduser())}"
    return fnmatchcase(source, pattern)
