from __future__ import annotations

from fractions import Fraction
from itertools import count, pairwise
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.wire.bitstream import layer_of
from bridges.wire.frame import FrameFormat
from causeway.errors import ConfigError
from lab.media.clock import AUDIO_CLOCK, VIDEO_CLOCK, age, timestamp
from lab.media.decode import AudioDecoder, VideoDecoder
from lab.media.encode import SAMPLES_PER_FRAME, AudioEncoder, VideoEncoder
from lab.media.picture import MovingPicture, read_number
from lab.media.source import GeneratedSource, MediaFileSource, check_media

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from av.container import OutputContainer

WIDTH, HEIGHT = 320, 180

# --- the clock ------------------------------------------------------------------------------------


@given(
    now=st.floats(min_value=0, max_value=1e9),
    past=st.floats(min_value=-3600, max_value=3600),
    rate=st.sampled_from([VIDEO_CLOCK, AUDIO_CLOCK]),
)
def test_age_is_what_has_passed(now: float, past: float, rate: int) -> None:
    stamped = timestamp(now, rate)
    assert 0 <= stamped < 1 << 32
    assert age(stamped, rate, now + past) == pytest.approx(past, abs=2 / rate)


def test_age_survives_the_wrap_around() -> None:
    just_before = ((1 << 32) - 45) / VIDEO_CLOCK
    stamped = timestamp(just_before, VIDEO_CLOCK)
    assert stamped == (1 << 32) - 45
    assert timestamp(just_before + 0.001, VIDEO_CLOCK) == 45
    assert age(stamped, VIDEO_CLOCK, just_before + 0.001) == pytest.approx(0.001)
    assert age(45, VIDEO_CLOCK, just_before) == pytest.approx(-0.001)


# --- VP8 ------------------------------------------------------------------------------------------


def test_pictures_come_out_as_they_went_in() -> None:
    encoder, decoder = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000), VideoDecoder()
    source = MovingPicture(WIDTH, HEIGHT)
    for number in range(30):
        frame = encoder.encode(source.draw(number), stamp=lambda: 7)
        assert frame.format == FrameFormat.VP8
        assert frame.timestamp == 7
        assert (frame.video.width, frame.video.height) == (WIDTH, HEIGHT)
        assert frame.key_frame == (number == 0)
        picture = decoder.decode(frame.payload, key=frame.key_frame)
        assert picture is not None
        assert picture.shape == (HEIGHT * 3 // 2, WIDTH)
        assert read_number(picture) == number


def test_a_key_frame_comes_at_once_when_asked_for() -> None:
    encoder = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000)
    source = MovingPicture(WIDTH, HEIGHT)
    keys = [
        number
        for number in range(40)
        if encoder.encode(source.draw(number), stamp=lambda: 0, key=number in {7, 8, 31}).key_frame
    ]
    assert keys == [0, 7, 8, 31]


def test_a_key_frame_comes_every_two_seconds() -> None:
    encoder = VideoEncoder(WIDTH, HEIGHT, fps=10, bitrate=400_000)
    source = MovingPicture(WIDTH, HEIGHT)
    keys = [n for n in range(61) if encoder.encode(source.draw(n), stamp=lambda: 0).key_frame]
    assert keys == [0, 20, 40, 60]


def test_the_rate_is_kept() -> None:
    encoder = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=200_000)
    source = MovingPicture(WIDTH, HEIGHT)
    size = sum(len(encoder.encode(source.draw(n * 7919), stamp=lambda: 0).payload) for n in range(100))
    assert size * 8 / 4 < 300_000


def test_less_is_encoded_at_once_and_more_from_the_next_key_frame_on() -> None:
    encoder = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=800_000)
    decoder, source = VideoDecoder(), MovingPicture(WIDTH, HEIGHT)
    numbers = count()

    def second() -> tuple[int, list[int]]:
        size, keys = 0, []
        for place in range(25):
            number = next(numbers)
            frame = encoder.encode(source.draw(number * 7919), stamp=lambda: 0)
            picture = decoder.decode(frame.payload, key=frame.key_frame)
            assert picture is not None
            assert read_number(picture) == number * 7919
            size += len(frame.payload)
            keys += [place] if frame.key_frame else []
        return size, keys

    second()
    full, _ = second()
    encoder.bitrate = 760_000  # hardly less is not worth a key frame
    assert second()[1] == [0], "as every two seconds"
    encoder.bitrate = 150_000
    assert second()[1] == [0]
    less, keys = second()
    assert keys == []
    assert less < full / 2
    encoder.bitrate = 800_000
    _, keys = second()
    assert keys == [0], "when it was due"
    second()
    assert second()[0] > 2 * less


