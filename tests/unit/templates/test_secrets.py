"""Names of secrets, by the variable that a server reads; never their values."""

import pytest

from pipeline.core.model import Artifact, Model, Secret
from pipeline.templates.secrets import secrets
from tests.fakes.engine import CPU, ENGINE

TOKEN, KEY = Secret("hub", "HOST_TOKEN"), Secret("key", "HOST_KEY")


@pytest.mark.parametrize(
    ("secret_env", "api_key", "named"),
    [
        ({}, None, {}),
        ({"HF_TOKEN": TOKEN}, None, {"HF_TOKEN": "hub"}),
        ({}, KEY, {"VLLM_API_KEY": "key"}),
        ({"HF_TOKEN": TOKEN, "VLLM_API_KEY": TOKEN}, KEY, {"HF_TOKEN": "hub", "VLLM_API_KEY": "key"}),
    ],
)
def test_secrets_are_named_by_variable(
    secret_env: dict[str, Secret], api_key: Secret | None, named: dict[str, str]
) -> None:
    artifact = Artifact("hf://acme/tiny", "main", "0" * 40, ())
    model = Model("tiny", artifact, CPU, "vllm", ENGINE, secret_env=secret_env, api_key=api_key)

    assert secrets(model, "VLLM_API_KEY") == named
