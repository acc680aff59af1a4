"""LoRA adapters and files from elsewhere, served for real: each adapter under its name, beside a model that stays as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts import capability
from tests.parts.adapter import write_adapter
from tests.parts.project import Project, chat

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
PROMPT = "What is mp?"
ANSWER = "mp brings the models in models.yaml to life: it plans first, then applies, then proves each one."
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Weights without a tokenizer, the tokenizer in a folder of its own; what runs is taken down afterwards."""
    for name in ("weights", "words"):
        (tmp_path / name).mkdir()
    for file in CHECKPOINT.iterdir():
        folder = "words" if file.name in TOKENIZER else "weights"
        (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    made = Project(tmp_path, capability.CACHE)
    yield made
    made.mp("destroy", "--all", "--yes")


def manifest(template: str, **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "project": "acme",
        "hardware": {"cpu": {"gpus": 0, "cpu": 2, "memory": "4Gi"}},
        "targets": {"laptop": {"kind": "local"}},
        "models": {
            "tiny": {
                "source": "./weights",
                "template": template,
                "hardware": "cpu",
                "tokenizer": {"source": "./words"},
                "test": [{"prompt": PROMPT, "expect": {"contains": "models.yaml"}}],
                "targets": {"laptop": {}},
                **changes,
            }
        },
    }


@pytest.mark.vllm
def test_adapters_answer_under_their_names_and_the_model_is_as_before(project: Project) -> None:
    write_adapter(project.folder / "same", CHECKPOINT, strength=0.0)
    write_adapter(project.folder / "other", CHECKPOINT)
    adapters = {name: {"source": f"./{name}"} for name in ("same", "other")}
    project.write(manifest("vllm", serve={"max_model_len": 256}, adapters=adapters))
    project.applied()
    url = project.url("tiny", "laptop")
    assert chat(url, "tiny", PROMPT) == ANSWER
    assert chat(url, "same", PROMPT) == ANSWER
    assert chat(url, "other", PROMPT) != ANSWER
    assert project.mp("plan", "--detailed-exitcode").code == 0


@pytest.mark.transformers
def test_tokenizer_from_elsewhere_lies_beside_the_weights(project: Project) -> None:
    project.write(manifest("transformers"))
    project.applied()
    assert chat(project.url("tiny", "laptop"), "tiny", PROMPT) == ANSWER