def test_every_second_picture_can_be_left_out() -> None:
    encoder, decoder = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000), VideoDecoder()
    source = MovingPicture(WIDTH, HEIGHT)
    left_out = 0
    for number in range(40):
        frame = encoder.encode(source.draw(number), stamp=lambda: 7, key=number == 21)
        if not frame.key_frame and layer_of(frame.format, frame.payload).discardable:
            left_out += 1
            continue
        picture = decoder.decode(frame.payload, key=frame.key_frame)
        assert picture is not None
        assert read_number(picture) == number
    assert 18 <= left_out <= 20


def test_a_decoder_waits_for_a_key_frame() -> None:
    encoder, decoder = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000), VideoDecoder()
    source = MovingPicture(WIDTH, HEIGHT)
    encoder.encode(source.draw(0), stamp=lambda: 0)
    delta = encoder.encode(source.draw(1), stamp=lambda: 0)
    assert decoder.decode(delta.payload, key=False) is None
    assert decoder.wants_key_frame
    key = encoder.encode(source.draw(2), stamp=lambda: 0, key=True)
    picture = decoder.decode(key.payload, key=True)
    assert picture is not None
    assert read_number(picture) == 2
    assert not decoder.wants_key_frame


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"garbage", bytes(1000)])
def test_a_decoder_survives_garbage(garbage: bytes) -> None:
    encoder, decoder = VideoEncoder(WIDTH, HEIGHT, fps=25, bitrate=400_000), VideoDecoder()
    source = MovingPicture(WIDTH, HEIGHT)
    decoder.decode(garbage, key=True)
    decoder.decode(garbage, key=False)
    frame = encoder.encode(source.draw(3), stamp=lambda: 0)
    picture = decoder.decode(frame.payload, key=True)
    assert picture is not None
    assert read_number(picture) == 3


@given(garbage=st.binary(max_size=200))
def test_whatever_comes_a_decoder_raises_nothing(garbage: bytes) -> None:
    VideoDecoder().decode(garbage, key=True)
    AudioDecoder().decode(garbage)


def test_a_picture_of_absurd_size_is_not_decoded() -> None:
    # RFC 6386, 9.1: frame tag of a key frame, start code, 16,383 × 16,383.
    absurd = bytes([0x10, 0x02, 0x00, 0x9D, 0x01, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F]) + bytes(300_000)
    assert VideoDecoder().decode(absurd, key=True) is None


# --- Opus -----------------------------------------------------------------------------------------


def test_sound_comes_out_as_it_went_in() -> None:
    encoder, decoder, source = AudioEncoder(), AudioDecoder(), GeneratedSource(WIDTH, HEIGHT)
    loudness = []
    for index in range(50):
        frame = encoder.encode(source.sound(index), timestamp=index * SAMPLES_PER_FRAME)
        assert frame.format == FrameFormat.OPUS
        assert frame.timestamp == index * 960
        info = frame.audio
        assert (info.samples, info.sample_rate, info.channels, info.is_rtp_packet) == (960, 48000, 2, False)
        samples = decoder.decode(frame.payload)
        assert samples is not None
        assert samples.shape == (1, 1920)
        loudness.append(float(np.abs(samples).max()))
    assert min(loudness[5:]) > 2000


@pytest.mark.parametrize("garbage", [b"", b"\xff"])
def test_a_sound_decoder_survives_garbage(garbage: bytes) -> None:
    decoder = AudioDecoder()
    decoder.decode(garbage)
    frame = AudioEncoder().encode(GeneratedSource(WIDTH, HEIGHT).sound(0), timestamp=0)
    assert decoder.decode(frame.payload) is not None


# --- files ----------------------------------------------------------------------------------------


def make_file(
    path: Path, *, pictures: int = 25, fps: int = 25, video: bool = True, sound_seconds: float | None = 0.5
) -> Path:
    """Write a small file: pictures that grow lighter, and a 44.1 kHz mono tone."""
    with av.open(str(path), "w") as container:
        write_pictures = add_pictures(container, pictures, fps) if video else None
        write_sound = add_sound(container, sound_seconds) if sound_seconds is not None else None
        for write_stream in filter(None, [write_pictures, write_sound]):
            write_stream()
    return path


