"""A real RabbitMQ for the tests that ask for one: `rabbitmq`, and for two clusters `brokers`, on loopback.

Each has a folder, an Erlang port mapper and free ports of its own, and leaves alone whatever broker the
machine has. With TLS, clients show a certificate.
Servers are on a leash: they die with pytest. They are started once: tests that use them share a worker
(tests.scheduling).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from causeway.leash import leashed
from tests.servers import wait_until_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PASSWORD", "RABBITMQ", "USER", "VHOST", "Brokers", "RabbitMq", "brokers", "rabbitmq"]

RABBITMQ: Final = pytest.mark.timeout(150)
"""What modules that ask for the broker set `pytestmark` to; on a busy machine it takes a while to start."""
USER: Final = "owt"
PASSWORD: Final = "bröker/secret@1"
VHOST: Final = "owt"
_START_TIMEOUT: Final = 100.0
_STOP_TIMEOUT: Final = 15.0
_PLACES: Final = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/usr/sbin", "/opt/homebrew/sbin")


class RabbitMq:
    """One server. `launch` from the main thread (its leash ends with the thread), `wait_up` from any."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = _find("rabbitmq-server")
        self._mapper_program = _find("epmd")
        self._mapper: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.port, self.tls_port, self._mapper_port, self._distribution_port = _free_ports(4)
        self._write_files()

    def url(self, *, tls: bool = False) -> str:
        """Return its URL, credentials included."""
        scheme, port = ("amqps", self.tls_port) if tls else ("amqp", self.port)
        return f"{scheme}://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/{VHOST}"

    def launch(self) -> None:
        """Start the server."""
        if self._mapper is None:
            self._mapper = self._spawn([self._mapper_program, "-port", str(self._mapper_port)], "KILL")
        self._server = self._spawn([self._program], "TERM")

    def wait_up(self) -> None:
        """Wait until it takes connections."""
        assert self._server is not None
        wait_until_listening(self._server, self.port, seconds=_START_TIMEOUT, log=self.folder / "log.txt")

    def stop(self) -> None:
        """Stop the server in good order; every connection breaks."""
        if self._server is not None:
            _end(self._server)
            self._server = None

    async def restart(self) -> None:
        """Stop the server and start it again, on the same ports; from the main thread's loop."""
        await asyncio.to_thread(self.stop)
        self.launch()
        await asyncio.to_thread(self.wait_up)

    def close(self) -> None:
        """Stop everything."""
        self.stop()
        if self._mapper is not None:
            _end(self._mapper)

    def file(self, name: str) -> str:
        """Return the path of one of `ca.pem`, `server.pem`, `client.pem` (the latter two with their keys)."""
        return str(self.folder / name)

    def _spawn(self, command: list[str], signal: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                leashed(command, signal=signal, user="nobody" if os.geteuid() == 0 else None),
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(self._mapper_program).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_NODENAME": f"causeway-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_LOGS": "-",
            # One scheduler that does not spin: the tests need the processors.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
            ),
        }

    def _write_files(self) -> None:
        _write_certificates(self.folder)
        files = {
            "plugins": "[].\n",
            "advanced.config": "[].\n",
            "definitions.json": json.dumps(
                {
                    "vhosts": [{"name": VHOST}],
                    "users": [{"name": USER, "password": PASSWORD, "tags": []}],
                    "permissions": [
                        {"user": USER, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}
                    ],
                }
            ),
            "rabbitmq.conf": f"""\
listeners.tcp.1 = 127.0.0.1:{self.port}
listeners.ssl.1 = 127.0.0.1:{self.tls_port}
ssl_options.cacertfile = {self.file("ca.pem")}
ssl_options.certfile = {self.file("server.pem")}
ssl_options.keyfile = {self.file("server.pem")}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
load_definitions = {self.folder}/definitions.json
log.console = true
log.console.level = warning
log.file = false
""",
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, "nobody")


def _find(program: str) -> str:
    path = shutil.which(program, path=os.pathsep.join([*_PLACES, os.environ.get("PATH", "")]))
    if path is None:
        pytest.fail(
            f"{program} is missing: install RabbitMQ (Debian: apt-get install rabbitmq-server)", False
        )
    return path


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_TIMEOUT)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _write_certificates(folder: Path) -> None:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("causeway test CA", ca_key, issuer=None, issuer_key=ca_key)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, issuer=ca, issuer_key=ca_key)
        (folder / f"{name}.pem").write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class Brokers(NamedTuple):
    """Two servers that know nothing of each other, for two clusters."""

    east: RabbitMq
    west: RabbitMq


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMq]:
    """Lend the session's broker."""
    with _running() as broker:
        yield broker


@pytest.fixture(scope="session")
def brokers(rabbitmq: RabbitMq) -> Iterator[Brokers]:
    """Lend the session's broker, and a second one."""
    with _running() as second:
        yield Brokers(rabbitmq, second)


@contextlib.contextmanager
def _running() -> Iterator[RabbitMq]:
    folder = Path(tempfile.mkdtemp(prefix="causeway-rabbitmq-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        broker = RabbitMq(folder)
        try:
            broker.launch()
            broker.wait_up()
            yield broker
        finally:
            broker.close()
    finally:
        shutil.rmtree(folder)
