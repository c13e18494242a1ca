"""A moving picture that carries its own number, for a machine and for a person.

A picture is an I420 array (uint8, height × 3/2 rows of width: the luma plane, then both chroma planes), as
PyAV's `yuv420p` arrays are. The number is burnt in twice:

* Along the upper edge as black and white blocks, ROWS × COLUMNS of them over the full width: sync pattern
  (8 bits), number (32 bits), CRC-16 of the number (CCITT polynomial 0x1021, start 0xFFFF), most significant
  bit first. Positions are fractions of the picture, so a scaled picture can be read too; the blocks are large
  enough to survive VP8 at 300 kbit/s.
* Below it as decimal digits.

Pure: arrays in, arrays out. It must not know how pictures are encoded, or when.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]

__all__ = [
    "MAX_NUMBER",
    "MAX_SIDE",
    "MIN_HEIGHT",
    "MIN_WIDTH",
    "MovingPicture",
    "burn",
    "check_size",
    "read_number",
]

MAX_NUMBER: Final = (1 << 32) - 1
MIN_WIDTH: Final = 224
MIN_HEIGHT: Final = 128
MAX_SIDE: Final = 3840
"""The smallest picture whose blocks are readable, in pixels, and the longest side that is drawn."""

_ROWS: Final = 2
_COLUMNS: Final = 28
_SYNC: Final = 0b10110010
_CRC_START: Final = 0xFFFF
_BAND: Final = 16  # a row of blocks is height / 16 high

# Luma in the limited range of television, and colourless chroma.
_BLACK: Final = 16
_WHITE: Final = 235
_GREY: Final = 128
# Between the darkest and the lightest block; noise averages out to nearly none.
_LEAST_CONTRAST: Final = 80

# Digits of 5 × 7 dots, one row of five bits after the other.
_FONT: Final = (
    (0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E),
    (0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E),
    (0x0E, 0x11, 0x01, 0x06, 0x08, 0x10, 0x1F),
    (0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E),
    (0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02),
    (0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E),
    (0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E),
    (0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08),
    (0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E),
    (0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C),
)
_GLYPH_ROWS: Final = 7
_CELL: Final = 6  # dots from one digit to the next
_DIGITS: Final = 10
_MARGIN: Final = 4  # pixels around the digits


def _glyphs() -> NDArray[np.uint8]:
    """Return the digits as luma, 10 × 7 × 6 dots; the sixth column keeps the next digit off."""
    rows = np.array(_FONT, dtype=np.uint8)[:, :, np.newaxis]
    dots = (rows >> np.arange(_CELL - 2, -1, -1, dtype=np.uint8)) & 1
    padded = np.pad(dots, ((0, 0), (0, 0), (0, 1)))
    return np.where(padded == 1, _WHITE, _BLACK).astype(np.uint8)


_GLYPHS: Final = _glyphs()


def _geometry(picture: Picture) -> tuple[int, int]:
    """Return width and height. Raises ValueError for an array that is not I420 of a usable size."""
    if picture.ndim != 2 or picture.shape[0] % 3:  # noqa: PLR2004 - rows and columns
        raise ValueError(f"not an I420 picture: shape {picture.shape}")
    width, height = picture.shape[1], picture.shape[0] * 2 // 3
    check_size(width, height)
    return width, height


def check_size(width: int, height: int) -> None:
    """Raise ValueError unless a picture of this size, in pixels, can be drawn."""
    if not (MIN_WIDTH <= width <= MAX_SIDE and MIN_HEIGHT <= height <= MAX_SIDE) or width % 2 or height % 2:
        raise ValueError(
            f"picture of {width}×{height}; sides are even, from {MIN_WIDTH}×{MIN_HEIGHT} to {MAX_SIDE}"
        )


def _crc(number: int) -> int:
    return crc_hqx(number.to_bytes(4, "big"), _CRC_START)


def burn(picture: Picture, number: int) -> None:
    """Write `number`, 0 to MAX_NUMBER, into `picture`, in place. Raises ValueError for what does not fit."""
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"number {number} is not within 32 bits")
    width, height = _geometry(picture)
    word = _SYNC << 48 | number << 16 | _crc(number)
    band = height // _BAND
    # Where each column of blocks ends, so that a width that 28 does not divide is filled, too.
    columns = np.arange(width) * _COLUMNS // width
    bits = np.array([word >> bit & 1 for bit in range(_ROWS * _COLUMNS - 1, -1, -1)]).reshape(_ROWS, _COLUMNS)
    luma = np.where(bits == 1, _WHITE, _BLACK).astype(np.uint8)
    for row in range(_ROWS):
        picture[row * band : (row + 1) * band, :] = luma[row, columns]
    scale = max(1, min(height // 90, (width - 2 * _MARGIN) // (_DIGITS * _CELL)))
    _burn_digits(picture, number, top=_ROWS * band + _MARGIN, scale=scale)
    _bleach(picture, width, height, _ROWS * band)


def _burn_digits(picture: Picture, number: int, *, top: int, scale: int) -> None:
    text = np.concatenate([_GLYPHS[int(digit)] for digit in f"{number:0{_DIGITS}d}"], axis=1)
    enlarged = text.repeat(scale, axis=0).repeat(scale, axis=1)
    rows, columns = enlarged.shape
    picture[top : top + rows, _MARGIN : _MARGIN + columns] = enlarged


def _bleach(picture: Picture, width: int, height: int, rows: int) -> None:
    """Take the colour out of the upper `rows`, so that black and white look it."""
    # A chroma plane is half as wide: one array row holds two of its rows.
    chroma = picture[height:].reshape(2, height // 2, width // 2)
    chroma[:, : (rows + 1) // 2, :] = _GREY


def read_number(picture: Picture) -> int | None:
    """Return the number burnt into `picture`, None when there is none or it cannot be read for sure.

    The picture may have been scaled. Raises ValueError for an array that is not I420.
    """
    if picture.ndim != 2 or picture.shape[0] % 3:  # noqa: PLR2004 - rows and columns
        raise ValueError(f"not an I420 picture: shape {picture.shape}")
    width, height = picture.shape[1], picture.shape[0] * 2 // 3
    levels = _levels(picture, width, height)
    if levels is None:
        return None
    lightest, darkest = float(levels.max()), float(levels.min())
    contrast = lightest - darkest
    if contrast < _LEAST_CONTRAST:
        return None
    # A block that is neither black nor white makes the whole word doubtful.
    relative = (levels - darkest) / contrast
    if np.any((relative > 0.35) & (relative < 0.65)):  # noqa: PLR2004 - the middle
        return None
    word = 0
    for bit in relative > 0.5:  # noqa: PLR2004 - the middle
        word = word << 1 | int(bit)
    number, crc = word >> 16 & MAX_NUMBER, word & 0xFFFF
    return number if word >> 48 == _SYNC and crc == _crc(number) else None


def _levels(picture: Picture, width: int, height: int) -> NDArray[np.float64] | None:
    """Return the mean luma of the middle of every block, None when the picture is too small for any."""
    band, step = height / _BAND, width / _COLUMNS
    if band < 4 or step < 4:  # noqa: PLR2004 - pixels; less has no middle
        return None
    levels = np.empty(_ROWS * _COLUMNS)
    for row in range(_ROWS):
        top, bottom = int((row + 0.25) * band), int((row + 0.75) * band) + 1
        # Summed over the rows once, then over each block's middle half.
        sums = picture[top:bottom, :].sum(axis=0, dtype=np.uint32) / (bottom - top)
        for column in range(_COLUMNS):
            left, right = int((column + 0.3) * step), int((column + 0.7) * step) + 1
            levels[row * _COLUMNS + column] = sums[left:right].mean()
    return levels


class MovingPicture:
    """Draws pictures of a colour gradient with a disc that wanders over it, numbered.

    `width` and `height` are pixels, even, at least MIN_WIDTH × MIN_HEIGHT. Raises ValueError otherwise. The
    background is drawn once; a picture costs a copy, the disc and the number.
    """

    def __init__(self, width: int, height: int) -> None:
        check_size(width, height)
        self.width = width
        self.height = height
        self._background = _gradient(width, height)
        radius = min(width, height) // 10 // 2 * 2
        self._side = 2 * radius
        rows, columns = np.mgrid[-radius:radius, -radius:radius]
        self._disc = np.asarray(rows**2 + columns**2 < radius**2)

    def draw(self, number: int) -> Picture:
        """Return picture `number`; the same number always gives the same picture."""
        picture = self._background.copy()
        left, top = self._position(number)
        place = picture[top : top + self._side, left : left + self._side]
        place[self._disc] = _WHITE
        chroma = picture[self.height :].reshape(2, self.height // 2, self.width // 2)
        half = self._side // 2
        spot = chroma[:, top // 2 : top // 2 + half, left // 2 : left // 2 + half]
        spot[:, self._disc[::2, ::2]] = _GREY
        burn(picture, number)
        return picture

    def _position(self, number: int) -> tuple[int, int]:
        """Return where the disc's box starts: there and back in both directions, at different paces."""
        top = self.height // 4
        across, down = self.width - self._side, self.height - self._side - top
        left = _to_and_fro(number * max(2, self.width // 160), across)
        return left // 2 * 2, (top + _to_and_fro(number * max(2, self.height // 120), down)) // 2 * 2


def _to_and_fro(way: int, length: int) -> int:
    place = way % (2 * length)
    return min(place, 2 * length - place)


def _gradient(width: int, height: int) -> Picture:
    picture = np.empty((height * 3 // 2, width), dtype=np.uint8)
    across = np.linspace(0.0, 1.0, width)
    down = np.linspace(0.0, 1.0, height)[:, np.newaxis]
    picture[:height] = 50 + 70 * across + 50 * down
    chroma = picture[height:].reshape(2, height // 2, width // 2)
    chroma[0] = 90 + 80 * across[::2] + 0 * down[::2]
    chroma[1] = 170 - 80 * down[::2] + 0 * across[::2]
    return picture