def add_pictures(container: OutputContainer, count: int, fps: int) -> Callable[[], None]:
    stream = container.add_stream("mpeg4", rate=fps)
    stream.width, stream.height, stream.pix_fmt = 200, 100, "yuv420p"

    def write_stream() -> None:
        for index in range(count):
            array = np.full((150, 200), 128, dtype=np.uint8)
            array[:100] = 30 + index * 200 // count
            frame = av.VideoFrame.from_ndarray(array, format="yuv420p")
            frame.pts = index
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return write_stream


def add_sound(container: OutputContainer, seconds: float) -> Callable[[], None]:
    stream = container.add_stream("aac", rate=44100)
    stream.layout = "mono"
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(44100 * seconds)) / 44100)).astype(np.float32)

    def write_stream() -> None:
        for start in range(0, len(tone) - 1023, 1024):
            piece = av.AudioFrame.from_ndarray(
                tone[start : start + 1024].reshape(1, -1), format="fltp", layout="mono"
            )
            piece.sample_rate = 44100
            piece.pts = start
            piece.time_base = Fraction(1, 44100)
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))

    return write_stream


def lightness(source: MediaFileSource, number: int) -> float:
    picture = source.picture(number)
    assert picture.shape == (HEIGHT * 3 // 2, WIDTH)
    assert read_number(picture) == number
    return float(picture[HEIGHT * 2 // 3 : HEIGHT].mean())


def test_a_file_is_scaled_numbered_and_looped(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.mp4", pictures=25)
    source = MediaFileSource(path, width=WIDTH, height=HEIGHT, fps=25)
    levels = [lightness(source, number) for number in range(60)]
    source.close()
    assert levels[0] < levels[12] < levels[24]
    assert levels[25] == pytest.approx(levels[0], abs=10)
    assert levels[50] == pytest.approx(levels[0], abs=10)


@pytest.mark.parametrize(("fps", "after_a_second"), [(10, 10), (50, 49)])
def test_a_file_is_shown_at_its_own_pace(tmp_path: Path, fps: int, after_a_second: int) -> None:
    path = make_file(tmp_path / "a.mp4", pictures=25)
    source = MediaFileSource(path, width=WIDTH, height=HEIGHT, fps=fps)
    levels = [lightness(source, number) for number in range(after_a_second + 5)]
    source.close()
    falls = [n for n, (one, other) in enumerate(pairwise(levels)) if other < one - 50]
    assert falls
    assert abs(falls[0] + 1 - after_a_second) <= 1


def test_a_files_sound_is_resampled_then_silent_then_begins_again(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.mp4", pictures=25, sound_seconds=0.5)
    source = MediaFileSource(path, width=WIDTH, height=HEIGHT, fps=25)
    loud = []
    for index in range(100):
        if index % 2 == 0:
            source.picture(index)
        samples = source.sound(index)
        assert samples.shape == (1, 1920)
        loud.append(float(np.abs(samples).max()) > 3000)
    source.close()
    assert all(loud[2:20])
    assert not any(loud[30:48])
    assert all(loud[54:70])


def test_a_file_without_sound_is_silent(tmp_path: Path) -> None:
    source = MediaFileSource(
        make_file(tmp_path / "a.mp4", sound_seconds=None), width=WIDTH, height=HEIGHT, fps=25
    )
    source.picture(0)
    assert not source.sound(0).any()
    source.close()


def test_a_usable_file_passes_the_check(tmp_path: Path) -> None:
    check_media(make_file(tmp_path / "a.mkv"))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_an_unusable_file_is_one_clear_line(tmp_path: Path) -> None:
    whole = make_file(tmp_path / "whole.mp4").read_bytes()
    bad = {
        tmp_path / "missing.mp4": "no such file",
        tmp_path: "not a file",
        write(tmp_path / "empty.mp4", b""): "cannot be read as media",
        write(tmp_path / "text.mp4", b"hello\n" * 100): "cannot be read as media",
        write(tmp_path / "cut.mp4", whole[: len(whole) // 3]): "cut.mp4: ",
        make_file(tmp_path / "sound.mp4", video=False): "there is no video in it",
    }
    for path, reason in bad.items():
        with pytest.raises(ConfigError) as caught:
            check_media(path)
        assert reason in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
