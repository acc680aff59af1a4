"""vLLM on CPU, started for real through runtime/vllm: the same greedy text as from our own server."""

import pytest

from tests.runtime.served import Served

pytestmark = [pytest.mark.vllm, pytest.mark.transformers, pytest.mark.slow]

QUESTIONS = ("What is mp?", "Hello", "What is a plan?", "Who are you?", "2+2=", "Is the sea deep?")
PROMPTS = ("The quick", "A plan is a promise", "Names are", "mp")


@pytest.mark.parametrize("question", QUESTIONS)
def test_chat_is_the_same_text_from_both_engines(tiny: Served, tiny_vllm: Served, question: str) -> None:
    answer = tiny_vllm.chat(question)
    assert answer
    assert answer == tiny.chat(question)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_completion_is_the_same_text_from_both_engines(tiny: Served, tiny_vllm: Served, prompt: str) -> None:
    answer = tiny_vllm.complete(prompt)
    assert answer
    assert answer == tiny.complete(prompt)


def test_launch_reaches_the_engine(tiny_vllm: Served) -> None:
    status, listed = tiny_vllm.ask("/v1/models")
    assert status == 200
    assert [(card["id"], card["max_model_len"]) for card in listed["data"]] == [("tiny", 256)]
    assert tiny_vllm.ask("/v1/models", key="wrong")[0] == 401
    assert "s3cret" not in tiny_vllm.log.read_text()
