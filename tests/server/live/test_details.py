"""The limit on the page's requests in flight."""

import asyncio
import threading
from pathlib import Path

import pytest

from leadline.server.errors import NotFoundError
from leadline.server.live.details import MAX_REQUESTS, Details
from leadline.server.live.errors import TooBusyError
from leadline.server.services.inspection import InspectionService
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.models import ModelService
from leadline.server.serving.catalog import Catalog
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool


async def test_requests_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    store = Store(open_database(tmp_path / "jobs.db"))
    threads = ThreadPool("page", 1)
    catalog = Catalog(store=store, threads=threads, artifacts=Artifacts(tmp_path))
    lane = ReadLane("page-reads", 1)
    models = ModelService(store=store, threads=threads, large_reads=lane, catalog=catalog)
    inspection = InspectionService(models=models, lane=lane, dataset_cache=tmp_path)
    details = Details(models, inspection)
    go_on = threading.Event()
    blocked = asyncio.create_task(threads.run(go_on.wait))
    waiting = [asyncio.create_task(details.job("nobody")) for _ in range(MAX_REQUESTS)]
    await asyncio.sleep(0)

    with pytest.raises(TooBusyError, match="64 requests"):
        await details.confusion("nobody", 1)

    go_on.set()
    await blocked
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, NotFoundError) for answer in answers)
    with pytest.raises(NotFoundError):
        await details.confusion("nobody", 1)
    threads.close()
    lane.close()
