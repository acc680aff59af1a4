"""Bodies of KAITO's old API: what is understood, what is wrong with them, all at once, and how long an answer may take."""

import asyncio
import json
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.templates import TEMPLATES
from pipeline.templates.files import runtime_root

CONTEXT = 512
GENERATE, CHAT = "llama2-generate", "llama2-chat"
DIALOG = [{"role": "user", "content": "What is mp?"}]


@pytest.fixture
def llama2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """runtime/transformers/llama2.py as serve.py imports it."""
    monkeypatch.syspath_prepend(str(runtime_root() / "transformers"))
    from runtime.transformers import llama2

    return llama2


def refusal(llama2: ModuleType, body: object, face: str = GENERATE) -> tuple[int, Any]:
    """Status and reason."""
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(llama2.Refused) as caught:
        llama2.parse(face, written, CONTEXT)
    return caught.value.status, caught.value.detail


def places(llama2: ModuleType, body: object, face: str = GENERATE) -> list[str]:
    """The places of a body that are wrong: "parameters.top_p"."""
    status, detail = refusal(llama2, body, face)
    assert status == 422
    assert all(one["msg"] and one["type"] for one in detail)
    assert all(one["loc"][0] == "body" for one in detail)
    return [".".join(map(str, one["loc"][1:])) for one in detail]


def parsed(llama2: ModuleType, body: object, face: str = GENERATE) -> Any:
    return llama2.parse(face, json.dumps(body).encode(), CONTEXT)


def test_what_a_request_leaves_open_is_what_kaitos_server_took(llama2: ModuleType) -> None:
    (asked,) = parsed(llama2, {"prompts": ["x"]})
    assert (asked.temperature, asked.top_p) == (0.6, 0.9)
    assert (asked.max_tokens, asked.context) == (None, None)
    assert parsed(llama2, {"prompts": ["x"], "parameters": None}) == (asked,)
    assert parsed(llama2, {"prompts": ["x"], "parameters": {"temperature": None}}) == (asked,)


def test_every_documented_parameter_is_read(llama2: ModuleType) -> None:
    said = {"temperature": 0, "top_p": 0.5, "max_gen_len": 8, "max_seq_len": 64, "max_batch_size": 2}
    first, second = parsed(llama2, {"prompts": ["x", "y"], "parameters": said})
    assert (first.prompt, second.prompt) == ("x", "y")
    assert (first.temperature, first.top_p, first.max_tokens, first.context) == (0, 0.5, 8, 64)


def test_dialogs_are_asked_one_by_one(llama2: ModuleType) -> None:
    long = [{"role": "system", "content": "Be short"}, *DIALOG]
    first, second = parsed(llama2, {"input_data": {"input_string": [DIALOG, long]}}, CHAT)
    assert (first.kind, second.kind) == ("chat", "chat")
    assert list(first.messages) == DIALOG
    assert list(second.messages) == long


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b"{", [""]),
        (b"\xff", [""]),
        (b"[" * 100_000, [""]),
        (b'{"prompts": ["\\ud800"]}', [""]),
        ([], [""]),
        ({}, ["prompts"]),
        ({"prompts": None}, ["prompts"]),
        ({"prompts": "x"}, ["prompts"]),
        ({"prompts": ["x", 1, None]}, ["prompts.1", "prompts.2"]),
        ({"prompts": ["x"], "parameters": []}, ["parameters"]),
        ({"prompts": ["x"], "parameters": {"max_tokens": 1}}, ["parameters.max_tokens"]),
        ({"prompts": ["x"], "parameters": {"max_gen_len": CONTEXT + 1}}, ["parameters.max_gen_len"]),
        ({"prompts": ["x"], "parameters": {"max_gen_len": True}}, ["parameters.max_gen_len"]),
        ({"prompts": ["x"], "parameters": {"max_seq_len": 0}}, ["parameters.max_seq_len"]),
        ({"prompts": ["x"], "parameters": {"max_batch_size": 33}}, ["parameters.max_batch_size"]),
        ({"prompts": ["x"], "parameters": {"temperature": "warm"}}, ["parameters.temperature"]),
        (b'{"prompts": ["x"], "parameters": {"temperature": NaN}}', ["parameters.temperature"]),
        ({"prompts": ["x"], "parameters": {"top_p": 0}}, ["parameters.top_p"]),
    ],
)
def test_a_wrong_body_is_refused_with_its_place(llama2: ModuleType, body: object, wrong: list[str]) -> None:
    assert places(llama2, body) == wrong


