"""What a connection has to tell its user, in order: at once, or kept until there is somebody to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Deliveries"]

_MAX_KEPT: Final = 1024

U = TypeVar("U")


class Deliveries(Generic[U]):
    """Calls of a user of type U, who may come later than what is to be told.

    `failed` is told what a user raises. A user that comes is told what was kept in the next turn of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, failed: Callable[[Exception], None]) -> None:
        self._loop = loop
        self._failed = failed
        self._user: U | None = None
        self._kept: list[Callable[[U], None]] = []

    @property
    def user(self) -> U | None:
        """Who is told."""
        return self._user

    @user.setter
    def user(self, user: U) -> None:
        self._user = user
        if self._kept:
            self._loop.call_soon(self._deliver_kept)

    @property
    def full(self) -> bool:
        """Whether nothing more should be kept: nobody has come to take it."""
        return len(self._kept) >= _MAX_KEPT

    def deliver(self, call: Callable[[U], None]) -> None:
        """Tell the user, or keep it, behind what is kept already."""
        if self._user is None or self._kept:
            self._kept.append(call)
        else:
            self._call(call, self._user)

    def drop(self) -> None:
        """Forget what is kept."""
        self._kept.clear()

    def _deliver_kept(self) -> None:
        kept, self._kept = self._kept, []
        for call in kept:
            if self._user is not None:
                self._call(call, self._user)

    def _call(self, call: Callable[[U], None], user: U) -> None:
        try:
            call(user)
        except Exception as error:  # noqa: BLE001 - the user's failure costs the connection, not the loop
            self._failed(error)
