"""A bad network path on the command line.

    python -m tests.impairment 4433 --to 127.0.0.1:5544 "delay=50 jitter=5 loss=1"

Relays UDP datagrams between clients that send to LISTEN and the server, and does to them what the path's
description says, in both directions alike unless --there (towards the server) or --back add to it. With the
same seed and the same datagrams at the same times the same happens. Ends with Ctrl-C or after --for seconds,
and prints what became of the datagrams as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from tests.impairment.relay import Relay
from tests.impairment.spec import HELP, SpecError, parse_profile, parse_rebinding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.impairment.core import Impairment
    from tests.impairment.relay import Address


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Relay as the command line says."""
    parser = _Parser(
        prog="python -m tests.impairment",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("listen", metavar="LISTEN", help="[host:]port where clients send to; 0: a free port")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument("path", nargs="*", default=[], help="what the path does, both ways; see below")
    parser.add_argument("--there", default="", metavar="PATH", help="besides, towards the server")
    parser.add_argument("--back", default="", metavar="PATH", help="besides, towards the clients")
    parser.add_argument(
        "--rebind", metavar="S[:S]", help="clients get new ports: every so many seconds, first at"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides all chance (default 0)")
    parser.add_argument("--for", type=float, dest="seconds", metavar="S", help="end by itself")
    given = parser.parse_intermixed_args(arguments)
    try:
        both = parse_profile(" ".join(given.path))
        work = _relay(
            _address(given.to),
            there=parse_profile(given.there, both),
            back=parse_profile(given.back, both),
            rebinding=None if given.rebind is None else parse_rebinding(given.rebind),
            seed=given.seed,
            listen=_address(given.listen),
            seconds=given.seconds,
        )
    except SpecError as error:
        parser.error(str(error))
    try:
        asyncio.run(work)
    except OSError as error:
        parser.error(f"cannot listen on {given.listen}: {error.strerror or error}")


async def _relay(server: Address, *, seconds: float | None, **options: Any) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Relay.running(server, **options) as relay:
        print(f"relaying UDP port {relay.port} to {server[0]}:{server[1]}", flush=True)  # noqa: T201 - a command
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()
        figures = {
            "there": _figures(relay.there),
            "back": _figures(relay.back),
            "overflowed": relay.overflowed,
            "rebound": relay.rebound,
        }
    print(json.dumps(figures))  # noqa: T201 - as above


def _figures(path: Impairment) -> dict[str, Any]:
    return {
        "sent": path.sent,
        "sent_bytes": path.sent_bytes,
        "delivered": path.delivered,
        "lost": {cause.name.lower(): count for cause, count in path.lost.items()},
    }


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise SpecError(f"{text!r}: an address is HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


if __name__ == "__main__":
    main(sys.argv[1:])
