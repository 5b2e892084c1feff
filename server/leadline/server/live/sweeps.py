"""The details of one sweep as JSON: its points, its jobs, and the best depths."""

import json
from collections.abc import Iterable

from aiohttp import web

from leadline.server.live.cards import Card, job_card, sweep_card
from leadline.server.live.errors import Admission
from leadline.server.storage.store import Store
from leadline.server.sweeps.sweep import SweepView
from leadline.server.thread_pool import ThreadPool

# The most requests in flight or waiting for a thread.
MOST_REQUESTS = 16

_SWEEP = "/live/v1/sweeps/{sweep:[0-9a-z]{1,32}}"


class SweepRoutes:
    """Serves sweeps to the page."""

    def __init__(self, *, store: Store, threads: ThreadPool) -> None:
        self._store = store
        self._threads = threads
        self._admission = Admission(MOST_REQUESTS)

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        """The routes, for the application's router."""
        return (web.get(_SWEEP, self._sweep),)

    async def _sweep(self, request: web.Request) -> web.Response:
        with self._admission:
            body = await self._threads.run(self._read, request.match_info["sweep"])
        return web.Response(text=body, content_type="application/json")

    def _read(self, sweep_id: str) -> str:
        # Encoded in the thread too, because a thousand jobs take about 400 KB.
        return json.dumps(sweep_details(self._store.sweeps.view(sweep_id)))


def sweep_details(view: SweepView) -> Card:
    """A sweep with its jobs in the order of the grid, and its table; accuracies are fractions."""
    grid = view.sweep.request.grid
    return {
        "sweep": sweep_card(view.sweep),
        "spec": grid.spec.to_dict(),
        "jobs": [{**job_card(job), "values": grid.point_of(job.spec)} for job in view.jobs],
        **view.table.to_dict(),
    }
