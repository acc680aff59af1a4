"""A Deployment of others in words of models.yaml: what is told, what is a guess, and what never leaves the cluster."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.views.imported import added
from pipeline.engine.importing import imported
from pipeline.manifest.read import read
from pipeline.targets.describing import describe


def deployment(name: str = "qwen", **container: Any) -> dict[str, Any]:
    """Any: fields of the container, as the API has them."""
    server = {"name": "vllm", "image": "vllm/vllm-openai:v0.9.1", **container}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [server]}}},
    }


@pytest.mark.parametrize(
    ("words", "source"),
    [
        (["--model", "Qwen/Qwen3-8B"], "hf://Qwen/Qwen3-8B"),
        (["--model-id=Qwen/Qwen3-8B"], "hf://Qwen/Qwen3-8B"),
        (["vllm", "serve", "Qwen/Qwen3-8B"], "hf://Qwen/Qwen3-8B"),
        (["sh", "-c", "exec vllm serve Qwen/Qwen3-8B --port 80"], "hf://Qwen/Qwen3-8B"),
        (["--model", "s3://weights/qwen"], "s3://weights/qwen"),
        (["--model", "/mnt/models/qwen"], None),
        (["--port", "8000"], None),
    ],
)
def test_source_is_what_its_arguments_say(words: list[str], source: str | None) -> None:
    found = describe(deployment(args=words))
    assert found is not None
    assert found.source == source
    assert any(remark.startswith("source: ") for remark in found.remarks)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--api-key", "open-sesame"], False),
        (["--hf-token=open-sesame"], False),
        (
            ["--tokenizer", "Qwen/Qwen3-8B", "--max-num-batched-tokens", "4096", "--kv-cache-dtype", "fp8"],
            True,
        ),
    ],
)
def test_arguments_that_may_hold_a_key_are_left_out(words: list[str], kept: bool) -> None:
    found = describe(deployment(args=words))
    assert found is not None
    assert ("args" in found.options["runs"]) is kept
    assert "open-sesame" not in repr(found)


def test_variable_that_may_hold_a_key_is_left_out_and_a_secret_is_named() -> None:
    reference = {"secretKeyRef": {"name": "hub", "key": "token"}}
    env = [
        {"name": "HF_TOKEN", "valueFrom": reference},
        {"name": "OPENAI_API_KEY", "value": "open-sesame"},
        {"name": "STORE", "value": "s3://me:open-sesame@host/b"},
        {"name": "TOKENIZERS_PARALLELISM", "value": "false"},
    ]
    found = describe(deployment(env=env))
    assert found is not None
    assert found.env == {"HF_TOKEN": ("hub", "token"), "TOKENIZERS_PARALLELISM": "false"}
    assert "open-sesame" not in repr(found)


def test_name_that_no_entry_can_have_is_left_out() -> None:
    assert describe(deployment("9.lives")) is None


def test_entries_come_at_the_ends_of_their_sections_and_nothing_else_moves(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "# first\nversion: 1\nproject: acme\nhardware:\n    cpu: {gpus: 0}\n\n# below\ntargets:\n"
        "  prod: {kind: kubernetes, namespace: models}\nmodels:\n"
    )
    document = read(file)
    assert document.manifest is not None
    limits = {"nvidia.com/gpu": "2"}
    one = deployment(args=["--model", "Qwen/Qwen3-8B"], resources={"limits": limits})
    one["spec"]["template"]["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    described = describe(one)
    assert described is not None
    text = added(document.text, imported(document.manifest, "prod", [described]))
    assert text is not None
    assert [line for line in text.splitlines() if line in document.text.splitlines()] == (
        document.text.splitlines()
    )
    file.write_text(text)
    again = read(file).manifest
    assert again is not None
    entry = again.models["qwen"]
    assert again.hardware[entry.hardware or ""].gpus == 2
    assert entry.targets["prod"].manage == "observe"
    assert entry.targets["prod"].runs.args == ("--model", "Qwen/Qwen3-8B")


def test_section_in_braces_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "version: 1\nproject: acme\ntargets: {prod: {kind: kubernetes, namespace: m}}\nmodels: {}\n"
    )
    document = read(file)
    described = describe(deployment())
    assert document.manifest is not None and described is not None
    assert added(document.text, imported(document.manifest, "prod", [described])) is None
