"""A bridge of the tests' making, for whatever carrier: it notes how its cluster calls it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bridges.node.port import NodeUnreachableError, RpcError

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT = 15.0


class Service:
    """An RpcService."""

    def __init__(self) -> None:
        self.connected = 0
        self.lost = 0
        self.begun: list[Any] = []
        """The first argument of each call, or its method."""
        self.gone: list[str] = []
        self.release = asyncio.Event()
        self.changed = asyncio.Event()

    async def handle(self, method: str, args: list[Any]) -> Any:
        self.begun.append(args[0] if args else method)
        self.changed.set()
        match method:
            case "echo":
                return args
            case "wait":
                await self.release.wait()
                return "ok"
            case "fail":
                raise RpcError("as you wish")
            case "unreachable":
                raise NodeUnreachableError("nobody there")
            case "crash":
                raise ZeroDivisionError("secret detail")
            case "unserialisable":
                return object()
        raise RpcError("no such method")

    def node_connected(self) -> None:
        self.connected += 1
        self.changed.set()

    def node_lost(self) -> None:
        self.lost += 1
        self.changed.set()

    def conference_lost(self, gone: str) -> None:
        self.gone.append(gone)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()
