"""Fragments of one track as they come in, and the lost ones that parity brings back.

Pure: keeps what parity may be over, works out what is missing, knows neither order nor time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridges.media.own.parity import recover
from bridges.wire.errors import WireError
from bridges.wire.own_media.datagram import Fragment, Parity, decode

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Rebuilding"]

_MAX_GROUPS: Final = 128


class _Group:
    """Parity over the same fragments, as far as it has come."""

    __slots__ = ("missing", "places", "rows")

    def __init__(self, parity: Parity) -> None:
        self.places = [
            (parity.frame + offset, index)
            for offset, count in enumerate(parity.counts)
            for index in range(parity.start, parity.start + count)
        ]
        self.missing = set(self.places)
        self.rows: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        return sum(map(len, self.rows.values()))


class Rebuilding:
    """What there is of the frames of a track."""

    def __init__(self, alias: int) -> None:
        self.size = 0
        """Bytes kept."""
        self.recovered = 0
        """Fragments that parity brought back."""
        self.malformed = 0
        """Times that parity gave something that cannot be."""
        self._alias = alias
        self._frames: dict[int, dict[int, Fragment]] = {}
        self._groups: dict[tuple[int, int, tuple[int, ...]], _Group] = {}

    def has(self, frame: int, index: int) -> bool:
        """Return whether a fragment is there."""
        return index in self._frames.get(frame, ())

    def body(self, frame: int) -> bytes:
        """Return a frame all of whose fragments are there."""
        fragments = self._frames[frame]
        return b"".join(fragments[index].payload for index in range(len(fragments)))

    def add(self, fragment: Fragment) -> list[Fragment]:
        """Keep a fragment that is not there yet; return those that can be had by it, not kept yet."""
        number = fragment.head.frame
        fragments = self._frames.get(number)
        if fragments is None:
            fragments = self._frames[number] = {}
        fragments[fragment.part] = fragment
        self.size += len(fragment.raw)
        return self._found_by((number, fragment.part)) if self._groups else []

    def _found_by(self, place: tuple[int, int]) -> list[Fragment]:
        """Return the fragments that can be had now that one more is there."""
        found: list[Fragment] = []
        for key, group in list(self._groups.items()):
            if place in group.missing:
                group.missing.discard(place)
                found += self._try(key, group)
        return found

    def add_parity(self, parity: Parity) -> list[Fragment]:
        """Take a row of parity; return the fragments that can be had by it, not kept yet."""
        key = (parity.frame, parity.start, parity.counts)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _MAX_GROUPS:
                self._drop(next(iter(self._groups)))
            group = self._groups[key] = _Group(parity)
            group.missing = {place for place in group.places if not self.has(*place)}
        if parity.row not in group.rows:
            group.rows[parity.row] = parity.symbol
            self.size += len(parity.symbol)
        return self._try(key, group)

    def forget(self, frame: int) -> None:
        """Drop a frame's fragments."""
        self.size -= sum(len(each.raw) for each in self._frames.pop(frame, {}).values())

    def forget_before(self, frame: int) -> None:
        """Drop everything of the frames before that one, and parity that is over no later ones."""
        for old in [each for each in self._frames if each < frame]:
            self.forget(old)
        for key in [key for key in self._groups if key[0] + len(key[2]) <= frame]:
            self._drop(key)

    def forget_parity(self) -> None:
        """Drop all parity."""
        for key in list(self._groups):
            self._drop(key)

    def _try(self, key: tuple[int, int, tuple[int, ...]], group: _Group) -> list[Fragment]:
        missing = sorted(group.missing)
        if missing and len(missing) > len(group.rows):
            return []
        self._drop(key)
        if not missing:
            return []
        columns = {place: number for number, place in enumerate(group.places)}
        known: dict[int, bytes] = {}
        for place in columns.keys() - group.missing:
            fragment = self._frames.get(place[0], {}).get(place[1])
            if fragment is None:  # forgotten since
                return []
            known[columns[place]] = fragment.raw
        try:
            datagrams = recover(known, [columns[place] for place in missing], group.rows)
            fragments = list(self._as_promised(datagrams, missing))
        except (ValueError, WireError):
            self.malformed += 1
            return []
        self.recovered += len(fragments)
        return fragments

    def _drop(self, key: tuple[int, int, tuple[int, ...]]) -> None:
        self.size -= self._groups.pop(key).size

    def _as_promised(self, datagrams: list[bytes], places: list[tuple[int, int]]) -> Iterable[Fragment]:
        """Read what parity gave; raises ValueError if these are not the fragments that were missing."""
        for datagram, place in zip(datagrams, places, strict=True):
            fragment = decode(datagram)
            if not isinstance(fragment, Fragment) or (*fragment.head[:2], fragment.part) != (
                self._alias,
                *place,
            ):
                raise ValueError("parity gave another fragment")
            yield fragment
