"""Virtual time: coroutines that wait for each other or for a moment, always run in the same order.

A `Host` is a process. Killed, none of its tasks takes another step; frozen, they go on later where they were.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = ["Event", "Future", "Host", "HostGoneError", "Kernel", "LateError"]

T = TypeVar("T")


class LateError(Exception):
    """What was waited for did not come in time."""


class HostGoneError(Exception):
    """The process that was to answer is no more."""


class Future(Generic[T]):
    """Something that will be known; awaiting it waits for that."""

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiting: list[Callable[[], None]] = []

    def succeed(self, value: T) -> None:
        """Make it known; the first word counts."""
        if not self.done:
            self._value = value
            self._finish()

    def fail(self, error: Exception) -> None:
        """Make known that it went wrong; the first word counts."""
        if not self.done:
            self._error = error
            self._finish()

    def then(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is known."""
        if self.done:
            callback()
        else:
            self._waiting.append(callback)

    def _finish(self) -> None:
        self.done = True
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def __await__(self) -> Generator[Future[Any], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # of type T once it is done


class Event:
    """A flag to wait for; set, it stays set until it is cleared."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()

    def set(self) -> None:
        """Raise the flag."""
        self._future.succeed(None)

    def clear(self) -> None:
        """Lower the flag."""
        if self._future.done:
            self._future = Future()

    def wait(self) -> Future[None]:
        """Return what is known once the flag is up."""
        return self._future


class Host:
    """A process with a name."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self._tasks: set[_Task] = set()
        self.name = name
        self.alive = True
        kernel.hosts.append(self)
        self.frozen_until = 0.0

    def spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], None]:
        """Run the coroutine here; return what ends it. A host that is no more runs nothing."""
        if not self.alive:
            work.close()
            return lambda: None
        task = _Task(self._kernel, self, work)
        self._tasks.add(task)
        self._kernel.later(0.0, task.step)
        return task.end

    def kill(self) -> None:
        """End every task where it stands."""
        self.alive = False
        for task in sorted(self._tasks, key=lambda task: task.number):
            task.end()

    def freeze(self, seconds: float) -> None:
        """Let no task take a step for a while."""
        self.frozen_until = self._kernel.now + seconds

    def forget(self, task: _Task) -> None:
        """Drop a task that has ended."""
        self._tasks.discard(task)


class _Task:
    def __init__(self, kernel: Kernel, host: Host, work: Coroutine[Any, Any, None]) -> None:
        self._kernel = kernel
        self._host = host
        self._work: Coroutine[Any, Any, None] | None = work
        self._running = False
        self.number = kernel.next_number()

    def step(self) -> None:
        if self._work is None:
            return
        if self._host.frozen_until > self._kernel.now:
            self._kernel.later(self._host.frozen_until - self._kernel.now, self.step)
            return
        self._running = True
        try:
            waiting: Future[Any] = self._work.send(None)
        except StopIteration:
            self._work = None
            self._host.forget(self)
        else:
            if self._work is not None:
                waiting.then(lambda: self._kernel.later(0.0, self.step))
        finally:
            self._running = False

    def end(self) -> None:
        work, self._work = self._work, None
        self._host.forget(self)
        if work is not None and not self._running:
            work.close()


class Kernel:
    """The clock and everything that is to happen. Seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hosts: list[Host] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def next_number(self) -> int:
        """Return a number larger than any before."""
        self._number += 1
        return self._number

    def later(self, delay: float, what: Callable[[], None]) -> None:
        """Do it then; of two things at the same moment, first what was asked for first."""
        heapq.heappush(self._queue, (self.now + delay, self.next_number(), what))

    def sleep(self, seconds: float) -> Future[None]:
        """Return what is known after that time."""
        future: Future[None] = Future()
        self.later(seconds, lambda: future.succeed(None))
        return future

    def within(self, future: Future[T], seconds: float) -> Future[T]:
        """Return the same, or LateError after that time."""
        either: Future[T] = Future()

        def copy() -> None:
            try:
                either.succeed(next_value(future))
            except Exception as error:  # noqa: BLE001 - handed on to whoever waits
                either.fail(error)

        future.then(copy)
        self.later(seconds, lambda: either.fail(LateError(f"no answer within {seconds:g} s")))
        return either

    def close(self) -> None:
        """End everything, wherever it stands."""
        self._queue.clear()
        for host in self.hosts:
            host.kill()

    def run(self, until: float) -> int:
        """Let everything happen up to that moment; return how many things that were."""
        count = 0
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what = heapq.heappop(self._queue)
            what()
            count += 1
        self.now = until
        return count


def next_value(future: Future[T]) -> T:
    """Return what a future that is done came to; raises what went wrong."""
    try:
        next(future.__await__())
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
    raise AssertionError("the future is not done")
