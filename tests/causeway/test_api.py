"""The vocabulary of the API: what a name may be."""

from __future__ import annotations

import msgspec
import pytest

from causeway.api import BridgeAddress, ClusterId, ClusterRegistration, ConferenceId


@pytest.mark.parametrize("name", ["a", "eu-west", "room 1".replace(" ", "_"), "x" * 128, "0.1~2@3:4-5_6"])
def test_names(name: str) -> None:
    assert msgspec.convert(name, ClusterId) == name
    assert msgspec.convert(name, ConferenceId) == name


@pytest.mark.parametrize("name", ["", "-a", ".", "a b", "a/b", "a\n", "\na", "a\x00", "é", "x" * 129])
def test_no_names(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, ConferenceId)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x\n", "http://a b", "javascript:x"])
def test_no_urls(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(
            {
                "region": "r",
                "rest_url": url,
                "service_id": "s",
                "service_key": "k",
                "instance": "i",
                "incarnation": "i",
            },
            ClusterRegistration,
        )


@pytest.mark.parametrize("fingerprint", ["", "0" * 63, "0" * 64 + "\n", "G" * 64, "A" * 64])
def test_no_fingerprints(fingerprint: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"host": "h", "port": 1, "fingerprint": fingerprint}, BridgeAddress)
