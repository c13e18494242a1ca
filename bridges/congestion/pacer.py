"""When the next packet may leave: a bucket of bytes that fills at the controller's rate."""

from __future__ import annotations

__all__ = ["Pacer"]


class Pacer:
    """Spreads packets over time, `burst` bytes at once; without a rate it lets everything pass."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, burst: float) -> None:
        self.rate: float | None = None
        """Bytes a second."""
        self.burst = burst
        self._tokens = burst
        self._at = 0.0

    def ready_at(self, now: float) -> float | None:
        """Return when the next packet may leave; None: now."""
        if self.rate is None:
            return None
        if now > self._at:
            self._tokens = min(self._tokens + (now - self._at) * self.rate, self.burst)
            self._at = now
        if self._tokens > 0:
            return None
        # Not for a single byte: every wake-up should be worth a packet.
        return now + (self.burst / 4 - self._tokens) / self.rate

    def spend(self, size: float) -> None:
        """Take bytes that were sent out of the bucket; a negative size gives back."""
        if self.rate is not None:
            self._tokens = min(self._tokens - size, self.burst)