def test_all_mistakes_are_told_at_once(llama2: ModuleType) -> None:
    body = {
        "promts": ["x"],
        "prompts": [3],
        "parameters": {"top_p": 2, "temperature": -1, "max_gen_len": 0, "n": 1},
    }
    assert sorted(places(llama2, body)) == [
        "parameters.max_gen_len",
        "parameters.n",
        "parameters.temperature",
        "parameters.top_p",
        "prompts.0",
        "promts",
    ]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, ["input_data"]),
        ({"prompts": ["x"]}, ["prompts", "input_data"]),
        ({"input_data": []}, ["input_data"]),
        ({"input_data": {}}, ["input_data.input_string"]),
        ({"input_data": {"input_string": "x"}}, ["input_data.input_string"]),
        ({"input_data": {"input_string": DIALOG}}, ["input_data.input_string.0"]),
        ({"input_data": {"input_string": [[]]}}, ["input_data.input_string.0"]),
        ({"input_data": {"input_string": [DIALOG, ["x"]]}}, ["input_data.input_string.1.0"]),
        (
            {"input_data": {"input_string": [[{"role": "tool", "content": 1}]]}},
            ["input_data.input_string.0.0.role", "input_data.input_string.0.0.content"],
        ),
        (
            {"input_data": {"input_string": [[{"role": "user", "content": "x", "name": "y"}]]}},
            ["input_data.input_string.0.0.name"],
        ),
    ],
)
def test_a_wrong_dialog_is_refused_with_its_place(llama2: ModuleType, body: object, wrong: list[str]) -> None:
    assert places(llama2, body, CHAT) == wrong


@pytest.mark.parametrize(
    ("prompts", "parameters", "most"), [(0, {}, 32), (33, {}, 32), (3, {"max_batch_size": 2}, 2)]
)
def test_no_prompt_or_too_many_are_a_plain_reason(
    llama2: ModuleType, prompts: int, parameters: dict[str, int], most: int
) -> None:
    status, detail = refusal(llama2, {"prompts": ["x"] * prompts, "parameters": parameters})
    assert (status, detail) == (400, f"{prompts} prompts: 1 to {most} are answered at once")


class Slow:
    """Answers when it is told to stop."""

    def __init__(self, finish: Any) -> None:
        self.finish = finish
        self.stopping = threading.Event()

    def generate(self, job: Any, on_text: Callable[[str], None], on_token: Callable[[], None]) -> Any:
        on_text("x")
        while not (job.cancelled.wait(0.01) or self.stopping.is_set()):
            on_token()
        return self.finish


def test_an_answer_that_takes_too_long_is_408_and_makes_room_for_the_next(llama2: ModuleType) -> None:
    from runtime.transformers import desk as module
    from runtime.transformers.counters import Counters

    desk: Any = module

    job = SimpleNamespace(tokens=(1,), cancelled=threading.Event())

    async def is_gone() -> bool:
        return False

    async def tell() -> Any:
        made = desk.Desk(Slow(desk.Finish("stop", 1)), Counters("tiny"))
        try:
            with pytest.raises(llama2.Refused) as caught:
                await llama2.answers(made, [job], is_gone, 0.2)
            assert caught.value.status == 408
            assert "0.2 s" in caught.value.detail
            while made.counters.running:
                await asyncio.sleep(0.01)
            return made.counters
        finally:
            made.close()

    counters = asyncio.run(asyncio.wait_for(tell(), 10))
    assert job.cancelled.is_set()
    assert (counters.running, counters.waiting) == (0, 0)


def test_the_runtime_has_a_path_for_every_face_that_the_template_promises(llama2: ModuleType) -> None:
    assert set(llama2.PATHS) == set(TEMPLATES["transformers"].faces())
