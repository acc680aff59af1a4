"""Real engines with the quickstart's checkpoint, each started once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.served import Served, served


@pytest.fixture(scope="session")
def tiny(transformers_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Our server, open to all."""
    with served("transformers", transformers_python, tmp_path_factory.mktemp("tiny")) as started:
        yield started


@pytest.fixture(scope="session")
def tiny_vllm(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """vLLM, which asks for an API key."""
    folder = tmp_path_factory.mktemp("tiny-vllm")
    with served("vllm", vllm_python, folder, api_key="s3cret", max_model_len=256) as started:
        yield started
