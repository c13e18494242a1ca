"""One cell of the matrix of lossy lines with three real processes: two bridges and the path between them."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from bench._media.line import Line
from bench._media.site import Site
from bench._processes import process
from bench._virtual.lossy import Cell, profile_of
from bench._virtual.media import SOUND, VIDEO

if TYPE_CHECKING:
    from bench._processes import Remote
    from bench._virtual.lossy import Lossy

__all__ = ["real"]

_IP_UDP: Final = 28
_WARM: Final = 2.0
"""Seconds of media that do not count, as in virtual time."""
_AFTER: Final = 1.5
"""Seconds until what is still under way has come, or is of no use any more."""


async def real(
    lossy: Lossy, round_trip: float, wire: str, *, seed: int, seconds: float = 12.0, streams: int = 1
) -> Cell:
    """Send streams of a picture and a sound track each for so many seconds, the warm-up not counted."""
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(process(Site.running, "near", wire))
        far = await stack.enter_async_context(process(Site.running, "far", wire))
        info = await near.call("info")
        path = profile_of(lossy, round_trip)
        line = await stack.enter_async_context(
            process(Line.running, info["port"], path, seed, exact_timers=True)
        )
        await far.call("cascade", "near", {**info, "port": await line.call("port")})
        names = [f"s{number}" for number in range(streams)]
        await _pull(near, far, names)
        await near.call("send", names, _WARM)
        await far.call("taken")
        before = await line.call("sent")
        sent = await near.call("send", names, seconds, timeout=seconds + 60)
        await asyncio.sleep(_AFTER)
        after = await line.call("sent")
        taken = await far.call("taken")
    datagrams, size = (now - then for now, then in zip(after, before, strict=True))
    return Cell(
        round_trip=round_trip,
        delays={kind: [taken.get(each, math.inf) for each in sent[kind]] for kind in ("video", "sound")},
        overhead=(size + _IP_UDP * datagrams) / sent["media_bytes"] - 1,
    )


async def _pull(near: Remote, far: Remote, names: list[str]) -> None:
    for name in names:
        await near.call("offer", name, [VIDEO, SOUND])
        await far.call("take", f"of-{name}", "near", name, ["video", "audio"])
    await near.call("subscribed", 2 * len(names))
