"""An innocent caller with a constant rate, whose latencies show the cost of attacks."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hostile.attack import Site
from leadline.v1.inference_service_pb2 import GetModelRequest, PredictRequest
from leadline.v1.inference_service_pb2_grpc import InferenceServiceStub

# The interval of each kind of call, in seconds. The calls are open loop: a slow answer delays no
# other call.
_INTERVALS = {"health": 0.02, "cheap": 0.05, "encoded": 0.25}

_DEADLINE_SECONDS = 60


@dataclass(frozen=True)
class Sample:
    """One call.

    Attributes:
        kind: a health check, a cheap call of the store, or a prediction of an image file.
        due: its due time, by the monotonic clock.
        seconds: from the due time to the answer, or to the end of waiting.
        status: the name of its gRPC status, or PENDING.
    """

    kind: str
    due: float
    seconds: float
    status: str


@dataclass(frozen=True)
class Latency:
    """Latencies of one kind of call, in seconds."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Latency":
        """Returns the percentiles of samples; between two samples, the larger one."""
        ordered = sorted(sample.seconds for sample in samples)
        p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
        return cls(p50, p99, ordered[-1])


async def call_steadily(site: Site, stop: asyncio.Event, patience: float) -> list[Sample]:
    """Calls until `stop`, then waits `patience` seconds for answers."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(site.target, options) as channel:
        calls = _calls(channel, site)
        samples: list[Sample] = []
        async with asyncio.TaskGroup() as group:
            for kind in _INTERVALS:
                group.create_task(_repeat(kind, calls[kind], samples, stop=stop, patience=patience))
    return samples


def _calls(channel: Any, site: Site) -> dict[str, Callable[[], Awaitable[Any]]]:
    health: Any = health_pb2_grpc.HealthStub(channel)
    inference: Any = InferenceServiceStub(channel)
    prediction = PredictRequest(model=site.model)
    prediction.encoded.images.append(site.image)
    get_model = GetModelRequest(name=site.model)
    return {
        "health": lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=_DEADLINE_SECONDS),
        "cheap": lambda: inference.GetModel(get_model, timeout=_DEADLINE_SECONDS),
        "encoded": lambda: inference.Predict(prediction, timeout=_DEADLINE_SECONDS),
    }


async def _repeat(
    kind: str,
    call: Callable[[], Awaitable[Any]],
    samples: list[Sample],
    *,
    stop: asyncio.Event,
    patience: float,
) -> None:
    calls: list[asyncio.Task[None]] = []
    interval, due = _INTERVALS[kind], time.monotonic()
    while not stop.is_set():
        calls.append(asyncio.create_task(_call(kind, call, due, samples)))
        due += interval
        await asyncio.sleep(due - time.monotonic())
    _, pending = await asyncio.wait(calls, timeout=patience)
    for task in pending:
        task.cancel()
    await asyncio.gather(*calls)


async def _call(
    kind: str, call: Callable[[], Awaitable[Any]], due: float, samples: list[Sample]
) -> None:
    status = "OK"
    try:
        await call()
    except grpc.RpcError as error:
        # A call that is cancelled here ends in one of two ways.
        task = asyncio.current_task()
        status = "PENDING" if task and task.cancelling() else error.code().name
    except asyncio.CancelledError:
        status = "PENDING"
    samples.append(Sample(kind, due, time.monotonic() - due, status))
