"""What every target promises: it expands a model purely, into resources that a driver can compare and delete."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.core.digest import canonical
from pipeline.core.errors import UserError
from pipeline.core.image import Engine, Registry
from pipeline.core.model import Artifact, FileEntry, Hardware, Lifecycle, Model, Secret
from pipeline.core.protocols import Place, Target
from pipeline.core.resource import Resource, fields_of
from pipeline.core.settings import default_docker_host
from pipeline.manifest.spec import Manifest
from pipeline.resources.cache.store import Cache
from pipeline.targets import KINDS
from pipeline.targets.docker import DockerTarget
from pipeline.templates import TEMPLATES
from tests.parts.stated import require_possible

SPECS: Mapping[str, Mapping[str, Any]] = {
    "local": {"kind": "local"},
    "docker": {"kind": "docker"},
    "kaito": {"kind": "kaito", "namespace": "models"},
    "kubernetes": {"kind": "kubernetes", "namespace": "models"},
    "registry": {"kind": "registry", "publish": ["model", "weights"]},
}
MAIN = Registry("main", url="127.0.0.1:5000/acme")
HERE = Registry("here", layout="/srv/layouts")
HASH = "a" * 64


def a_model(name: str = "qwen", **changed: Any) -> Model:
    engine = Engine(
        "transformers",
        "5.19.0",
        "cpu",
        "linux/amd64",
        "3.11",
        "debian",
        f"sha256:{HASH}",
        "https://pypi.org/simple",
        (),
    )
    artifact = Artifact("file:///m", "", f"sha256-{HASH}", (FileEntry("model.safetensors", 9, HASH),))
    hardware = Hardware("cpu", 0, cpus=2, memory_bytes=2**31, instance_type="Standard_D4s_v5")
    return Model(name, artifact, hardware, "transformers", engine, **changed)


def expand(
    kind: str,
    model: Model | None = None,
    registry: Registry = MAIN,
    environment: str = "default",
    spec: Mapping[str, Any] | None = None,
    target: Target | None = None,
    **options: object,
) -> list[Resource[Any]]:
    model = model or a_model()
    read: BaseModel = KINDS[kind].spec.model_validate({**SPECS[kind], **(spec or {})})
    place = Place("spot", read, KINDS[kind].options.model_validate(options), registry, "acme", environment)
    chosen = target or KINDS[kind].target
    require_possible(chosen, place, model)
    template = TEMPLATES[model.template]
    launch = template.launch(model, template.variant(None, model.hardware))
    build = template.build(model.engine)
    return list(chosen.expand(place, model, build, launch))


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_schema_and_table_know_the_same_kinds() -> None:
    (schema,) = Manifest.model_json_schema()["properties"]["targets"]["patternProperties"].values()
    assert set(schema["discriminator"]["mapping"]) == set(KINDS) == set(SPECS)


def test_unknown_keys_are_refused_in_spec_and_options(kind: str) -> None:
    with pytest.raises(ValidationError):
        KINDS[kind].spec.model_validate({**SPECS[kind], "prot": 1})
    with pytest.raises(ValidationError):
        KINDS[kind].options.model_validate({"prot": 1})


def test_every_field_that_a_user_may_write_is_described(kind: str) -> None:
    spec = KINDS[kind].spec.model_json_schema()
    named = {**KINDS[kind].options.model_json_schema().get("properties", {})}
    for each in (spec, *spec.get("$defs", {}).values()):
        named |= {key: value for key, value in each["properties"].items() if key != "kind"}
    assert [key for key, value in named.items() if not value.get("description")] == []


def test_expanding_twice_gives_equal_states_and_distinct_addresses(kind: str) -> None:
    first, second = expand(kind), expand(kind)
    assert [fields_of(r.desired) for r in first] == [fields_of(r.desired) for r in second]
    addresses = [r.address for r in first]
    assert addresses == [r.address for r in second]
    assert len(set(addresses)) == len(addresses) > 0


def test_states_are_json_and_survive_it(kind: str) -> None:
    for resource in expand(kind):
        state = fields_of(resource.desired)
        assert json.loads(canonical(state)) == state


def test_addresses_belong_to_the_model_and_locators_are_whole(kind: str) -> None:
    for resource in expand(kind):
        assert resource.address.startswith("qwen/")
        assert all(isinstance(value, str) for value in resource.locator.values())
        assert resource.locator


def test_other_weights_change_the_state(kind: str) -> None:
    other = Artifact("file:///m", "", "sha256-b", (FileEntry("model.safetensors", 9, "b" * 64),))
    before, after = expand(kind), expand(kind, replace(a_model(), artifact=other))
    assert [r.address for r in before] == [r.address for r in after]
    assert all(fields_of(a.desired) != fields_of(b.desired) for a, b in zip(before, after, strict=True))


def test_secret_names_are_compared_and_their_variables_are_not_values(kind: str) -> None:
    model = a_model(secret_env={"HF_TOKEN": Secret("hub", "MY_HUB_TOKEN", kubernetes=("hf", "token"))})
    for resource in expand(kind, model):
        assert "MY_HUB_TOKEN" not in canonical(fields_of(resource.desired)).decode()


def test_protection_and_removal_travel_with_deployments() -> None:
    model = a_model(lifecycle=Lifecycle(protect=True, on_remove="forget"))
    for kind in ("local", "docker", "kubernetes"):
        assert [r.lifecycle for r in expand(kind, model)] == [model.lifecycle]


def test_hardware_change_within_a_variant_changes_the_container_and_not_its_image() -> None:
    small = a_model()
    large = replace(small, hardware=Hardware("cpu-large", 0, cpus=4, memory_bytes=2**33))
    before, after = expand("docker", small)[0].desired, expand("docker", large)[0].desired
    assert (before.image, before.content) == (after.image, after.content)
    assert (before.memory_bytes, after.memory_bytes) == (2**31, 2**33)
    here, there = expand("local", small)[0].desired, expand("local", large)[0].desired
    assert (here.environment, here.runtime, here.content) == (there.environment, there.runtime, there.content)


def test_mounted_weights_need_the_engine_image_and_baked_ones_the_model_image() -> None:
    mounted, baked = expand("docker")[0], expand("docker", weights="baked")[0]
    assert mounted.needs == ("qwen/artifact", "@engine/transformers-5.19.0-cpu:main")
    assert baked.needs == ("qwen/image:main",)
    assert (mounted.desired.weights, baked.desired.weights, baked.desired.content) == ("mount", "baked", "")
    assert mounted.desired.image != baked.desired.image


def test_local_process_needs_the_weights_and_an_environment_and_no_image() -> None:
    assert expand("local")[0].needs == ("qwen/artifact", "@environment/transformers-5.19.0-cpu")


@pytest.mark.parametrize(
    ("spec", "options", "registry", "summary"),
    [
        (
            {},
            {"weights": "baked"},
            HERE,
            'qwen: a Docker engine cannot pull "here", which is a layout folder',
        ),
        (
            {"host": "ssh://gpu1"},
            {"bind": "10.0.0.1"},
            MAIN,
            'qwen: weights: mount needs a Docker engine on this machine, not "ssh://gpu1"',
        ),
        (
            {"host": "tcp://10.0.0.7:2376"},
            {"weights": "baked"},
            MAIN,
            'qwen: port bound to 127.0.0.1 of "tcp://10.0.0.7:2376" cannot be reached from here',
        ),
    ],
)
def test_what_a_docker_engine_cannot_do_is_the_users_error(
    spec: Mapping[str, Any], options: Mapping[str, Any], registry: Registry, summary: str
) -> None:
    with pytest.raises(UserError) as refused:
        expand("docker", registry=registry, spec=spec, **options)
    assert [d.summary for d in refused.value.diagnostics] == [summary]
    assert all(d.hint for d in refused.value.diagnostics)


def test_docker_host_of_the_environment_is_a_host_like_one_that_is_named() -> None:
    far = DockerTarget(default_docker_host({"DOCKER_HOST": "tcp://10.0.0.7:2376"}))
    with pytest.raises(UserError) as refused:
        expand("docker", target=far, bind="10.0.0.7")
    assert [d.summary for d in refused.value.diagnostics] == [
        'qwen: weights: mount needs a Docker engine on this machine, not "tcp://10.0.0.7:2376"'
    ]
    baked = expand("docker", target=far, weights="baked", bind="10.0.0.7")[0]
    assert baked.locator["host"] == "tcp://10.0.0.7:2376"
    named = expand("docker", target=far, spec={"host": "unix:///run/other.sock"})[0]
    assert named.locator["host"] == "unix:///run/other.sock"


@pytest.mark.parametrize(
    ("variable", "host"),
    [
        ({}, "unix:///var/run/docker.sock"),
        ({"DOCKER_HOST": ""}, "unix:///var/run/docker.sock"),
        ({"DOCKER_HOST": "ssh://gpu1"}, "ssh://gpu1"),
        ({"DOCKER_HOST": "127.0.0.1:2375"}, "tcp://127.0.0.1:2375"),
    ],
)
def test_engine_that_nobody_names_is_written_down_by_its_address(
    variable: Mapping[str, str], host: str
) -> None:
    there = DockerTarget(default_docker_host(variable))
    assert expand("docker", target=there, weights="baked", bind="10.0.0.7")[0].locator["host"] == host


def test_environments_do_not_share_deployments() -> None:
    for kind in ("local", "docker", "kubernetes"):
        here, there = expand(kind)[0], expand(kind, environment="staging")[0]
        assert here.locator["name"] != there.locator["name"]


def test_registry_target_publishes_what_is_asked_for() -> None:
    both = [r.address for r in expand("registry")]
    assert both == ["qwen/image:main", "qwen/weights:main"]
    assert [r.address for r in expand("registry", spec={"publish": ["weights"]})] == ["qwen/weights:main"]
    (packed,) = expand("registry", spec={"publish": ["modelpack"]})
    assert (packed.address, packed.locator["repository"]) == ("qwen/modelpack:main", "qwen.modelpack")


def test_state_of_mounted_weights_is_the_name_of_the_caches_view() -> None:
    model = a_model()
    view = Cache(Path("/c")).view_path(model.files, model.overlays)
    assert expand("docker")[0].desired.content == expand("local")[0].desired.content == view.name
