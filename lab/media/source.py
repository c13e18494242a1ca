"""What a participant publishes: a picture drawn here with a tone, or a file's pictures and sound, looped.

Both give numbered pictures (lab.media.picture) and sound of 20 ms a piece, each when asked for. Blocking: run
it in a thread, always the same one. It must not know how they are encoded, or when they are due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import av
import numpy as np

from causeway.errors import ConfigError
from lab.media.clock import AUDIO_CLOCK
from lab.media.encode import SAMPLES_PER_FRAME
from lab.media.picture import MovingPicture, burn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["GeneratedSource", "MediaFileSource", "Source", "check_media"]

_CHANNELS: Final = 2


class Source(Protocol):
    """Pictures and sound, by the number of the picture and of the 20 ms; numbers only grow."""

    def picture(self, number: int) -> NDArray[np.uint8]:
        """Return picture `number` (I420) with the number burnt in."""
        ...

    def sound(self, index: int) -> NDArray[np.int16]:
        """Return the samples of 20 ms number `index` (shape 1 × 1920, interleaved)."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class GeneratedSource:
    """The moving picture, and two quiet tones, one in each ear."""

    def __init__(self, width: int, height: int) -> None:
        self._picture = MovingPicture(width, height)
        # A whole second of whole periods: joined end to end it does not click.
        time = np.arange(AUDIO_CLOCK) / AUDIO_CLOCK
        tones = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 660 * time)], axis=1)
        self._sound = (4000 * tones).astype(np.int16).reshape(-1, 1, SAMPLES_PER_FRAME * _CHANNELS)

    def picture(self, number: int) -> NDArray[np.uint8]:
        """Return picture `number`."""
        return self._picture.draw(number)

    def sound(self, index: int) -> NDArray[np.int16]:
        """Return 20 ms of the tones."""
        part: NDArray[np.int16] = self._sound[index % len(self._sound)]
        return part

    def close(self) -> None:
        """Do nothing: there is nothing open."""


class MediaFileSource:
    """A file's first video stream, scaled to `width` × `height` and shown at `fps`, and its first audio.

    The file is looped, sound and pictures together: sound that ends before the pictures is followed by
    silence. Without an audio stream all is silence. Raises ConfigError for a file that cannot be used, also
    later, when it breaks while it is read.
    """

    def __init__(self, path: Path, *, width: int, height: int, fps: int) -> None:
        self._path = path
        self._width = width
        self._height = height
        self._step = 1.0 / fps
        self._sounds: Iterator[NDArray[np.int16]] = iter(())
        self._samples = np.empty((1, 0), dtype=np.int16)
        self._containers = [_open(path), _open(path)]
        self._pictures = self._show()

    def picture(self, number: int) -> NDArray[np.uint8]:
        """Return the picture that is due next in the file, numbered `number`."""
        picture = next(self._pictures).copy()
        burn(picture, number)
        return picture

    def sound(self, index: int) -> NDArray[np.int16]:
        """Return the next 20 ms of the file's sound, silence where it has none."""
        del index
        wanted = SAMPLES_PER_FRAME * _CHANNELS
        while self._samples.shape[1] < wanted:
            more = next(self._sounds, None)
            if more is None:
                more = np.zeros((1, wanted - self._samples.shape[1]), dtype=np.int16)
            self._samples = np.concatenate([self._samples, more], axis=1)
        part, self._samples = self._samples[:, :wanted], self._samples[:, wanted:]
        return part

    def close(self) -> None:
        """Close the file."""
        for container in self._containers:
            container.close()

    def _show(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the picture of each tick, for ever; each round also starts the sound anew."""
        while True:
            self._sounds = self._hear()
            self._samples = self._samples[:, :0]
            shown: NDArray[np.uint8] | None = None
            due = 0.0
            for time, picture in self._decode():
                while shown is not None and due < time:
                    yield shown
                    due += self._step
                shown = picture
            if shown is None:
                raise ConfigError(f"{self._path}: no picture in it can be decoded")
            yield shown

    def _decode(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield the file's pictures with their time since the first, in seconds."""
        container = self._containers[0]
        stream = container.streams.video[0]
        first: float | None = None
        try:
            container.seek(0)
            for frame in container.decode(stream):
                time = frame.time or 0.0
                first = time if first is None else first
                scaled = frame.reformat(width=self._width, height=self._height, format="yuv420p")
                yield time - first, scaled.to_ndarray().astype(np.uint8, copy=False)
        except av.FFmpegError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from None

    def _hear(self) -> Iterator[NDArray[np.int16]]:
        """Yield the file's sound once, 48 kHz stereo interleaved, in pieces of any length."""
        container = self._containers[1]
        if not container.streams.audio:
            return
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=AUDIO_CLOCK)
        try:
            container.seek(0)
            for frame in container.decode(container.streams.audio[0]):
                for part in resampler.resample(frame):
                    yield part.to_ndarray().astype(np.int16, copy=False)
        except av.FFmpegError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from None


def check_media(path: Path) -> None:
    """Raise ConfigError, one line, unless `path` is a file whose pictures can be published."""
    # The size does not matter here; a whole picture is decoded and scaled as it will be later.
    source = MediaFileSource(path, width=640, height=360, fps=25)
    try:
        source.picture(0)
        source.sound(0)
    finally:
        source.close()


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise ConfigError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        container = av.open(str(path), "r")
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as media: {error.strerror}") from None
    if not container.streams.video:
        container.close()
        raise ConfigError(f"{path}: there is no video in it")
    return container
