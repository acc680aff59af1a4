"""The desk: health tells a model that is stuck or broken from one that is busy."""

import asyncio
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.templates.files import runtime_root


class Model:
    """Answers when it is released; whoever asks too early waits."""

    def __init__(self, desk: ModuleType, fault: str | None = None) -> None:
        self.finish = desk.Finish("stop", 1)
        self.fault = fault
        self.released = threading.Event()
        self.stopping = self.released
        self.probes = 0

    def generate(self, job: Any, on_text: Callable[[str], None], on_token: Callable[[], None]) -> Any:
        assert self.released.wait(5)
        on_token()
        on_text("x")
        return self.finish

    def probe(self) -> None:
        self.probes += 1
        if self.fault:
            raise RuntimeError(self.fault)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """runtime/transformers/desk.py as serve.py imports it."""
    monkeypatch.syspath_prepend(str(runtime_root() / "transformers"))
    from runtime.transformers import desk

    return desk


def job() -> Any:
    return SimpleNamespace(tokens=(1,), cancelled=threading.Event())


def with_desk(desk: ModuleType, model: Model, story: Callable[[Any], Any]) -> Any:
    from runtime.transformers.counters import Counters

    async def tell() -> Any:
        made = desk.Desk(model, Counters("tiny"))
        try:
            return await asyncio.wait_for(story(made), 10)
        finally:
            made.close()

    return asyncio.run(tell())


def test_an_idle_model_is_asked_once_and_believed_for_a_while(desk: ModuleType) -> None:
    model = Model(desk)

    async def story(made: Any) -> list[str | None]:
        return [
            await made.trouble(),
            await made.trouble(),
            *await asyncio.gather(made.trouble(), made.trouble()),
        ]

    assert with_desk(desk, model, story) == [None] * 4
    assert model.probes == 1


def test_a_model_that_cannot_answer_one_token_is_in_trouble(desk: ModuleType) -> None:
    async def story(made: Any) -> Any:
        return await made.trouble()

    assert with_desk(desk, Model(desk, "illegal instruction"), story) == "RuntimeError: illegal instruction"


def test_a_busy_model_is_healthy_until_it_is_silent_for_too_long(
    desk: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(desk)

    async def story(made: Any) -> tuple[str | None, str | None, list[Any]]:
        answer = asyncio.create_task(_all(made.answer(job())))
        while not made.counters.running:
            await asyncio.sleep(0.001)
        busy = await made.trouble()
        monkeypatch.setattr(desk, "STALLED_S", 0.0)
        stuck = await made.trouble()
        model.released.set()
        return busy, stuck, await answer

    busy, stuck, answer = with_desk(desk, model, story)
    assert busy is None
    assert stuck == "no token for 0 s"
    assert answer[0] == "x"
    assert model.probes == 0


async def _all(pieces: Any) -> list[Any]:
    return [piece async for piece in pieces]
