"""KAITO's old API on our server, started for real: its answers, its limits, its errors, beside OpenAI's routes."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.templates import TEMPLATES
from tests.runtime.served import Served, served
from tests.runtime.test_transformers import FOX, LONG, MP, USER, numbers, under_way

pytestmark = pytest.mark.transformers

GREEDY = {"temperature": 0, "max_gen_len": 32}


@pytest.fixture(scope="module")
def old(transformers_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Our server with both faces, which asks for an API key."""
    folder = tmp_path_factory.mktemp("old")
    faces = TEMPLATES["transformers"].faces()
    with served("transformers", transformers_python, folder, api_key="s3cret", faces=faces) as started:
        yield started


def generate(server: Served, *prompts: str, **parameters: object) -> tuple[int, Any]:
    return server.ask("/generate", {"prompts": prompts, "parameters": {**GREEDY, **parameters}})


def chat(server: Served, *dialogs: object, **parameters: object) -> tuple[int, Any]:
    body = {"input_data": {"input_string": dialogs}, "parameters": {**GREEDY, **parameters}}
    return server.ask("/chat", body)


def test_each_prompt_is_answered_with_the_text_of_openais_face(old: Served) -> None:
    prompts = ["The quick", "A plan is", "mp"]
    status, answer = generate(old, *prompts)
    assert status == 200
    assert answer == {"results": [{"prompt": prompt, "response": old.complete(prompt)} for prompt in prompts]}
    assert answer["results"][0]["response"] == FOX


def test_each_dialog_is_answered_as_its_last_turn(old: Served) -> None:
    earlier = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! Ask me what mp is."},
        *USER,
    ]
    status, answer = chat(old, USER, earlier, max_gen_len=48)
    assert status == 200
    first, second = answer["results"]
    assert first == [
        {"role": "User", "content": "What is mp?"},
        {"role": "Assistant", "content": old.chat("What is mp?")},
    ]
    assert [turn["role"] for turn in second] == ["System", "User", "Assistant", "User", "Assistant"]
    assert second[-1]["content"] == MP


def test_without_a_length_as_much_is_answered_as_fits(old: Served) -> None:
    prompt = LONG["prompt"]  # its answer has no end
    status, answer = old.ask(
        "/generate", {"prompts": [prompt], "parameters": {"temperature": 0, "max_seq_len": 40}}
    )
    _, whole = old.ask("/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 1})
    room = 40 - whole["usage"]["prompt_tokens"]
    assert status == 200
    assert answer["results"][0]["response"] == old.complete(prompt, max_tokens=room)


def test_prompt_and_answer_fit_into_the_context_or_are_refused_each_by_number(old: Served) -> None:
    status, answer = generate(old, "mp", "fox " * 600, "The quick", "fox " * 700)
    assert status == 400
    assert answer["detail"].startswith("prompt 2: the context is 512 tokens")
    assert "; prompt 4: the context is 512 tokens" in answer["detail"]
    status, answer = generate(old, "The quick", max_seq_len=16, max_gen_len=16)
    assert status == 400
    assert "the context is 16 tokens" in answer["detail"]


def test_wrong_bodies_are_answered_as_fastapi_does(old: Served) -> None:
    status, answer = generate(old, top_p=7, mirostat=2)
    assert status == 422
    assert {tuple(one["loc"]) for one in answer["detail"]} == {
        ("body", "parameters", "top_p"),
        ("body", "parameters", "mirostat"),
    }
    assert old.ask("/generate", b"{")[0] == 422
    assert generate(old) == (400, {"detail": "0 prompts: 1 to 32 are answered at once"})
    assert chat(old, [{"role": "user", "content": 3}])[0] == 422
    assert "Traceback" not in old.log.read_text()


def test_the_key_protects_the_faces_and_only_post_is_answered(old: Served) -> None:
    for path in ("/generate", "/chat"):
        assert old.ask(path, {}, key="wrong") == (401, {"detail": "the API key is missing or wrong"})
        assert old.ask(path) == (405, {"detail": "only POST is answered here"})


def test_they_are_counted_by_their_path(old: Served) -> None:
    counted = 'mp_requests_total{model="tiny",path="/generate",status="200"}'
    before = numbers(old).get(counted, 0)
    generate(old, "The quick")
    assert numbers(old)[counted] == before + 1


def test_a_client_that_leaves_stops_its_answer(old: Served) -> None:
    before = numbers(old)["mp_generation_tokens_total"]
    body = json.dumps({"prompts": [LONG["prompt"]] * 8, "parameters": {"temperature": 0}}).encode()
    head = (
        f"POST /generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, _, port = old.endpoint.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        while not numbers(old)["mp_requests_running"]:
            time.sleep(0.01)
    while under_way(old):
        time.sleep(0.05)
    assert 0 < numbers(old)["mp_generation_tokens_total"] - before < 1500


def test_without_a_face_there_is_no_such_path(tiny: Served) -> None:
    status, answer = generate(tiny, "The quick")
    assert (status, answer["error"]["message"]) == (404, "Not Found")
    assert chat(tiny, USER)[0] == 404
