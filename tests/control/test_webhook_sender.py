"""One message to one receiver: real sockets, real TLS, names that mean what they should not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.delivery.guard import Guard
from control.delivery.sender import Sender
from control.webhook_settings import WebhookSettings
from tests.control.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from control.delivery.attempts import Attempt

SETTINGS = WebhookSettings(timeout=0.5, connect_timeout=0.3)
LOOPBACK = Guard.of(["127.0.0.0/8"], http=True)


@asynccontextmanager
async def sending(
    guard: Guard = LOOPBACK, **options: Any
) -> AsyncIterator[Callable[[str], Awaitable[Attempt]]]:
    async with Sender(guard, SETTINGS, **options) as sender:
        yield lambda url: sender.send(url, b"{}", {"webhook-id": "msg_1"})


def names(*addresses: str) -> Callable[..., Any]:
    """A resolver for which every name has these addresses."""

    def lookup(_host: str, port: int, **_options: Any) -> list[Any]:
        found: list[Any] = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            place = (address, port) if family == socket.AF_INET else (address, port, 0, 0)
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place))
        return found

    return lookup


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A server that says this to everybody, whatever they ask; None: nothing, for ever."""

    serving: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(10):
            await asyncio.gather(*(task for task in serving if task is not None))


async def test_what_goes_out() -> None:
    async with receiving() as receiver, sending() as send:
        attempt = await send(receiver.url)
        assert (attempt.status, attempt.error, attempt.retry_after) == (200, "", None)
        assert attempt.seconds > 0
        (got,) = receiver.received
        assert got.body == b"{}"
        assert got.headers["webhook-id"] == "msg_1"
        assert got.headers["user-agent"].startswith("causeway/")
        assert got.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with receiving() as receiver, sending() as send:
        receiver.answer, receiver.headers = (lambda _: status), {"Location": receiver.url}
        attempt = await send(receiver.url)
        assert (attempt.status, attempt.error) == (status, f"the receiver answered {status}")
        assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("120", 120, 120),
        ("9" * 30, 9e8, 1e9),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0),
    ],
)
async def test_a_receiver_asks_for_time(text: str, low: float, high: float) -> None:
    async with receiving() as receiver, sending() as send:
        receiver.answer, receiver.headers = (lambda _: 503), {"Retry-After": text}
        attempt = await send(receiver.url)
        assert attempt.retry_after is not None
        assert low <= attempt.retry_after <= high


async def test_a_receiver_asks_to_be_left_alone_until_some_time() -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    async with receiving() as receiver, sending() as send:
        headers = {"Retry-After": until.strftime("%a, %d %b %Y %H:%M:%S GMT")}
        receiver.answer, receiver.headers = (lambda _: 503), headers
        attempt = await send(receiver.url)
        assert attempt.retry_after is not None
        assert 3000 <= attempt.retry_after <= 3600


@pytest.mark.parametrize("text", ["soon", "", "-5", "²", "Fri, 99 Dec 1999 23:59:59 GMT"])
async def test_nonsense_about_time_is_no_time(text: str) -> None:
    async with receiving() as receiver, sending() as send:
        receiver.answer, receiver.headers = (lambda _: 503), {"Retry-After": text}
        assert (await send(receiver.url)).retry_after is None


