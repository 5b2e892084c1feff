"""The page's questions: how many may be in work."""

import asyncio
import threading
from pathlib import Path

import pytest

from leadline.server.errors import NotFoundError
from leadline.server.live.details import MOST_QUESTIONS, Details
from leadline.server.live.errors import TooBusyError
from leadline.server.serving.catalog import Catalog
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool


async def test_questions_beyond_those_that_may_wait_are_refused(tmp_path: Path) -> None:
    store = Store(open_database(tmp_path / "jobs.db"))
    threads = ThreadPool("page", 1)
    details = Details(
        store=store,
        threads=threads,
        catalog=Catalog(store=store, threads=threads, artifacts=Artifacts(tmp_path)),
        dataset_cache=tmp_path,
    )
    go_on = threading.Event()
    blocked = asyncio.create_task(threads.run(go_on.wait))
    waiting = [asyncio.create_task(details.job("nobody")) for _ in range(MOST_QUESTIONS)]
    await asyncio.sleep(0)

    with pytest.raises(TooBusyError, match="64 questions"):
        await details.confusion("nobody", 1)

    go_on.set()
    await blocked
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, NotFoundError) for answer in answers)
    with pytest.raises(NotFoundError):
        await details.confusion("nobody", 1)
    threads.close()
