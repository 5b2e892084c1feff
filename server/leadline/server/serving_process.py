"""A serving process beside the main one: `python -m leadline.server.serving_process`.

It predicts by itself, with a catalog that follows the revision of the store, and has the main
process answer what needs the scheduler or writes. The main process starts it, with one end of
a socket as its standard input.
"""

import asyncio
import json
import signal
import socket
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog
import uvloop

from leadline.server.access.control import AccessControl
from leadline.server.api.forwarding import AnsweredElsewhere
from leadline.server.api.inference import InferenceServicer
from leadline.server.api.oip.servicer import OpenInferenceServicer
from leadline.server.api.ordered_pipeline import PipelineGroup
from leadline.server.api.pages import PageTokens
from leadline.server.api.server import GrpcServer, Servicers
from leadline.server.application import (
    LATE_SECONDS,
    PREDICTION_PATIENCE,
    Core,
    exit_after,
    failing_parts,
    following,
    guarding,
    make_prediction_service,
    make_predictor,
    monitoring,
)
from leadline.server.datasets import KnownDatasets
from leadline.server.main import tune_process
from leadline.server.processes.protocol import (
    STATUS_PATH,
    Greeting,
    SharedRevision,
    StatusMethod,
)
from leadline.server.services.models import ModelService
from leadline.server.serving.predictor import Predictor
from leadline.server.startup import DataDir
from leadline.server.storage.database import open_for_reading
from leadline.server.storage.store import Store
from leadline.server.telemetry.health import Probe
from leadline.server.telemetry.logs import configure_logs
from leadline.server.telemetry.processes import snapshot
from leadline.server.thread_pool import ThreadPool
from leadline.server.tls import TlsError, load_certificates
from leadline.server.transport.links import Link
from leadline.server.transport.sockets import most_linked_calls
from leadline.server.workers.parent import die_with_parent

_LOG = structlog.get_logger(__name__)


def main() -> int:
    """Serves until SIGTERM, or the end of the main process; returns the exit status."""
    die_with_parent()
    shared = socket.socket(fileno=0)
    received = Greeting.receive(shared)
    if received is None:
        return 0
    greeting, revision = received
    settings = greeting.settings
    configure_logs(level=settings.log_level, style=settings.log_format)
    structlog.contextvars.bind_contextvars(process=greeting.number)
    tune_process()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(greeting, revision, shared))
    except (OSError, TlsError) as error:
        _LOG.error("a serving process cannot serve", why=str(error))
        return 1
    return 0


async def _serve(greeting: Greeting, revision: SharedRevision, shared: socket.socket) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settings = greeting.settings
    link = Link(shared, max_calls=most_linked_calls() // (settings.serving_processes - 1))
    data = DataDir(settings.data_dir)
    store = Store(open_for_reading(data.database), revision=revision.view)
    access = AccessControl(settings, is_required=greeting.requires_identities)
    access.reload()  # before the first call
    tls = load_certificates(settings)
    known = KnownDatasets(sources={}, fingerprints={})
    core = Core(settings, data, store, known, access, tls=tls, process_number=greeting.number)
    async with AsyncExitStack() as stack:
        stack.callback(core.close)
        predictor = make_predictor(core, stack)
        servicers = _make_servicers(core, predictor)
        grpc_server = GrpcServer(
            settings,
            servicers,
            core.metrics.grpc,
            access,
            meter=core.meter,
            audit=core.call_audit,
            main=link,
            tls=tls,
        )
        await grpc_server.start()
        broken = asyncio.create_task(grpc_server.wait_broken())
        stack.callback(broken.cancel)
        await stack.enter_async_context(guarding(access, grpc_server.recheck))
        probes = _make_probes(core, predictor, link)
        monitor = await stack.enter_async_context(monitoring(core, probes, grpc_server))
        await stack.enter_async_context(following(core))
        scrapes = ThreadPool("metrics", 1)
        stack.callback(scrapes.close)

        async def status() -> dict[str, Any]:
            metrics = await scrapes.run(snapshot, core.metrics.registry)
            return {"failing": failing_parts(monitor), "metrics": metrics}

        link.open(grpc_server.linked_calls({STATUS_PATH: StatusMethod(status)}))
        ends = {asyncio.create_task(event.wait()) for event in (stop, link.closed)}
        await asyncio.wait({broken, *ends}, return_when=asyncio.FIRST_COMPLETED)
        is_broken = broken.done()
        exit_after(settings.shutdown_grace_seconds + LATE_SECONDS)
        await grpc_server.announce_stop()
        servicers.streams.stop()
        await grpc_server.stop()
    for end in ends:
        end.cancel()
    if is_broken:
        broken.result()


def _make_servicers(core: Core, predictor: Predictor) -> Servicers:
    """Makes the servicers of the calls that this process answers itself."""
    models = ModelService(
        store=core.store, threads=core.threads, large_reads=core.large_reads, catalog=core.catalog
    )
    predictions = make_prediction_service(core, predictor)
    streams = PipelineGroup(max_in_flight=core.settings.max_pending_per_stream)
    return Servicers(
        training=AnsweredElsewhere(),
        inference=InferenceServicer(
            models=models,
            predictions=predictions,
            streams=streams,
            tokens=PageTokens.load(core.data.page_key),
        ),
        inspection=AnsweredElsewhere(),
        open_inference=OpenInferenceServicer(
            models=models, predictions=predictions, streams=streams
        ),
        streams=streams,
    )


def _make_probes(core: Core, predictor: Predictor, link: Link) -> list[Probe]:
    """Makes the probes of this process, and of the parts of the main process that it needs."""

    async def check(part: str) -> None:
        if part in json.loads(await link.ask(STATUS_PATH))["failing"]:
            raise RuntimeError("the main process says so")

    return [
        Probe(part="store", check=partial(core.threads.run, core.store.check_reads)),
        Probe(part="predictions", check=predictor.check, patience=PREDICTION_PATIENCE),
        Probe(part="writes", check=partial(check, "writes")),
        Probe(part="scheduler", check=partial(check, "scheduler")),
        Probe(part="main", check=partial(check, "predictions")),
    ]


if __name__ == "__main__":
    sys.exit(main())
