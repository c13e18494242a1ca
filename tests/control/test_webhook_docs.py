"""The receiver of docs/webhooks.md takes what is really sent, and nothing else."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.control.service import running, until
from tests.control.webhook_kit import LOCAL, made

DOCS = Path(__file__).parents[2] / "docs" / "webhooks.md"


async def test_the_example_receives(database_url: str, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "receiver.py"
    # A free port instead of the example's, told on standard output.
    serving = 'ThreadingHTTPServer(("127.0.0.1", 8500), Receiver).serve_forever()'
    assert serving in code
    free = serving.replace("8500", "0").replace(".serve_forever()", "")
    file.write_text(
        code.replace(
            serving, f"server = {free}; print(server.server_port, flush=True); server.serve_forever()"
        ).replace(
            'print(message["type"], message["data"])', 'print(message["type"], message["data"], flush=True)'
        ),
        encoding="utf-8",
    )
    async with running(database_url, webhooks=LOCAL) as service:
        # The secret is known when the webhook is, which has to be told the port: begin with any port.
        webhook = await made(service, url="http://127.0.0.1:9/", enabled=False)
        receiver = await asyncio.create_subprocess_exec(
            sys.executable,
            str(file),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"WEBHOOK_SECRET": webhook["secret"]},
        )
        try:
            assert receiver.stdout is not None
            async with asyncio.timeout(30):
                port = int(await receiver.stdout.readline())
                path = f"/v1/webhooks/{webhook['id']}"
                change = {"url": f"http://127.0.0.1:{port}/", "enabled": True}
                assert (await service.operator.patch(path, json=change)).status_code == 200
                await service.create("standup")
                line = (await receiver.stdout.readline()).decode()
                assert line.startswith("conference.created {")
                assert "'conference': 'standup'" in line
                # Replayed, it is recognised; with a secret that the receiver does not know, refused.
                listed = (await service.operator.get(f"{path}/deliveries")).json()["deliveries"]
                await service.operator.post(f"{path}/deliveries/{listed[0]['id']}/replay")

                async def delivered() -> str:
                    shown = await service.operator.get(f"{path}/deliveries/{listed[0]['id']}")
                    return str(shown.json()["state"])

                await until(delivered, lambda seen: seen == "delivered")
                await service.operator.post(f"{path}/secret", json={"keep": 0})
                told = (await service.operator.post(f"{path}/test")).json()
                assert (told["taken"], told["status"]) == (False, 401)
        finally:
            receiver.kill()
            rest, _ = await receiver.communicate()
        assert rest == b""
