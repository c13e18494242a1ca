"""The processes that join benchmarks run against: the service with its own Postgres, and a stub cluster."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from bench._cpu import used
from causeway.keys import new_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench._cpu import Used

__all__ = ["Ground", "ground"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is running."""

    port: int
    pids: tuple[int, ...]
    """Of the service's replicas."""
    database: str
    postgres_pid: int
    stub_port: int
    keys: dict[str, str]
    session: aiohttp.ClientSession

    @property
    def headers(self) -> dict[str, str]:
        """What an application sends."""
        return {"Authorization": f"Bearer {self.keys['application']}", "Content-Type": "application/json"}

    def used(self) -> Used:
        """Return the CPU seconds that the service and its Postgres have used until now."""
        return used(self.pids, self.postgres_pid)

    async def call(self, kind: str, method: str, path: str, body: Any = None) -> Any:
        """Call the service with a key of that kind."""
        async with self.session.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else msgspec.json.encode(body),
            headers={"Authorization": f"Bearer {self.keys[kind]}", "Content-Type": "application/json"},
        ) as answer:
            text = await answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
            return msgspec.json.decode(text) if text else None

    async def register(self, cluster: str, *, region: str, driver: str) -> None:
        """Register a cluster that the stub plays."""
        body = {
            "region": region,
            "rest_url": f"http://127.0.0.1:{self.stub_port}",
            "service_id": "bench",
            "service_key": "bench-key",
            "instance": cluster,
            "incarnation": "first",
            "driver": driver,
            "portal": {"host": "127.0.0.1", "port": 8080, "secure": False},
        }
        await self.call("enrolment", "PUT", f"/v1/clusters/{cluster}", body)


@asynccontextmanager
async def ground(*, replicas: int = 1) -> AsyncIterator[Ground]:
    """Start service and stub; stop both and delete their files. All `replicas` listen on one port."""
    folder = _folder()
    keys = {kind: new_key(kind) for kind in ("enrolment", "application", "operator")}
    try:
        service = ("bench._service", str(folder), msgspec.json.encode(keys).decode())
        async with (
            _child(*service) as said,
            _child("bench._http") as stub,
            aiohttp.ClientSession() as session,
            AsyncExitStack() as others,
        ):
            ready = msgspec.json.decode(said)
            pids = [ready["pid"]]
            for _ in range(replicas - 1):
                another = await others.enter_async_context(
                    _child(*service, ready["database"], str(ready["port"]))
                )
                pids.append(msgspec.json.decode(another)["pid"])
            yield Ground(
                port=ready["port"],
                pids=tuple(pids),
                database=ready["database"],
                postgres_pid=ready["postgres"],
                stub_port=int(stub),
                keys=keys,
                session=session,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="causeway-bench-"))
    folder.chmod(0o711)  # Postgres may run as another user
    return folder


@asynccontextmanager
async def _child(module: str, *args: str) -> AsyncIterator[bytes]:
    """Run a module until the end of the block; give the line that it prints when it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} did not start")
        yield line
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
