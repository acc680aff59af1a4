"""What the manifest says of one model, put together: its hardware, registry, secrets, sources. Pure; used by impossible, engine and wiring."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.image import Registry
from pipeline.core.model import WEIGHTS, Hardware, Lifecycle, Secret, Stated
from pipeline.core.reference import parse
from pipeline.manifest.spec import Manifest, ModelSpec

OWN_REGISTRY = "here"  # a layout below .mp, where none is declared


def stated(manifest: Manifest, name: str, root: Path) -> Stated:
    """One entry whose template and hardware are known; paths are relative to `root`."""
    spec, template = manifest.models[name], template_of(manifest, name)
    key = spec.serve.api_key
    return Stated(
        name=name,
        hardware=hardware_of(manifest, name),
        template=template,
        sources=dict(_sources(spec, root, manifest.aliases)),
        engine_version=engine_version_of(manifest, name),
        cached=spec.cache == "keep",
        chat_template=spec.chat is not None,
        args=spec.serve.args,
        env=text_env(spec),
        secret_env=secret_env(manifest, spec),
        api_key=secret_of(manifest, key.secret) if key else None,
        lifecycle=lifecycle_of(spec),
    )


def template_of(manifest: Manifest, name: str) -> str:
    """How it is served; "" of an entry whose server others made."""
    return manifest.models[name].template or manifest.defaults.template or ""


def engine_version_of(manifest: Manifest, name: str) -> str | None:
    """The entry's own, else the one of `engines:` for its template; None where nobody says one."""
    own, shared = manifest.models[name].engine, manifest.engines.get(template_of(manifest, name))
    return (own.version if own else None) or (shared.version if shared else None)


def hardware_of(manifest: Manifest, name: str) -> Hardware:
    key = manifest.models[name].hardware or manifest.defaults.hardware
    if key is None:
        return Hardware("cpu", 0)
    spec = manifest.hardware[key]
    return Hardware(
        name=key,
        gpus=spec.gpus,
        gpu=spec.gpu,
        gpu_memory_gib=spec.gpu_memory_gib,
        cpus=spec.cpu,
        memory_bytes=spec.memory_bytes,
        nodes=spec.nodes,
        instance_type=spec.instance_type,
    )


def text_env(spec: ModelSpec) -> dict[str, str]:
    """Environment variables whose values are written down."""
    return {key: value for key, value in spec.env.items() if isinstance(value, str)}


def secret_env(manifest: Manifest, spec: ModelSpec) -> dict[str, Secret]:
    """Environment variables whose values are secrets."""
    return {k: secret_of(manifest, v.secret) for k, v in spec.env.items() if not isinstance(v, str)}


def lifecycle_of(spec: ModelSpec) -> Lifecycle:
    said = spec.lifecycle
    return Lifecycle(said.protect, said.on_remove, said.ignore_drift)


def secret_of(manifest: Manifest, name: str) -> Secret:
    declared = manifest.secrets[name]
    there = declared.kubernetes
    place = (there.name, there.key) if there else None
    return Secret(name, declared.env, declared.file, place, restarts=declared.on_rotate == "restart")


def declared_registries(manifest: Manifest, root: Path) -> dict[str, Registry]:
    """The registries of a manifest; folders and files are relative to the manifest's folder."""

    def absolute(path: str | None) -> str | None:
        return str((root / path).absolute()) if path else None

    return {
        name: Registry(
            name,
            spec.url,
            absolute(spec.layout),
            spec.insecure,
            absolute(spec.ca),
            spec.mirrors,
            spec.max_layer_bytes,
            spec.max_request_bytes,
            "" if spec.compression == "none" else spec.compression,
            signed=manifest.sign is not None and spec.url is not None,
        )
        for name, spec in manifest.registries.items()
    }


def registry_name(manifest: Manifest, target: Any) -> str:
    """The name of the registry that a target's images are in; it is part of their addresses."""
    named: str | None = getattr(target, "registry", None) or manifest.defaults.registry
    if named is None and len(manifest.registries) == 1:
        return next(iter(manifest.registries))
    return named or OWN_REGISTRY


def registry_of(manifest: Manifest, target: Any, known: Mapping[str, Registry], state: Path) -> Registry:
    """The registry a target (of any kind) names, else the default, else the only one, else a layout in the folder `.mp`."""
    name = registry_name(manifest, target)
    if name == OWN_REGISTRY and name not in known:
        return Registry(name, layout=str(state / "registry"))
    return known[name]


def stands(options: Any) -> bool:
    """Whether others made what runs there; Any: each kind of target has options of its own."""
    return bool(getattr(options, "stands", False))


def stands_everywhere(spec: ModelSpec) -> bool:
    """Nothing is made of it."""
    return bool(spec.targets) and all(map(stands, spec.targets.values()))


def _sources(spec: ModelSpec, root: Path, aliases: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Canonical references by role; those that cannot be read are reported where they are read."""
    parts = {"tokenizer": spec.tokenizer, "config": spec.config}
    parts |= {f"adapters.{name}": part for name, part in spec.adapters.items()}
    written = {WEIGHTS: spec.source, **{role: part.source for role, part in parts.items() if part}}
    for role, source in written.items():
        try:
            yield role, parse(source, root, aliases).source if source else ""
        except UserError:
            yield role, ""
