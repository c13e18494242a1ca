"""Where a client is, as trusted proxies tell: a real MaxMind file, written by the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from starlette.requests import Request

from causeway.errors import ConfigError
from control.http.hints import Hint, Hints
from control.placement_settings import PlacementSettings

if TYPE_CHECKING:
    from pathlib import Path

PROXIES = ("10.0.0.0/8", "fd00::/8")


@pytest.fixture
def database(tmp_path: Path) -> str:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="GeoLite2-City", float_type="f64")
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"location": {"latitude": 52.5, "longitude": 13.4}})
    writer.insert_network(IPSet(["2001:db8::/32"]), {"location": {"latitude": 35.7, "longitude": 139.7}})
    writer.insert_network(IPSet(["203.0.113.0/24"]), {"country": {"iso_code": "FR"}})
    file = tmp_path / "city.mmdb"
    writer.to_db_file(str(file))
    return str(file)


def request_from(host: str, **headers: str) -> Request:
    raw = [(name.replace("_", "-").lower().encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw, "client": (host, 4711)})


@pytest.mark.parametrize(
    ("forwarded", "location"),
    [
        ("198.51.100.7", (52.5, 13.4)),
        ("2001:db8::1", (35.7, 139.7)),
        ("::ffff:198.51.100.7", (52.5, 13.4)),
        ("198.51.100.7, 10.0.0.9", (52.5, 13.4)),
        ("2001:db8::1, 198.51.100.7, fd00::1, 10.0.0.9", (52.5, 13.4)),
        ("203.0.113.5", None),
        ("192.0.2.1", None),
        ("198.51.100.7, nonsense", None),
        ("10.0.0.9", None),
        ("", None),
    ],
)
async def test_the_last_address_that_is_no_proxy_is_looked_up(
    database: str, forwarded: str, location: tuple[float, float] | None
) -> None:
    async with Hints(PlacementSettings(geo_database=database, trusted_proxies=PROXIES)) as hints:
        assert hints.read(request_from("10.1.2.3", x_forwarded_for=forwarded)) == Hint(None, location)


async def test_the_proxys_country_goes_before_the_address(database: str) -> None:
    settings = PlacementSettings(
        geo_database=database,
        trusted_proxies=PROXIES,
        country_header="X-Country",
        countries={"DE": "eu-west"},
    )
    async with Hints(settings) as hints:
        known = request_from("10.1.2.3", x_country="de", x_forwarded_for="2001:db8::1")
        assert hints.read(known) == Hint("eu-west")
        unknown = request_from("10.1.2.3", x_country="XX", x_forwarded_for="2001:db8::1")
        assert hints.read(unknown) == Hint(None, (35.7, 139.7))


async def test_nobody_else_is_believed(database: str) -> None:
    async with Hints(PlacementSettings(geo_database=database, trusted_proxies=PROXIES)) as hints:
        assert hints.read(request_from("192.0.2.9", x_forwarded_for="198.51.100.7")) == Hint()
    async with Hints(PlacementSettings(geo_database=database)) as hints:
        assert hints.read(request_from("10.1.2.3", x_forwarded_for="198.51.100.7")) == Hint()


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "geo.mmdb"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match=r"geo\.mmdb: not a MaxMind database$"):
        Hints(PlacementSettings(geo_database=str(file)))
