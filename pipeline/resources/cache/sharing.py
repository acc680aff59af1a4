"""Work that several threads share with one another and with other processes: who finds a thing taken does another first."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Halted(Exception):
    """The run was interrupted: what grows is left as it is, for the next run to go on with."""


class Sharing(Generic[A, B]):
    """`attempt` does one item, or answers None when somebody else is at it; then it is asked again after `pause`.

    After a failure nothing new is begun; what runs is finished and kept. An interrupt ends what runs at `check`.
    """

    def __init__(self, workers: int, pause: Callable[[], None]) -> None:
        self._workers = workers
        self._pause = pause
        self._guard = threading.Lock()
        self._open: deque[A] = deque()  # not tried yet
        self._busy: deque[A] = deque()  # in other hands when it was tried last
        self._done: dict[A, B] = {}
        self._ended = False
        self._halted = False

    def check(self) -> None:
        """Raises Halted after an interrupt; to be called often by what takes long."""
        if self._halted:
            raise Halted

    def all(self, attempt: Callable[[A], B | None], items: Sequence[A]) -> dict[A, B]:
        """What became of each item. Raises what the first failure raised."""
        self._open.extend(items)
        workers = min(self._workers, len(items))
        if workers < 2:
            self._work(attempt)
            return self._done
        pool = ThreadPoolExecutor(workers, "transfer")
        futures = [pool.submit(self._work, attempt) for _ in range(workers)]
        try:
            for future in futures:
                future.result()
        except Exception:
            self._ended = True
            raise
        except BaseException:
            self._ended = self._halted = True
            raise
        finally:
            pool.shutdown(wait=True)
        return self._done

    def _work(self, attempt: Callable[[A], B | None]) -> None:
        while not self._ended and (taken := self._next()):
            item, was_busy = taken
            if was_busy:
                self._pause()
            try:
                answer = attempt(item)
            except BaseException:
                self._ended = True
                raise
            with self._guard:
                if answer is None:
                    self._busy.append(item)
                else:
                    self._done[item] = answer

    def _next(self) -> tuple[A, bool] | None:
        with self._guard:
            if self._open:
                return self._open.popleft(), False
            return (self._busy.popleft(), True) if self._busy else None
