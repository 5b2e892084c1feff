"""Hundreds of cancelled calls a second: a stream on the same connection must lose no event."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from faults.followers import faults_of
from faults.setting import Figure, Scale, Setting, none_of
from leadline.client import AsyncClient
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import WatchJobRequest
from leadline.v1.training_service_pb2_grpc import TrainingServiceStub
from support.wire import tiny_spec

_PER_SECOND = 500
_CALLS_PER_CHECK = 50

# The number of calls in flight before the oldest is cancelled, so that the server has started it.
_IN_FLIGHT = 10

_EPOCHS_PER_SECOND = 6


@dataclass
class _Beside:
    """The results of the other calls on the connection of the cancelled ones."""

    job: str
    events: list[JobEvent] = field(default_factory=list)
    checks: int = 0
    broken: list[str] = field(default_factory=list)

    async def follow(self, client: AsyncClient) -> None:
        """Watches the job with the SDK, which reconnects broken streams."""
        async for event in client.job(self.job).events():
            self.events.append(event)

    async def watch(self, channel: Any) -> None:
        """Watches the job with the bare stub, which does not reconnect."""
        request = WatchJobRequest(name=self.job)
        try:
            async for _ in TrainingServiceStub(channel).WatchJob(request, timeout=600):
                pass
        except grpc.RpcError as error:
            self.broken.append(f"WatchJob: {error}")

    async def cancel(self, channel: Any, count: int) -> None:
        """Starts calls and cancels them, with health checks in between."""
        stub: Any = HealthStub(channel)
        calls: deque[Any] = deque()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(count):
            calls.append(stub.Watch(HealthCheckRequest()))
            if len(calls) > _IN_FLIGHT:
                calls.popleft().cancel()
            if number % _CALLS_PER_CHECK == 0:
                await self._check(stub)
            await asyncio.sleep(max(0.0, began + number / _PER_SECOND - loop.time()))
        for call in calls:
            call.cancel()

    async def _check(self, stub: Any) -> None:
        self.checks += 1
        try:
            await stub.Check(HealthCheckRequest(), timeout=30)
        except grpc.RpcError as error:
            self.broken.append(f"Check: {error}")


def cancel_beside_streams(setting: Setting) -> list[Figure]:
    """Cancels calls on the connection of a live stream, over each transport."""
    figures = []
    for transport in ("grpcio", "h2corn"):
        flags = (f"--transport={transport}", "--spare-workers=1")
        with setting.server(*flags, folder=transport) as server:
            beside, epochs = asyncio.run(_run(server.target, setting.scale))
        count = setting.scale.cancellations
        setting.say(f"{transport}: {len(beside.broken)} calls failed beside {count:,} cancelled")
        figures.append(
            none_of(
                f"{transport}, cancelled calls on the connection of a stream that the SDK follows: "
                "events missed, repeated or out of order",
                faults_of(beside.job, epochs, beside.events),
                count,
            )
        )
        if transport == "grpcio":  # h2corn closes such a connection: docs/transports.md
            figures.append(
                none_of(
                    "grpcio, bare calls beside them on the same connection: failed",
                    beside.broken,
                    beside.checks + 1,
                )
            )
    return figures


async def _run(target: str, scale: Scale) -> tuple[_Beside, int]:
    count = scale.cancellations
    epochs = max(scale.epochs, _EPOCHS_PER_SECOND * count // _PER_SECOND)
    async with AsyncClient(target, reconnect_timeout=None) as client:
        channel = client._connection.channel  # the calls must share it
        job = await client.train(tiny_spec(epochs=epochs))
        job.detach()
        beside = _Beside(job.name)
        async with asyncio.TaskGroup() as group:
            group.create_task(beside.follow(client))
            group.create_task(beside.watch(channel))
            group.create_task(beside.cancel(channel, count))
    return beside, epochs
