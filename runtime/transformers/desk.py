"""The desk between the event loop and the model: one worker thread, a queue before it, and proof that it still answers."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.transformers.counters import Counters
    from runtime.transformers.engine import Engine
    from runtime.transformers.job import Finish, Job
else:
    from counters import Counters
    from job import Finish, Job

FRESH_S = 5.0  # a sign of life of this age needs no new one
STALLED_S = 120.0  # a running answer without a token for so long is stuck
PROBE_S = 30.0


class Desk:
    """Hands jobs to the model one by one and streams what it says."""

    def __init__(self, engine: "Engine", counters: Counters) -> None:
        self.engine = engine
        self.counters = counters
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._sign = 0.0  # when the model last proved that it works
        self._began = 0.0  # when the running job began
        self._probing = asyncio.Lock()

    async def answer(self, job: Job) -> AsyncGenerator[str | Finish, None]:
        """Pieces of text, then how it ended. Leaving early cancels the job."""
        said: asyncio.Queue[str | Finish | Exception] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        arrived = time.monotonic()

        def say(item: str | Finish | Exception) -> None:
            loop.call_soon_threadsafe(said.put_nowait, item)

        self.counters.waiting += 1
        self.counters.prompt_tokens += len(job.tokens)
        started = False
        self._worker.submit(self._work, job, say, loop)
        try:
            while True:
                item = await said.get()
                if not started:
                    started = True
                    self.counters.first_token.add(time.monotonic() - arrived)
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, Finish):
                    self.counters.duration.add(time.monotonic() - arrived)
                    yield item
                    return
                yield item
        finally:
            job.cancelled.set()

    def _work(
        self, job: Job, say: Callable[[str | Finish | Exception], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """In the worker thread: one job from start to end."""
        loop.call_soon_threadsafe(self._begin)
        made = 0
        said: Finish | Exception = Finish("stop", 0)
        try:
            if not job.cancelled.is_set():
                said = self.engine.generate(job, say, self._alive)
                made = said.tokens
        except Exception as problem:  # whatever the model's code raises is told to the client
            said = problem
        loop.call_soon_threadsafe(self._end, made)  # first, so that who has the answer sees it counted
        say(said)

    def _begin(self) -> None:
        self._began = time.monotonic()
        self.counters.waiting -= 1
        self.counters.running += 1

    def _end(self, made: int) -> None:
        self.counters.running -= 1
        self.counters.generation_tokens += made

    def _alive(self) -> None:
        self._sign = time.monotonic()

    async def trouble(self) -> str | None:
        """Why the model does not answer, or None; never waits for an answer that is under way."""
        now = time.monotonic()
        if now - self._sign < FRESH_S:
            return None
        if self.counters.running or self.counters.waiting:
            silent_s = now - max(self._sign, self._began)
            return None if silent_s < STALLED_S else f"no token for {silent_s:.0f} s"
        async with self._probing:
            if time.monotonic() - self._sign < FRESH_S:
                return None
            return await self._probe()

    async def _probe(self) -> str | None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.run_in_executor(self._worker, self.engine.probe), PROBE_S)
        except TimeoutError:
            return f"no answer to one token for {PROBE_S:.0f} s"
        except Exception as problem:  # whatever the model's code raises: the answer is "not healthy"
            return f"{type(problem).__name__}: {problem}"
        self._sign = time.monotonic()
        return None

    def close(self) -> None:
        self.engine.stopping.set()
        self._worker.shutdown(wait=False, cancel_futures=True)
