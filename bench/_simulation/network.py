"""Calls between processes: late, lost, answered twice, overtaken by others, cut off. All by one seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from bench._simulation.kernel import Future, HostGoneError, LateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from bench._simulation.kernel import Host, Kernel

__all__ = ["Network", "Patience", "Weather"]

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Weather:
    """How bad it is. Shares are of messages, each way."""

    loss: float = 0.02
    duplicates: float = 0.02
    slow: float = 0.05
    """Of messages that take up to `slowest` seconds, and are overtaken."""
    fastest: float = 0.001
    usual: float = 0.08
    slowest: float = 3.0


class Patience:
    """Whether a caller still waits for the answer."""

    def __init__(self) -> None:
        self.over = False


_CALM: Final = Weather(loss=0.0, duplicates=0.0, slow=0.0)


class Network:
    """Places are where processes are: `control`, or a cluster's name."""

    def __init__(self, kernel: Kernel, chance: Random, weather: Weather) -> None:
        self._kernel = kernel
        self._chance = chance
        self.weather = weather
        self._cut: dict[frozenset[str], float] = {}

    def cut(self, one: str, other: str, seconds: float) -> None:
        """Let nothing pass between two places for a while."""
        pair = frozenset((one, other))
        self._cut[pair] = max(self._cut.get(pair, 0.0), self._kernel.now + seconds)

    def heal(self) -> None:
        """Let everything pass from now on, unharmed."""
        self._cut.clear()
        self.weather = _CALM

    def passes(self, one: str, other: str) -> bool:
        """Whether anything passes between two places now."""
        return self._cut.get(frozenset((one, other)), 0.0) <= self._kernel.now

    def delay(self) -> float:
        """Return how long a message takes."""
        weather = self.weather
        if self._chance.random() < weather.slow:
            return self._chance.uniform(weather.usual, weather.slowest)
        return self._chance.uniform(weather.fastest, weather.usual)

    def send(self, one: str, other: str, arrive: Callable[[], None]) -> None:
        """Have it happen at the other place, perhaps."""

        def land() -> None:
            if self.passes(one, other):
                arrive()

        if self._chance.random() >= self.weather.loss:
            self._kernel.later(self.delay(), land)

    async def call(
        self,
        one: str,
        other: str,
        host: Callable[[], Host | None],
        handler: Callable[[], Awaitable[T]],
        *,
        timeout: float,
        patience: Patience | None = None,
    ) -> T:
        """Have the handler run at the other place, on the `host` there is by then; return its answer.

        Raises what the handler raises, HostGoneError, and LateError: then it may have run, or may run yet;
        then `patience` is over.
        """
        answer: Future[T] = Future()

        async def serve() -> None:
            try:
                value = await handler()
                if self._chance.random() < self.weather.duplicates:  # somebody in between asked twice
                    value = await handler()
            except Exception as error:  # noqa: BLE001 - it is the caller's
                self.send(other, one, partial(answer.fail, error))
            else:
                self.send(other, one, partial(answer.succeed, value))

        def arrive() -> None:
            there = host()
            if there is not None and there.alive:
                there.spawn(serve())
            else:
                self.send(other, one, partial(answer.fail, HostGoneError("connection refused")))

        self.send(one, other, arrive)
        try:
            return await self._kernel.within(answer, timeout)
        except LateError:
            if patience is not None:
                patience.over = True
            raise LateError(f"no answer within {timeout:g} s") from None
