"""Certificates: files as OWT and everybody else has them, and renewal while bridges run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from bridges.quic import Certificate, Certificates, CertificateSettings, DialError, QuicSettings, dial, listen
from bridges.quic.certificates import renewal_of
from causeway.errors import ConfigError
from tests.bridges.test_quic import FAST, Recorder, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bridges.quic.certificate import PrivateKey

PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()
PKCS8 = serialization.PrivateFormat.PKCS8


def issued(key: PrivateKey, *, by: Certificate | None = None, name: str = "bridge") -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=30))
        .sign(key if by is None else by.private_key, digest)
    )


def pem_of(certificate: Certificate, password: str = "") -> bytes:
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else PLAIN
    key = certificate.private_key.private_bytes(PEM, PKCS8, encryption)
    return certificate.certificate.public_bytes(PEM) + key


def pfx_of(certificate: Certificate, password: str) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"bridge",
        certificate.private_key,
        certificate.certificate,
        list(certificate.chain),
        serialization.BestAvailableEncryption(password.encode()) if password else PLAIN,
    )


async def shows(certificate: Certificate) -> None:
    """Check that a listener that shows the certificate can be dialled by its fingerprint."""
    recorders: list[Recorder] = []

    def accept(_: object) -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    listener = await listen("127.0.0.1", 0, certificate=certificate, on_connection=accept, settings=FAST)
    connection = await dial("127.0.0.1", listener.port, fingerprint=certificate.fingerprint, settings=FAST)
    await until(lambda: recorders)
    connection.close()
    await connection.wait_closed()
    listener.close()


@pytest.mark.parametrize("password", ["", "abc123", "ä🔑"])
async def test_pkcs12_as_owts_bridges_have_it(tmp_path: Path, password: str) -> None:
    made = Certificate.self_signed("owt")
    file = tmp_path / "certificate.pfx"
    file.write_bytes(pfx_of(made, password))
    loaded = Certificate.load(str(file), password=password)
    assert loaded.fingerprint == made.fingerprint
    await shows(loaded)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)],
    ids=["elliptic curve", "RSA"],
)
async def test_pem_with_its_chain_and_the_key_apart(tmp_path: Path, key: PrivateKey) -> None:
    authority = Certificate.self_signed("authority")
    made = Certificate(issued(key, by=authority), key, [authority.certificate])
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"".join(one.public_bytes(PEM) for one in (made.certificate, *made.chain)))
    apart = tmp_path / "key.pem"
    apart.write_bytes(key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"open")))
    loaded = Certificate.load(str(chain), key_file=str(apart), password="open")
    assert loaded.fingerprint == made.fingerprint
    assert loaded.chain == made.chain
    await shows(loaded)


def test_pem_in_one_file(tmp_path: Path) -> None:
    made = Certificate.self_signed("one")
    file = tmp_path / "both.pem"
    file.write_bytes(b"\n" + pem_of(made))
    assert Certificate.load(str(file)).fingerprint == made.fingerprint


def _without_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return pkcs12.serialize_key_and_certificates(b"k", key, None, None, PLAIN)


def _with_another_key() -> bytes:
    one, other = Certificate.self_signed("a"), Certificate.self_signed("b")
    return pem_of(Certificate(one.certificate, other.private_key))


def _of_a_strange_kind() -> bytes:
    key = ed448.Ed448PrivateKey.generate()
    return Certificate.self_signed("a").certificate.public_bytes(PEM) + key.private_bytes(PEM, PKCS8, PLAIN)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda: b"", "not a PKCS12 or PEM file"),
        (lambda: b"\x30\x82rubbish", "not a PKCS12 or PEM file"),
        (lambda: b"-----BEGIN CERTIFICATE-----\nrubbish", "not a PKCS12 or PEM file"),
        (lambda: Certificate.self_signed("a").certificate.public_bytes(PEM), "not a PKCS12 or PEM file"),
        (lambda: pfx_of(Certificate.self_signed("a"), "another"), "or not with this password"),
        (lambda: pem_of(Certificate.self_signed("a"), "another"), "or not with this password"),
        (_without_certificate, "no certificate with its private key"),
        (_with_another_key, "another certificate's"),
        (_of_a_strange_kind, "cannot be used"),
        (lambda: b"x" * (2 << 20), "larger than any certificate"),
    ],
)
def test_other_files_are_one_clear_line(tmp_path: Path, content: Callable[[], bytes], complaint: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content())
    with pytest.raises(ConfigError, match=complaint) as caught:
        Certificate.load(str(file), password="s3cr3t" if "password" in complaint else "")
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Certificates("x", CertificateSettings(file="/nowhere/certificate.pfx"))


def test_the_password_does_not_show() -> None:
    settings = QuicSettings(certificate=CertificateSettings(file="f", password="s3cr3t"))
    assert "s3cr3t" not in repr(settings)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_self_signed_certificate_is_renewed_before_it_expires() -> None:
    clock = Clock()
    certificates = Certificates("west event bridge", CertificateSettings(), now=clock)
    first, told = certificates.current, list[Certificate]()
    certificates.watch(told.append)
    assert first.expires - clock.now == timedelta(days=14, hours=-1)
    assert certificates.pause() == 3600.0
    clock.now = renewal_of(first) - timedelta(seconds=60)
    assert certificates.pause() == 60.0
    assert not certificates.renew_if_due()
    clock.now = renewal_of(first)
    assert certificates.renew_if_due()
    assert told == [certificates.current]
    assert certificates.current.fingerprint != first.fingerprint
    assert certificates.current.expires - clock.now == timedelta(days=14, hours=-1)
    assert not certificates.renew_if_due()


def test_a_certificate_is_renewed_late_if_the_machine_slept() -> None:
    clock = Clock()
    certificates = Certificates("x", CertificateSettings(), now=clock)
    clock.now += timedelta(days=400)
    assert certificates.pause() == CertificateSettings().check_interval
    assert certificates.renew_if_due()
    assert certificates.current.expires > clock.now


async def test_a_file_that_changes_is_taken_and_a_broken_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "bridge.pem"
    one, two = Certificate.self_signed("one"), Certificate.self_signed("two")
    file.write_bytes(pem_of(one))
    certificates = Certificates("x", CertificateSettings(file=str(file), check_interval=0.01))
    told: asyncio.Queue[Certificate] = asyncio.Queue()
    certificates.watch(told.put_nowait)
    task = asyncio.create_task(certificates.run())
    try:
        file.write_bytes(b"half a certi")
        with pytest.raises(ConfigError):
            certificates.renew_if_due()
        file.write_bytes(pem_of(one) + b"\n")  # another file, the same certificate
        await until(lambda: not certificates.renew_if_due())
        assert certificates.current.fingerprint == one.fingerprint
        file.write_bytes(pem_of(two))
        async with asyncio.timeout(10):
            assert (await told.get()).fingerprint == two.fingerprint
        assert told.empty()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_listener_shows_the_new_certificate_and_keeps_its_connections() -> None:
    old, new = Certificate.self_signed("old"), Certificate.self_signed("new")
    accepted: list[Recorder] = []

    def accept(connection: object) -> Recorder:
        accepted.append(Recorder())
        return accepted[-1]

    listener = await listen("127.0.0.1", 0, certificate=old, on_connection=accept, settings=FAST)
    before = await dial("127.0.0.1", listener.port, fingerprint=old.fingerprint, settings=FAST)
    listener.show(new)
    with pytest.raises(DialError, match="another certificate"):
        await dial("127.0.0.1", listener.port, fingerprint=old.fingerprint, settings=FAST)
    both = msgspec.structs.replace(FAST, trusted_fingerprints=(old.fingerprint, new.fingerprint))
    after = await dial("127.0.0.1", listener.port, fingerprint=None, settings=both)
    stream = before.open_stream()
    before.send(stream, b"still here")
    await until(lambda: any(recorder.data.get(stream) == b"still here" for recorder in accepted))
    only_old = msgspec.structs.replace(FAST, trusted_fingerprints=(old.fingerprint,), insecure_unpinned=True)
    with pytest.raises(DialError, match="another certificate"):
        await dial("127.0.0.1", listener.port, fingerprint=None, settings=only_old)
    for connection in (before, after):
        connection.close()
        await connection.wait_closed()
    listener.close()
