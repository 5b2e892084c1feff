"""Sweeps of the live page, over HTTP."""

import asyncio
import threading
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.options import JobOptions
from leadline.server.live.security_middleware import SecurityMiddleware
from leadline.server.live.sweeps import MOST_REQUESTS, SweepRoutes
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.sweeps.grid import Grid, SweepAxis
from leadline.server.sweeps.sweep import SweepRequest
from leadline.server.thread_pool import ThreadPool


def make_store(folder: Path) -> Store:
    """Creates a store with one sweep of two queued jobs."""
    store = Store(open_database(folder / "jobs.db"))
    axes = (SweepAxis(field="batch_norm", values=(False, True)),)
    store.sweeps.create(
        SweepRequest(grid=Grid(spec=TrainingSpec(dataset="tiny"), axes=axes), options=JobOptions()),
        sweep_id="sweep",
        job_ids=["plain", "norm"],
        request_id=None,
        max_queued=2,
    )
    return store


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await SecurityMiddleware([]).handle(request, handler)


async def test_a_sweep_is_sent_with_its_jobs_and_points_and_requests_are_limited(
    tmp_path: Path,
) -> None:
    threads = ThreadPool("page", 1)
    application = web.Application(middlewares=[guarded])
    application.add_routes(SweepRoutes(store=make_store(tmp_path), threads=threads).routes())
    async with TestClient(TestServer(application)) as client:
        sweep = await (await client.get("/live/v1/sweeps/sweep")).json()
        unknown = await client.get("/live/v1/sweeps/nobody")
        go_on = threading.Event()
        blocked = asyncio.create_task(threads.run(go_on.wait))
        requests = [
            asyncio.create_task(client.get("/live/v1/sweeps/sweep")) for _ in range(MOST_REQUESTS)
        ]
        await asyncio.sleep(0.2)
        refused = await client.get("/live/v1/sweeps/sweep")
        go_on.set()
        await blocked
        answers = await asyncio.gather(*requests)

    assert [(job["id"], job["values"]) for job in sweep["jobs"]] == [
        ("plain", {"batch_norm": False}),
        ("norm", {"batch_norm": True}),
    ]
    assert [variant["point"] for variant in sweep["variants"]] == [
        {"batch_norm": False},
        {"batch_norm": True},
    ]
    assert (sweep["sweep"]["state"], sweep["spec"]["dataset"]) == ("queued", "tiny")
    assert unknown.status == 404
    assert refused.status == 503
    assert {answer.status for answer in answers} == {200}
    threads.close()
