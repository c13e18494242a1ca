"""The process behind `causeway edge rtp`: a cluster whose participants are RTP streams."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bridges.internal.listener import InternalListener
from causeway.client import ControlClient
from causeway.errors import ConfigError
from edge.places import Places
from edge.rtp.inputs import Input, described
from edge.rtp.outputs import Output
from lab.cluster import running_cluster
from lab.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge.settings import Settings
    from lab.cluster import Cluster

__all__ = ["running_rtp_edge"]


@contextlib.asynccontextmanager
async def running_rtp_edge(settings: Settings) -> AsyncIterator[Cluster]:
    """Run the edge; its ports are open when this gives its cluster.

    Raises ConfigError, UnavailableError; ApiError when control refuses the application key.
    """
    edge, lab = settings.edge, settings.lab
    inputs = [Input(one, described(one), idle_timeout=edge.idle_timeout) for one in edge.inputs]
    outputs = [Output(one) for one in edge.outputs]
    if not inputs and not outputs:
        raise ConfigError("edge.inputs and edge.outputs are empty: there is nothing to do")
    for name, value in (("lab.control_url", lab.control_url), ("edge.application_key", edge.application_key)):
        if not value:
            raise ConfigError(f"{name} is not set, which the edge needs to join conferences")
    async with contextlib.AsyncExitStack() as stack:
        for one in inputs:
            stack.callback(one.close)
            await one.open(lab.host, settings=edge.rtp)
        for other in outputs:
            stack.callback(other.close)
            await other.open(settings=edge.rtp)
        cluster = await stack.enter_async_context(running_cluster(lab))
        listener = await InternalListener.start(lab.host, settings=lab.internal)
        stack.push_async_callback(listener.close)
        timeout = lab.registrar.call_timeout
        control = await stack.enter_async_context(
            ControlClient(lab.control_url, edge.application_key, timeout=timeout)
        )
        places = Places(cluster, listener, control, retry_cap=edge.join_retry_cap)
        tasks = await stack.enter_async_context(Tasks())
        running = [tasks.create_task(one.run(places)) for one in inputs]
        running += [tasks.create_task(other.run(places)) for other in outputs]
        try:
            yield cluster
        finally:
            for task in running:
                task.cancel()
