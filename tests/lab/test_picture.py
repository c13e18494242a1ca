from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lab.media.decode import VideoDecoder
from lab.media.encode import VideoEncoder
from lab.media.picture import MAX_NUMBER, MovingPicture, burn, read_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = [(224, 128), (320, 180), (640, 360), (854, 480), (1280, 720)]
numbers = st.integers(min_value=0, max_value=MAX_NUMBER)


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height * 3 // 2, width), 128, dtype=np.uint8)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("number", [0, 1, 0x55555555, 0xAAAAAAAA, MAX_NUMBER])
def test_a_burnt_in_number_is_read_back(width: int, height: int, number: int) -> None:
    picture = grey(width, height)
    burn(picture, number)
    assert read_number(picture) == number


@given(
    number=numbers,
    width=st.integers(min_value=112, max_value=500).map(lambda n: 2 * n),
    height=st.integers(min_value=64, max_value=300).map(lambda n: 2 * n),
)
@settings(deadline=None)
def test_every_number_fits_every_size(number: int, width: int, height: int) -> None:
    picture = MovingPicture(width, height).draw(number)
    assert picture.shape == (height * 3 // 2, width)
    assert read_number(picture) == number


def encoder_and_decoder(width: int, height: int, bitrate: int) -> tuple[VideoEncoder, VideoDecoder]:
    return VideoEncoder(width, height, fps=25, bitrate=bitrate), VideoDecoder()


@pytest.mark.parametrize(("width", "height", "bitrate"), [(640, 360, 300_000), (320, 180, 150_000)])
def test_every_number_survives_vp8(width: int, height: int, bitrate: int) -> None:
    encoder, decoder = encoder_and_decoder(width, height, bitrate)
    source = MovingPicture(width, height)

    @given(number=numbers)
    @settings(max_examples=100, deadline=None)
    def survives(number: int) -> None:
        # Each number differs from the one before in about half of its bits: the worst for the encoder.
        frame = encoder.encode(source.draw(number), stamp=lambda: 0)
        picture = decoder.decode(frame.payload, key=frame.key_frame)
        assert picture is not None
        assert read_number(picture) == number

    survives()


def test_numbers_in_a_row_survive_vp8_over_a_busy_background() -> None:
    encoder, decoder = encoder_and_decoder(640, 360, 400_000)
    noise = np.random.default_rng(1)
    for number in range(1_000_000, 1_000_050):
        picture = noise.integers(0, 256, size=(540, 640), dtype=np.uint8)
        burn(picture, number)
        frame = encoder.encode(picture, stamp=lambda: 0)
        decoded = decoder.decode(frame.payload, key=frame.key_frame)
        assert decoded is not None
        assert read_number(decoded) == number


@pytest.mark.parametrize(("width", "height"), [(960, 540), (480, 270), (426, 240), (700, 360), (640, 400)])
@given(number=numbers)
@settings(max_examples=20, deadline=None)
def test_a_scaled_picture_is_read(width: int, height: int, number: int) -> None:
    frame = av.VideoFrame.from_ndarray(MovingPicture(640, 360).draw(number), format="yuv420p")
    # An odd height has no I420 array: round up to what an array can have.
    scaled = frame.reformat(width=width, height=height + height % 4)
    assert read_number(scaled.to_ndarray().astype(np.uint8)) == number


@given(seed=st.integers(min_value=0, max_value=2**32))
@settings(max_examples=200, deadline=None)
def test_noise_is_never_a_number(seed: int) -> None:
    noise = np.random.default_rng(seed)
    assert read_number(noise.integers(0, 256, size=(270, 320), dtype=np.uint8)) is None


@given(picture=arrays.arrays(np.uint8, (192, 224)))
@settings(max_examples=100, deadline=None)
def test_any_array_is_read_without_error(picture: NDArray[np.uint8]) -> None:
    assert read_number(picture) is None


@given(number=numbers, flipped=st.sets(st.integers(min_value=0, max_value=55), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_a_wrong_block_never_gives_a_wrong_number(number: int, flipped: set[int]) -> None:
    # The CRC finds every error of up to three bits in 48; the rest is the sync pattern.
    picture = grey(560, 320)
    burn(picture, number)
    for bit in flipped:
        row, column = divmod(bit, 28)
        block = picture[row * 20 : row * 20 + 20, column * 20 : column * 20 + 20]
        block[:] = 251 - block
    assert read_number(picture) is None


def test_a_block_in_between_makes_the_picture_unreadable() -> None:
    picture = grey(560, 320)
    burn(picture, 77)
    picture[0:20, 200:220] = 126
    assert read_number(picture) is None


def test_a_plain_picture_has_no_number() -> None:
    assert read_number(grey(640, 360)) is None


def test_a_tiny_picture_has_no_number() -> None:
    assert read_number(grey(64, 36)) is None


def test_pictures_move() -> None:
    source = MovingPicture(320, 180)
    below_the_number = slice(60, 180)
    first = source.draw(0)[below_the_number]
    assert all(np.any(source.draw(number)[below_the_number] != first) for number in range(1, 50))


def test_the_digits_differ_from_number_to_number() -> None:
    def digits(number: int) -> bytes:
        picture = grey(640, 360)
        burn(picture, number)
        return picture[44:80, :260].tobytes()

    assert len({digits(number) for number in [0, 1, 9, 10, 19, MAX_NUMBER]}) == 6


def test_a_picture_is_drawn_the_same_each_time() -> None:
    source = MovingPicture(320, 180)
    assert np.array_equal(source.draw(5), source.draw(5))


@pytest.mark.parametrize("number", [-1, MAX_NUMBER + 1])
def test_a_number_beyond_32_bits_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        burn(grey(640, 360), number)


@pytest.mark.parametrize(("width", "height"), [(222, 128), (224, 126), (641, 360), (640, 361), (3842, 2160)])
def test_an_unusable_size_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="sides are even"):
        MovingPicture(width, height)


@pytest.mark.parametrize("shape", [(541, 640), (3, 4, 5), (540,)])
def test_an_array_that_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(ValueError, match="I420"):
        burn(array, 1)
    with pytest.raises(ValueError, match="I420"):
        read_number(array)
