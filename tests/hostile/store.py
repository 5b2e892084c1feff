"""Callers who request much of the stored data, and callers who never read it."""

import asyncio
import contextlib
import itertools
import time

from h2.exceptions import ProtocolError

from hostile.attack import SWEEP, Bar, Scene, attack
from hostile.calls import send
from leadline.client import Client
from leadline.oip.v2.open_inference_pb2 import RepositoryIndexRequest
from leadline.v1.inference_service_pb2 import ListModelsRequest
from leadline.v1.inspection_service_pb2 import ListLikelyLabelErrorsRequest
from leadline.v1.job_pb2 import JobState
from leadline.v1.training_service_pb2 import (
    DeleteJobRequest,
    GetSweepRequest,
    ListJobsRequest,
    ListSweepsRequest,
    WatchJobRequest,
)
from support import http2_frames as frames
from support.bare_http2 import Connection
from support.wire import tiny_spec

_TRAINING = "/leadline.v1.TrainingService"
_INITIAL_WINDOW_SIZE = 4  # a setting of HTTP/2
_STREAMS = 100


# 2,000 streams with their calls hold about 65 kB each.
@attack(
    source="CVE-2019-9517, internal data buffering",
    bar=Bar(memory_mib=160),
    is_of_transport=True,
)
async def silent_watchers(scene: Scene) -> None:
    """Watches a training job 2,000 times without reading, from 20 connections.

    A watcher who reads must still receive events, and SIGTERM must not wait for the others.
    """
    with Client(scene.site.target) as client:
        job = client.train(tiny_spec(epochs=10_000, learning_rate=0.001))
        next(iter(job.epochs()))
        job.detach()
    await scene.begin()
    for _ in range(scene.scaled(3, 20)):
        await _watch_silently(scene, job.name)
    finished = WatchJobRequest(name=scene.site.model.replace("models/", "jobs/"))
    with contextlib.suppress(OSError, ProtocolError):  # it has shut down
        async with Connection(scene.site.port) as connection:
            while True:
                await _watch(scene, connection, finished.SerializeToString())


async def _watch(scene: Scene, connection: Connection, request: bytes) -> None:
    began = time.monotonic()
    await send(scene, connection, f"{_TRAINING}/WatchJob", request, seconds=60)
    if (seconds := time.monotonic() - began) > scene.scaled(20, 1):
        scene.wrong[:] = [f"a watcher who reads waited for {seconds:.1f} s"]
    await asyncio.sleep(0.1)


async def _watch_silently(scene: Scene, job: str) -> None:
    request = WatchJobRequest(name=job).SerializeToString()
    # The transport keeps the connection open until the process ends.
    _, writer = await asyncio.open_connection("127.0.0.1", scene.site.port)
    _HELD.append(writer)
    writer.write(frames.PREFACE + frames.settings({_INITIAL_WINDOW_SIZE: 0}))
    for stream in range(1, 2 * _STREAMS, 2):
        writer.write(frames.headers(stream, f"{_TRAINING}/WatchJob"))
        writer.write(frames.message(stream, request))
    await writer.drain()


_HELD: list[asyncio.StreamWriter] = []


@attack(
    source="calls that cost the server much and the caller little (CWE-405)", history=(100, 10_000)
)
async def sweep_reads(scene: Scene) -> None:
    """Repeatedly requests a sweep of 1,000 jobs, 400 times concurrently."""
    request = GetSweepRequest(name=SWEEP).SerializeToString()
    await scene.begin()
    await _call_over_and_over(scene, [(f"{_TRAINING}/GetSweep", request)], at_once=(40, 400))


@attack(
    source="work that outlives its caller (CWE-772)", history=(1_000, 10_000), is_of_transport=True
)
async def abandoned_listings(scene: Scene) -> None:
    """Requests the largest pages and indexes with deadlines of a second, and disconnects."""
    listings = (
        ("/inference.GRPCInferenceService/RepositoryIndex", RepositoryIndexRequest()),
        ("/leadline.v1.InferenceService/ListModels", ListModelsRequest(page_size=1_000)),
        (f"{_TRAINING}/ListJobs", ListJobsRequest(page_size=1_000)),
        (f"{_TRAINING}/ListJobs", ListJobsRequest(page_size=1_000, states=JobState.values()[1:])),
        (f"{_TRAINING}/ListSweeps", ListSweepsRequest(page_size=1_000)),
        (
            "/leadline.v1.InspectionService/ListLikelyLabelErrors",
            ListLikelyLabelErrorsRequest(dataset="tiny", page_size=1_000),
        ),
    )
    requests = [(path, request.SerializeToString()) for path, request in listings]
    await scene.begin()
    await _call_over_and_over(scene, requests, at_once=(12, 48), seconds=1)


@attack(source="a race between check and use (CWE-367)", is_finite=True)
async def deletes_at_once(scene: Scene) -> None:
    """Deletes each of 200 jobs three times at once: one call succeeds, and no file stays on
    disk."""
    with Client(scene.site.target) as client:
        jobs = []
        for _ in range(scene.scaled(20, 200)):
            job = client.train(tiny_spec())
            job.cancel()
            jobs.append(job.name)
    models = scene.site.data_dir / "models"
    for name in jobs:  # files like those of a worker
        attempt = models / name.removeprefix("jobs/") / "attempt-001"
        attempt.mkdir(parents=True, exist_ok=True)
        for number in range(20):
            (attempt / f"epoch-{number:05d}.json").write_text("{}")
    await scene.begin()
    async with Connection(scene.site.port) as connection:
        for name in jobs:
            request = DeleteJobRequest(name=name).SerializeToString()
            path = f"{_TRAINING}/DeleteJob"
            calls = (send(scene, connection, path, request) for _ in range(3))
            statuses = sorted(await asyncio.gather(*calls))
            if statuses != ["NOT_FOUND", "NOT_FOUND", "OK"]:
                scene.wrong.append(f"{name}: {statuses}")
    left = [name for name in jobs if (models / name.removeprefix("jobs/")).exists()]
    if left:
        scene.wrong.append(f"folders of {len(left)} deleted jobs are still there")


async def _call_over_and_over(
    scene: Scene, requests: list[tuple[str, bytes]], *, at_once: tuple[int, int], seconds: int = 10
) -> None:
    turns = itertools.cycle(requests)

    async def call() -> None:
        path, request = next(turns)
        async with Connection(scene.site.port) as connection:
            await send(scene, connection, path, request, seconds=seconds)

    await scene.repeat(scene.scaled(*at_once), call)
