"""Real ffmpeg processes: they publish numbered pictures and sound as RTP, and decode what they receive."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from causeway.leash import leashed
from lab.media.picture import MovingPicture, read_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["HEIGHT", "PICTURES", "WIDTH", "Receiver", "free_pairs", "publishing", "receiving"]

WIDTH, HEIGHT = 320, 180
PICTURES: Final = 50  # of the loop that is published
_PICTURE_BYTES: Final = WIDTH * HEIGHT * 3 // 2
_QUIET: Final = ("-nostdin", "-hide_banner", "-loglevel", "warning")
_ENCODERS: Final = {
    "vp8": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0"],
    "h264": ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline"],
}
# Numbers of payload types that are not what ffmpeg takes by itself: they come from the description.
_PAYLOAD_TYPES: Final = ("100", "109")


def _program() -> str:
    path = shutil.which("ffmpeg")
    if path is None:
        pytest.fail("ffmpeg is missing: install it (Debian: apt-get install ffmpeg)", pytrace=False)
    return path


def free_pairs(count: int) -> list[int]:
    """Return ports that are free together with the one after each, a moment ago."""
    pairs: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(pairs) < count:
            first, second = (
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
            )
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                pairs.append(port)
    return pairs


@contextlib.asynccontextmanager
async def _running(
    arguments: list[str], log: Path, *, output: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *leashed([_program(), *_QUIET, *arguments], signal="KILL"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def publishing(codec: str, folder: Path, *, video_port: int, audio_port: int) -> AsyncIterator[Path]:
    """Publish pictures of `codec` and Opus to these ports; gives the description that ffmpeg has written."""
    raw = folder / "pictures.yuv"
    if not raw.exists():
        source = MovingPicture(WIDTH, HEIGHT)
        raw.write_bytes(b"".join(source.draw(number).tobytes() for number in range(PICTURES)))
    description = folder / f"{codec}.sdp"
    video, audio = _PAYLOAD_TYPES
    arguments = [
        *("-re", "-stream_loop", "-1", "-f", "rawvideo", "-pix_fmt", "yuv420p"),
        *("-s", f"{WIDTH}x{HEIGHT}", "-r", "15", "-i", str(raw)),
        *("-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"),
        *("-map", "0:v", *_ENCODERS[codec], "-g", "15", "-b:v", "400k", "-threads", "1"),
        *("-payload_type", video, "-f", "rtp", f"rtp://127.0.0.1:{video_port}?pkt_size=1200"),
        *("-map", "1:a", "-c:a", "libopus", "-b:a", "48k", "-ac", "2"),
        *("-payload_type", audio, "-f", "rtp", f"rtp://127.0.0.1:{audio_port}"),
        *("-sdp_file", str(description)),
    ]
    async with _running(arguments, folder / f"publish-{codec}.log"):
        # Another process writes it: there is nothing to wait on.
        while not (description.exists() and "m=audio" in description.read_text()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        yield description


class Receiver:
    """An ffmpeg that decodes."""

    def __init__(self, process: asyncio.subprocess.Process, sound: Path) -> None:
        self._process = process
        self._sound = sound

    async def numbers(self, count: int) -> list[int]:
        """Return the numbers of the next `count` pictures that are decoded and readable."""
        assert self._process.stdout is not None
        found: list[int] = []
        while len(found) < count:
            data = await self._process.stdout.readexactly(_PICTURE_BYTES)
            picture = np.frombuffer(data, dtype=np.uint8).reshape(HEIGHT * 3 // 2, WIDTH)
            if (number := read_number(picture)) is not None:
                found.append(number)
        return found

    def loudness(self) -> float:
        """Return the mean amplitude of the sound that was decoded, of 32,768."""
        samples = np.frombuffer(self._sound.read_bytes()[: 48_000 * 2], dtype="<i2")
        return float(np.abs(samples.astype(np.float64)).mean()) if len(samples) else 0.0


@contextlib.asynccontextmanager
async def receiving(description: Path, folder: Path) -> AsyncIterator[Receiver]:
    """Decode the tracks of a description."""
    sound = folder / f"{description.stem}.pcm"
    arguments = [
        *("-protocol_whitelist", "file,udp,rtp", "-analyzeduration", "1000000", "-probesize", "200000"),
        *("-i", str(description)),
        *("-map", "0:v", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuv420p"),
        *("-s", f"{WIDTH}x{HEIGHT}", "pipe:1"),
        *("-map", "0:a", "-f", "s16le", "-ac", "1", "-flush_packets", "1", "-y", str(sound)),
    ]
    log = folder / f"receive-{description.stem}.log"
    async with _running(arguments, log, output=asyncio.subprocess.PIPE) as process:
        yield Receiver(process, sound)