async def test_a_name_whose_address_is_forbidden_is_not_connected_to() -> None:
    async with receiving() as receiver:
        port = receiver.url.split(":")[2]
        for addresses in (["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["::1"]):
            async with sending(Guard(http=True), lookup=names(*addresses)) as send:
                attempt = await send(f"http://hooks.example.com:{port}")
                assert attempt.status is None
                assert "is no public address" in attempt.error
        assert receiver.received == []


async def test_a_name_goes_to_the_address_that_was_checked() -> None:
    """Whatever the name means when it is asked for again."""
    asked: list[str] = []

    def lookup(host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
        return names(address)(host, port, **options)

    async with receiving() as receiver, sending(lookup=lookup) as send:
        attempt = await send(receiver.url.replace("127.0.0.1", "hooks.example.com"))
        assert attempt.status == 200
        assert asked == ["hooks.example.com"]
        assert receiver.received[0].headers["host"].startswith("hooks.example.com:")


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.0.0.1", "0177.0.0.1"])
async def test_other_spellings_of_an_address_go_nowhere(host: str) -> None:
    async with receiving() as receiver, sending(Guard(http=True)) as send:
        attempt = await send(receiver.url.replace("127.0.0.1", host))
        assert attempt.status is None
        assert receiver.received == []


async def test_the_socket_is_guarded_even_where_nothing_else_was() -> None:
    """A literal address skips the resolver; should it pass the check of the URL, the socket is not made."""

    class Lenient(Guard):
        def check_url(self, url: str) -> None:
            pass

    async with receiving() as receiver, sending(Lenient()) as send:
        attempt = await send(receiver.url)
        assert "is no public address" in attempt.error
        assert receiver.received == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "no answer within 0.5 s"),
        (b"SSH-2.0-OpenSSH\r\n", "its answer is not HTTP"),
        (b"", "no connection, or it broke"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000, "its answer is not HTTP"),
    ],
)
async def test_answers_that_are_none(answer: bytes | None, said: str) -> None:
    async with answering(answer) as url, sending() as send:
        attempt = await send(url)
        assert attempt.status is None
        assert said in attempt.error
        assert "SSH" not in attempt.error


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",  # breaks off
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
async def test_what_an_answer_goes_on_to_say_does_not_matter(answer: bytes) -> None:
    async with answering(answer) as url, sending() as send:
        assert (await send(url)).status == 200


async def test_nobody_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with sending() as send:
            attempt = await send(f"http://127.0.0.1:{bound.getsockname()[1]}/?token=hush")
            assert attempt.error.startswith("no connection, or it broke")
            assert "hush" not in attempt.error


async def test_a_name_that_nobody_has() -> None:
    def lookup(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    async with sending(lookup=lookup) as send:
        assert "its name is not found" in (await send("http://nowhere.example/")).error
        too_long = await send(f"http://{'a' * 64}.example/")
        assert too_long.status is None


async def test_a_name_server_that_does_not_answer_costs_only_the_timeout() -> None:
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def lookup(*_: Any, **__: Any) -> Any:
        asyncio.run_coroutine_threadsafe(answered.wait(), loop).result(10)
        return []

    async with sending(lookup=lookup) as send:
        assert "no connection within 0.3 s" in (await send("http://slow.example/")).error
        answered.set()


async def test_closed() -> None:
    sender = Sender(LOOPBACK, SETTINGS)
    assert (await sender.send("http://127.0.0.1/", b"", {})).status is None


async def test_settings_may_have_become_stricter() -> None:
    async with receiving() as receiver, sending(Guard.of(["127.0.0.0/8"], http=False)) as send:
        assert "must be https://" in (await send(receiver.url)).error
        assert receiver.received == []


async def test_a_certificate_must_be_the_hosts(tmp_path: Path) -> None:
    """Although the connection goes to an address, the name is what the certificate is held against."""
    server, trust = _certificate(tmp_path, "hooks.example.com")
    async with receiving(ssl_context=server) as receiver:
        options: dict[str, Any] = {"lookup": names("127.0.0.1"), "ssl_context": trust}
        async with sending(**options) as send:
            good = await send(receiver.url.replace("127.0.0.1", "hooks.example.com"))
            assert good.status == 200
            bad = await send(receiver.url.replace("127.0.0.1", "other.example.com"))
            assert "its certificate is not valid for the URL's host" in bad.error
        async with sending(lookup=names("127.0.0.1")) as send:
            unknown = await send(receiver.url.replace("127.0.0.1", "hooks.example.com"))
            assert "its certificate is not valid" in unknown.error
        async with receiving() as plain, sending(**options) as send:
            attempt = await send(plain.url.replace("http://127.0.0.1", "https://hooks.example.com"))
            assert "TLS with it does not come about" in attempt.error


def _certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a certificate for the host, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    trust = ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())
    return server, trust
