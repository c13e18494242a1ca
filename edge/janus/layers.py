"""Which of a picture's simulcast layers is passed on: the highest one that comes. Pure.

A publisher stops sending its upper layers when its path is too narrow, and sends them again when it is not.
"""

from __future__ import annotations

__all__ = ["LAYERS", "LayerChoice"]

LAYERS = 3
"""As many as WebRTC's simulcast has."""


class LayerChoice:
    """`take` every frame of every layer, and ask for a key frame of `wanted` if there is one."""

    def __init__(self, *, silence: float = 0.5) -> None:
        """Take a layer of which nothing came for `silence` seconds for one that is not sent."""
        self._silence = silence
        self._heard: dict[int, float] = {}
        self._passed: int | None = None
        self.wanted: int | None = None
        """The layer that is changed to as soon as a key frame of it comes."""

    def take(self, now: float, layer: int, *, key_frame: bool) -> bool:
        """Say whether a frame of `layer`, 0 the lowest, is passed on; `now` in seconds of any clock."""
        self._heard[layer] = now
        best = max(one for one, at in self._heard.items() if now - at < self._silence)
        if self._passed == best:
            self.wanted = None
        elif layer == best and key_frame:
            self._passed, self.wanted = best, None
        else:
            self.wanted = best
        return layer == self._passed
