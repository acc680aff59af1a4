"""Our server, started for real: OpenAI's routes, errors, health, metrics, key, and how it stops."""

import contextlib
import json
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.openai import ask
from pipeline.core.model import Question
from pipeline.templates.files import runtime_files, runtime_root
from tests.runtime.served import Served, served

pytestmark = pytest.mark.transformers

MP = "mp brings the models in models.yaml to life: it plans first, then applies, then proves each one."
FOX = " brown fox jumps over the lazy dog."
# the model answers padding with padding, and never ends
LONG: dict[str, Any] = {"prompt": "<pad>" * 4, "temperature": 0, "max_tokens": 500, "stream": True}
USER = [{"role": "user", "content": "What is mp?"}]


def test_chat_answers_with_usage(tiny: Served) -> None:
    status, answer = tiny.ask("/v1/chat/completions", {"model": "tiny", "messages": USER, "temperature": 0})
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": MP}
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_products_own_proof_accepts_it(tiny: Served) -> None:
    proof = ask(tiny.endpoint, "tiny", Question("What is mp?", "models.yaml"), None, 30)
    assert MP.startswith(proof.answer)


def test_a_system_message_and_an_earlier_turn_are_read(tiny: Served) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hello! Ask me what mp is."},
        *USER,
    ]
    _, answer = tiny.ask("/v1/chat/completions", {"messages": messages, "temperature": 0})
    assert answer["choices"][0]["message"]["content"] == MP


def test_completion_continues_a_text_and_sixteen_tokens_are_the_default(tiny: Served) -> None:
    assert tiny.complete("The quick") == FOX
    _, answer = tiny.ask("/v1/completions", {"prompt": "A plan is", "temperature": 0})
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_token_ids_are_a_prompt(tiny: Served) -> None:
    _, first = tiny.ask("/v1/completions", {"prompt": [261, 262], "max_tokens": 1, "temperature": 0})
    assert first["usage"]["prompt_tokens"] == 2
    status, refused = tiny.ask("/v1/completions", {"prompt": [100000]})
    assert (status, refused["error"]["param"]) == (400, "prompt")


def test_max_tokens_cuts_the_answer(tiny: Served) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        _, answer = tiny.ask("/v1/chat/completions", {"messages": USER, "temperature": 0, name: 4})
        assert answer["usage"]["completion_tokens"] == 4
        assert answer["choices"][0]["finish_reason"] == "length"
        assert MP.startswith(answer["choices"][0]["message"]["content"])


def test_stop_texts_end_the_answer_and_are_left_out(tiny: Served) -> None:
    assert tiny.complete("The quick", stop="lazy") == " brown fox jumps over the "
    assert tiny.complete("The quick", stop=["dog", "x ju"]) == " brown fo"
    _, answer = tiny.ask("/v1/completions", {"prompt": "The quick", "temperature": 0, "stop": ["over"]})
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_seed_repeats_a_sample(tiny: Served) -> None:
    body = {"prompt": "x", "temperature": 2.0, "seed": 7, "max_tokens": 24}
    first, again, other = (
        tiny.ask("/v1/completions", {**body, **more})[1]["choices"][0]["text"]
        for more in ({}, {}, {"seed": 8})
    )
    assert first == again != other


def test_a_small_top_p_is_greedy(tiny: Served) -> None:
    assert tiny.chat("What is mp?", temperature=1.0, top_p=0.01) == MP


def test_chat_streams_role_text_reason_and_usage(tiny: Served) -> None:
    body = {"messages": USER, "temperature": 0, "stream_options": {"include_usage": True}}
    events = tiny.events("/v1/chat/completions", body)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(pieces) == MP
    assert len([piece for piece in pieces if piece]) > 10
    assert events[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] > 10


def test_completion_streams_the_same_text(tiny: Served) -> None:
    events = tiny.events("/v1/completions", {"prompt": "The quick", "temperature": 0, "max_tokens": 32})
    assert "".join(event["choices"][0]["text"] for event in events) == FOX
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_model_is_listed_under_its_served_name(tiny: Served) -> None:
    _, listed = tiny.ask("/v1/models")
    assert [(card["id"], card["max_model_len"]) for card in listed["data"]] == [("tiny", 512)]
    assert tiny.ask("/v1/models/tiny")[1] == listed["data"][0]


