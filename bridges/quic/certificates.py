"""The certificates that a process shows over time: new ones before the old expire, files when they change.

Each bridge has one. It is asked for the current certificate at any time, and tells who wants to know when
there is another. Who is shown it, and who has to hear of it, is not known here.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from bridges.quic.certificate import Certificate
from causeway.backoff import Backoff
from causeway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridges.quic.settings import CertificateSettings

__all__ = ["Certificates", "renewal_of"]

log = structlog.get_logger(__name__)

_EARLY: Final = timedelta(days=3)
"""So long before its end a self-signed certificate is replaced: room for control to be away."""
_LONGEST_SLEEP: Final = 3600.0
"""Seconds: a machine's clock may be set meanwhile."""

_Stamp = tuple[int, int]
"""Size and time of change of a file."""


def renewal_of(certificate: Certificate) -> datetime:
    """Return when a self-signed certificate is to be replaced."""
    return certificate.expires - _EARLY


class Certificates:
    """The certificate of one bridge, and what follows it. Raises ConfigError if a file is not one.

    `now` is the machine's time, which certificates are about.
    """

    def __init__(
        self,
        common_name: str,
        settings: CertificateSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._common_name = common_name
        self._settings = settings
        self._now = now
        self._watchers: list[Callable[[Certificate], None]] = []
        self._stamps = self._look()
        self.current = self._make()
        """What is shown now."""

    def watch(self, watcher: Callable[[Certificate], None]) -> None:
        """Have `watcher` called with every certificate that comes after the current one."""
        self._watchers.append(watcher)

    async def run(self) -> None:
        """Renew for ever: a self-signed certificate in time, a file's when the file has changed."""
        backoff = Backoff(base=self._settings.check_interval, cap=_LONGEST_SLEEP)
        while True:
            await asyncio.sleep(self.pause())
            try:
                self.renew_if_due()
            except ConfigError as error:
                # The one that is shown is as good as before; a file may be half written.
                log.warning("certificate.not_renewed", error=str(error))
                await asyncio.sleep(backoff.next_delay())
            else:
                backoff.reset()

    def pause(self) -> float:
        """Return the seconds until it is to be looked again whether something is due."""
        if self._settings.file:
            return self._settings.check_interval
        left = (renewal_of(self.current) - self._now()).total_seconds()
        return min(max(left, self._settings.check_interval), _LONGEST_SLEEP)

    def renew_if_due(self) -> bool:
        """Replace the certificate if it is time to, and tell; return whether that was so.

        Raises ConfigError if a file has changed into something that cannot be used.
        """
        if self._settings.file:
            stamps = self._look()
            if stamps == self._stamps:
                return False
            renewed = self._make()
            self._stamps = stamps
            if renewed.fingerprint == self.current.fingerprint:
                return False
        elif self._now() < renewal_of(self.current):
            return False
        else:
            renewed = self._make()
        log.info("certificate.renewed", fingerprint=renewed.fingerprint, expires=renewed.expires.isoformat())
        self.current = renewed
        for watcher in self._watchers:
            watcher(renewed)
        return True

    def _make(self) -> Certificate:
        settings = self._settings
        if settings.file:
            return Certificate.load(settings.file, key_file=settings.key_file, password=settings.password)
        return Certificate.self_signed(self._common_name, now=self._now())

    def _look(self) -> list[_Stamp | None]:
        """Return what tells whether the files have changed."""
        stamps: list[_Stamp | None] = []
        for file in filter(None, (self._settings.file, self._settings.key_file)):
            try:
                found = Path(file).stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_size, found.st_mtime_ns))
        return stamps
