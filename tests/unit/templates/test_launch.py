"""launch.json: what templates/launch writes, runtime/launch reads. Nowhere else do the two trees meet."""

import json
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest

from pipeline.core.digest import Json
from pipeline.core.image import Launch
from pipeline.templates.files import runtime_files, runtime_root
from pipeline.templates.launch import document, launch_schema
from runtime import launch as runtime_launch

LAUNCH = Launch("vllm", "tiny", ("--dtype=float32",), {"B": "2", "A": "1"}, {"KEY": "api-key"})


def written(secret_file: str = "/run/secrets/KEY") -> dict[str, Json]:
    return document(LAUNCH, model="/models", host="0.0.0.0", port=8000, secrets={"KEY": secret_file})


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "launch.json"
    file.write_text(json.dumps(written()))
    read = runtime_launch.read([str(file)], {}, "vllm")
    assert vars(read) == {k: v for k, v in written().items() if k != "format_version"} | {
        "argv": ("--dtype=float32",)
    }


def test_the_text_may_come_in_a_variable() -> None:
    assert runtime_launch.read([], {"MP_LAUNCH": json.dumps(written())}, "vllm").served_name == "tiny"


def test_the_engine_gets_the_environment_of_the_launch_and_secrets_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    read = runtime_launch.read([], {"MP_LAUNCH": json.dumps(written(str(tmp_path / "key")))}, "vllm")
    environment = runtime_launch.environment(read, {"PATH": "/bin", "A": "0"})
    assert environment == {"PATH": "/bin", "A": "1", "B": "2", "KEY": "s3cret"}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "no launch"),
        ({"MP_LAUNCH": "{"}, "MP_LAUNCH is no launch document"),
        ({"MP_LAUNCH": "[]"}, "MP_LAUNCH is no launch document"),
        ({"MP_LAUNCH": json.dumps(written() | {"format_version": 2})}, "format_version 2 is not 1"),
        ({"MP_LAUNCH": json.dumps(written() | {"template": "other"})}, 'template is "other"'),
    ],
)
def test_a_launch_that_cannot_be_used_ends_the_process_with_a_reason(
    environ: Mapping[str, str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        runtime_launch.read([], environ, "vllm")


def test_a_secret_without_its_file_is_refused() -> None:
    with pytest.raises(ValueError, match="KEY"):
        document(LAUNCH, model="/models", host="0.0.0.0", port=8000, secrets={})


def test_the_schema_refuses_what_it_does_not_know() -> None:
    jsonschema.Draft202012Validator.check_schema(launch_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written() | {"tenant": "x"}, launch_schema())


def test_runtime_files_are_of_one_template_and_shared() -> None:
    paths = [path for path, _ in runtime_files("vllm")]
    assert paths == ["launch.py", "vllm/Dockerfile", "vllm/serve.py"]
    assert (runtime_root() / "vllm" / "serve.py").is_file()


@pytest.mark.parametrize("template", ["vllm", "transformers"])
def test_dockerfiles_need_neither_a_newer_builder_nor_a_network(template: str) -> None:
    text = (runtime_root() / template / "Dockerfile").read_text()
    assert "syntax=" not in text
    assert "RUN" not in text
    assert "USER 10001:10001" in text