def test_another_model_is_not_found(tiny: Served) -> None:
    for path, body in (("/v1/chat/completions", {"messages": USER}), ("/v1/completions", {"prompt": "x"})):
        status, answer = tiny.ask(path, {"model": "gpt-4", **body})
        assert status == 404
        assert answer["error"]["code"] == "model_not_found"
    assert tiny.ask("/v1/models/gpt-4")[0] == 404


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"messages": USER, "temprature": 1}, "temprature"),
        ({"messages": USER, "n": 2}, "n"),
        ({"messages": USER, "temperature": 3}, "temperature"),
        ({"messages": USER, "max_tokens": 0}, "max_tokens"),
        ({"messages": USER, "max_tokens": True}, "max_tokens"),
        ({"messages": USER, "top_p": 0}, "top_p"),
        ({"messages": USER, "stop": [""]}, "stop"),
        ({"messages": USER, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": USER, "stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({}, "messages"),
        ([], None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
    ],
)
def test_what_is_malformed_or_not_supported_is_refused_by_name(
    tiny: Served, body: object, parameter: str | None
) -> None:
    status, answer = tiny.ask("/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["param"] == parameter
    assert answer["error"]["type"] == "invalid_request_error"


def test_neutral_values_of_unsupported_fields_are_accepted(tiny: Served) -> None:
    neutral: dict[str, Any] = {"presence_penalty": 0, "logprobs": False, "logit_bias": None, "user": "me"}
    assert tiny.chat("What is mp?", **neutral) == MP


@pytest.mark.parametrize(("words", "max_tokens"), [(600, 1), (10, 510)])
def test_what_does_not_fit_into_the_context_is_refused(tiny: Served, words: int, max_tokens: int) -> None:
    body = {"prompt": "fox " * words, "max_tokens": max_tokens}
    status, answer = tiny.ask("/v1/completions", body)
    assert status == 400
    assert answer["error"]["code"] == "context_length_exceeded"
    assert "512 tokens" in answer["error"]["message"]


def test_unknown_paths_and_methods_are_json_errors(tiny: Served) -> None:
    assert tiny.ask("/v1/embeddings", {})[0] == 404
    status, answer = tiny.ask("/v1/chat/completions")
    assert (status, answer["error"]["message"]) == (405, "Method Not Allowed")


def numbers(server: Served) -> dict[str, float]:
    """The metrics without their label of the model."""
    _, text = server.text("/metrics")
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name.replace('{model="tiny"}', ""): float(value) for name, _, value in lines}


def under_way(server: Served) -> float:
    now = numbers(server)
    return now["mp_requests_running"] + now["mp_requests_waiting"]


def test_metrics_count_requests_and_tokens(tiny: Served) -> None:
    before = numbers(tiny)
    tiny.complete("The quick", max_tokens=8)
    after = numbers(tiny)
    asked = 'mp_requests_total{model="tiny",path="/v1/completions",status="200"}'
    assert after[asked] == before.get(asked, 0) + 1
    assert after["mp_generation_tokens_total"] == before["mp_generation_tokens_total"] + 8
    assert after["mp_requests_running"] == 0
    assert after["mp_request_duration_seconds_count"] == before["mp_request_duration_seconds_count"] + 1


def test_health_and_metrics_answer_during_long_answers(tiny: Served) -> None:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(tiny.open("/v1/completions", LONG)) for _ in range(2)]
        assert tiny.ask("/health")[0] == 200
        assert under_way(tiny) >= 1, "they waited for the answers"
        assert all(stream.read().endswith(b"data: [DONE]\n\n") for stream in streams)


def test_a_client_that_leaves_stops_its_answer(tiny: Served) -> None:
    before = numbers(tiny)["mp_generation_tokens_total"]
    body = json.dumps(LONG).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    host, _, port = tiny.endpoint.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        while not numbers(tiny)["mp_requests_running"]:
            time.sleep(0.01)
    while under_way(tiny):
        time.sleep(0.05)
    assert 0 < numbers(tiny)["mp_generation_tokens_total"] - before < LONG["max_tokens"] - 100


def test_a_key_protects_v1_and_sigterm_ends_it_with_exit_0(transformers_python: Path, tmp_path: Path) -> None:
    flat = tmp_path / "mp"  # as in an image: all files side by side
    flat.mkdir()
    for path, _ in runtime_files("transformers"):
        shutil.copy(runtime_root() / path, flat)
    with served(
        "transformers",
        transformers_python,
        tmp_path,
        api_key="s3cret",
        max_model_len=64,
        serve=flat / "serve.py",
    ) as server:
        refused = [server.ask("/v1/models", key=key)[0] for key in ("wrong", "s3cre", "s3cret2")]
        assert refused == [401, 401, 401]
        assert server.ask("/v1/chat/completions", {"messages": USER}, key="wrong")[0] == 401
        assert (
            server.chat("What is mp?", max_tokens=32) == MP[: len(server.chat("What is mp?", max_tokens=32))]
        )
        assert server.ask("/v1/models")[1]["data"][0]["max_model_len"] == 64
        assert server.ask("/health", key="wrong")[0] == 200
        assert server.text("/metrics", key="wrong")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert "s3cret" not in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_a_context_larger_than_the_models_own_is_refused_at_start(
    transformers_python: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(RuntimeError, match="max-model-len 1024 is more than the 512 tokens"),
        served("transformers", transformers_python, tmp_path, max_model_len=1024),
    ):
        pass
