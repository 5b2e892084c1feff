"""Builds the service from its settings, runs it, and shuts it down in order."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from leadline.models.datasets import DatasetError
from leadline.server.access.audit import AuditLog, path_of_process
from leadline.server.access.control import AccessControl
from leadline.server.access.meter import UsageMeter
from leadline.server.access.quotas import Quotas
from leadline.server.api.auditing import CallAudit
from leadline.server.api.inference import InferenceServicer
from leadline.server.api.inspection import InspectionServicer
from leadline.server.api.oip.servicer import OpenInferenceServicer
from leadline.server.api.ordered_pipeline import PipelineGroup
from leadline.server.api.pages import PageTokens
from leadline.server.api.server import GrpcServer, Servicers
from leadline.server.api.training import TrainingServicer
from leadline.server.datasets import KnownDatasets, prepare_datasets
from leadline.server.devices import available_cores, inference_device
from leadline.server.errors import StorageError
from leadline.server.jobs.options import Retention, RetentionPolicy
from leadline.server.live.page import is_shown, make_pages
from leadline.server.processes.protocol import STATUS_PATH, SharedRevision, StatusMethod
from leadline.server.processes.supervisor import ProcessError, ServingProcesses
from leadline.server.scheduling.assignment import AssignmentMaker
from leadline.server.scheduling.capacity import Capacity
from leadline.server.scheduling.disk_floor import DiskFloor
from leadline.server.scheduling.loss_policy import LossPolicy
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.recorder import ReportRecorder
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.inspection import InspectionService
from leadline.server.services.jobs import JobService
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.lifecycle import Lifecycle, in_batches
from leadline.server.services.models import ModelService
from leadline.server.services.predictions import PredictionService
from leadline.server.services.quotas import QuotaService
from leadline.server.services.sweeps import SweepService
from leadline.server.services.usage import UsageService
from leadline.server.serving.catalog import Catalog
from leadline.server.serving.decoding import DecoderPool
from leadline.server.serving.inputs import InputLimits
from leadline.server.serving.predictor import Predictor
from leadline.server.settings import Settings
from leadline.server.startup import (
    DataDir,
    StartupError,
    check_ready_file,
    load_access,
    load_tls,
    open_store,
    ready_file,
)
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.telemetry.health import HealthMonitor, Probe
from leadline.server.telemetry.metrics import Metrics
from leadline.server.telemetry.port import HttpPort, Pages, in_url
from leadline.server.thread_pool import ThreadPool
from leadline.server.tls import TlsCertificates, TlsError
from leadline.server.workers.local import WorkerPool

_LOG = structlog.get_logger(__name__)

# Threads for blocking calls: short reads of the store; its writes, one at a time; large
# reads; inspection.
_STORE_THREADS = 4
_WRITE_THREADS = 2
_LARGE_READ_THREADS = 2
_INSPECTION_THREADS = 2

# How many requests of the largest size may wait to be decoded.
_LARGEST_REQUESTS_WAITING = 4

# How long after the grace period the process ends itself if it has not stopped.
LATE_SECONDS = 2.0

# Looks that a probe's prediction may take: hundreds of batches may be ahead of it.
PREDICTION_PATIENCE = 15


Started = TypeVar("Started")


class ServingError(Exception):
    """The server had to stop; the message says why."""


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """The addresses of a running server; `page_url` is None if it shows no page."""

    target: str
    metrics_url: str
    page_url: str | None
    broken: "asyncio.Task[None]"
    """Ends with the error when gRPC can no longer be served."""

    @property
    def addresses(self) -> dict[str, str | None]:
        """The contents of the ready file."""
        return {
            "target": self.target,
            "metrics_url": self.metrics_url,
            "page_url": self.page_url,
        }


async def serve(settings: Settings) -> None:
    """Runs the service until SIGTERM or SIGINT.

    Raises:
        StartupError: the service cannot start.
        ServingError: the service has failed; jobs resume after a restart.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = await _unless(stop, stack.enter_async_context(run_server(settings)))
        if server is None:
            _LOG.info("stopped before it served")
            return
        _LOG.info("serving", target=server.target, metrics=server.metrics_url, page=server.page_url)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, server.broken}, return_when=asyncio.FIRST_COMPLETED)
        _LOG.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
        exit_after(settings.shutdown_grace_seconds + LATE_SECONDS)
    _LOG.info("stopped")
    if not stopped.done():
        stopped.cancel()
        # A supervisor restarts a server that exits, not a server that does not answer.
        raise ServingError(f"gRPC can no longer be served: {server.broken.exception()}")


def exit_after(seconds: float) -> None:
    """Ends the process if it still runs after this time: a thread may hang with the disk.

    Committed data is safe, and the next start requeues the jobs.
    """

    def end() -> None:
        _LOG.error("the stop takes too long: the process ends at once", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def _unless(stop: asyncio.Event, start: Coroutine[Any, Any, Started]) -> Started | None:
    """Returns the result of `start`, or None if `stop` is set first."""
    starting, stopped = asyncio.ensure_future(start), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            return starting.result()
        starting.cancel()
        await asyncio.wait({starting})
        return None
    finally:
        stopped.cancel()


@asynccontextmanager
async def run_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Runs the service within the context.

    It shuts down in the order that costs callers least. Health reports NOT_SERVING,
    and streams end with the sequence to resume from. Then calls in flight are answered,
    workers end, their jobs are requeued, and the store closes last.

    Raises:
        StartupError: the service cannot start.
    """
    check_ready_file(settings.ready_file)
    _check_processes(settings)
    access, tls = load_access(settings), load_tls(settings)
    data = DataDir(settings.data_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(data.locked())
        datasets = await _prepare(settings, data)
        revision = SharedRevision.make() if settings.serving_processes > 1 else None
        core = Core(settings, data, open_store(data, revision), datasets, access, tls=tls)
        stack.callback(core.close)
        processes = ServingProcesses(
            settings,
            revision,
            core.metrics.registry,
            access=access,
            on_restart=core.metrics.on_restart,
        )
        scheduler = _make_scheduler(core)
        predictor = make_predictor(core, stack)
        servicers = _make_servicers(core, scheduler, predictor, processes, stack)
        scheduling = await stack.enter_async_context(_scheduling(core, scheduler))
        pages = make_pages(
            settings,
            access=access,
            store=core.store,
            notifier=core.notifier,
            catalog=core.catalog,
            dataset_cache=data.datasets,
            audit=core.audit,
            stack=stack,
        )
        url = await stack.enter_async_context(_http_port(core, pages, processes))
        grpc_server, port = await _serve_grpc(core, servicers)
        running = RunningServer(
            target=f"{in_url(settings.host)}:{port}",
            metrics_url=f"{url}/metrics",
            page_url=f"{url}/" if is_shown(settings, access) else None,
            broken=asyncio.create_task(grpc_server.wait_broken()),
        )
        stack.callback(running.broken.cancel)
        await stack.enter_async_context(
            guarding(access, grpc_server.recheck, pages.gate.recheck, scheduler.recheck)
        )
        probes = [*_make_probes(core, predictor, scheduling), *processes.probes]
        monitor = await stack.enter_async_context(monitoring(core, probes, grpc_server))
        await stack.enter_async_context(following(core))
        await stack.enter_async_context(_beside(processes, port, grpc_server, monitor))
        with ready_file(settings.ready_file, running.addresses):
            try:
                yield running
            finally:
                await grpc_server.announce_stop()
                processes.drain()
                core.notifier.close()
                servicers.streams.stop()
                await grpc_server.stop()


class Core:
    """The objects that most parts of the service need, in any process of the server.

    Attributes:
        tls: the certificates; None for plain text.
    """

    def __init__(
        self,
        settings: Settings,
        data: DataDir,
        store: Store,
        datasets: KnownDatasets,
        access: AccessControl,
        *,
        tls: TlsCertificates | None = None,
        process_number: int = 0,
    ) -> None:
        self.settings = settings
        self.data = data
        self.store = store
        self.datasets = datasets
        self.access = access
        self.artifacts = Artifacts(data.models)
        self.disk_floor = DiskFloor(data.root, settings.min_free_disk_bytes)
        self.threads = ThreadPool("store", _STORE_THREADS)
        self.writes = ThreadPool("writes", _WRITE_THREADS)
        # One thread: removing many files of one model must not delay other work.
        self.removals = ThreadPool("removals", 1)
        # One thread: loading a network uses the disk, and a GPU, for up to seconds.
        self.loads = ThreadPool("loads", 1)
        self.large_reads = ReadLane("large-reads", _LARGE_READ_THREADS)
        self.notifier = JobNotifier()
        self.tls = tls
        self.catalog = Catalog(store=store, threads=self.threads, artifacts=self.artifacts)
        self.metrics = Metrics()
        self.metrics.watch_certificates(tls)
        self.audit = self._open_audit(process_number)
        self.quotas: Callable[[], Quotas] = lambda: access.quotas
        self.meter = UsageMeter(
            self.quotas, processes=settings.serving_processes, number=process_number
        )

    def _open_audit(self, process_number: int) -> AuditLog | None:
        """Opens the audit log, and has it record reloads of files, once for all processes."""
        settings = self.settings
        if settings.audit_log == "off":
            return None
        log = AuditLog(
            path_of_process(settings.audit_path, process_number),
            max_bytes=settings.audit_log_bytes,
            max_files=settings.audit_log_files,
        )
        self.metrics.watch_audit(lambda: log.written, lambda: log.lost)
        if process_number == 0:
            self.access.on_reload.append(partial(self._record_reload, log, "identities"))
            if self.tls is not None:
                self.tls.on_reload.append(partial(self._record_reload, log, "certificates"))
        return log

    def _record_reload(self, log: AuditLog, what: str, why: str | None) -> None:
        if self._is_audited():
            log.record("reload", resources=[what], code="OK" if why is None else "REFUSED")

    def _is_audited(self) -> bool:
        return self.settings.audit_log != "auto" or self.access.is_required

    @property
    def call_audit(self) -> CallAudit | None:
        """What records the calls of this process."""
        if self.audit is None:
            return None
        return CallAudit(self.audit, with_reads=self.settings.audit_reads, is_on=self._is_audited)

    def close(self) -> None:
        """Stops the threads after the calls that have started."""
        if self.audit is not None:
            self.audit.close()
        for threads in (
            self.large_reads,
            self.loads,
            self.removals,
            self.threads,
            self.writes,
        ):
            threads.close()


def _check_processes(settings: Settings) -> None:
    """Refuses more serving processes than can predict; warns of more than there are cores."""
    if settings.serving_processes == 1:
        return
    device = inference_device(settings.inference_device)
    if device != "cpu":
        raise StartupError(
            f"--serving-processes is {settings.serving_processes}, but predictions on {device} "
            "have one process: several would each load torch and the networks into the GPU's "
            "memory, and wait for one another there; use --serving-processes 1, or "
            "--inference-device cpu"
        )
    computing = settings.serving_processes * settings.inference_threads
    if computing > available_cores():
        _LOG.warning(
            "more threads compute predictions than there are cores",
            serving_processes=settings.serving_processes,
            inference_threads=settings.inference_threads,
            cores=available_cores(),
        )


async def _prepare(settings: Settings, data: DataDir) -> KnownDatasets:
    is_stopped = threading.Event()
    try:
        return await asyncio.to_thread(
            prepare_datasets,
            settings.datasets,
            data.datasets,
            max_pixels=settings.max_image_pixels,
            is_wanted=lambda: not is_stopped.is_set(),
        )
    except DatasetError as error:
        raise StartupError(str(error)) from error
    finally:
        is_stopped.set()


def _make_scheduler(core: Core) -> Scheduler:
    settings, capacity = core.settings, Capacity.of(core.settings)
    core.metrics.watch_jobs(core.store.jobs.count_by_state)
    core.metrics.watch_sweeps(core.store.sweeps.count_by_state)
    assignments = AssignmentMaker(
        artifacts=core.artifacts,
        dataset_sources=core.datasets.sources,
        dataset_cache=core.data.datasets,
        fingerprints=core.datasets.fingerprints,
        capacity=capacity,
        cpu_threads=settings.worker_threads or available_cores(),
        max_image_pixels=settings.max_image_pixels,
        worker_memory=settings.worker_memory_bytes,
    )
    core.metrics.watch_disk(core.disk_floor.free_bytes, lambda: core.notifier.hold is not None)
    return Scheduler(
        store=core.store,
        threads=core.writes,
        notifier=core.notifier,
        pool=WorkerPool(spares=settings.spare_workers, niceness=settings.worker_niceness),
        capacity=capacity,
        disk_floor=core.disk_floor,
        assignments=assignments,
        recorder=ReportRecorder(
            store=core.store,
            threads=core.writes,
            notifier=core.notifier,
            observer=core.metrics,
            artifacts=core.artifacts,
            quotas=core.quotas,
        ),
        quotas=core.quotas,
        losses=LossPolicy(
            max_attempts=settings.max_attempts, silence_limit=settings.worker_silence_seconds
        ),
    )


def _make_servicers(
    core: Core,
    scheduler: Scheduler,
    predictor: Predictor,
    processes: ServingProcesses,
    stack: AsyncExitStack,
) -> Servicers:
    tokens = PageTokens.load(core.data.page_key)
    jobs, sweeps = _make_training_services(core, scheduler)
    models = ModelService(
        store=core.store, threads=core.threads, large_reads=core.large_reads, catalog=core.catalog
    )
    predictions = make_prediction_service(core, predictor)
    lane = ReadLane("inspection", _INSPECTION_THREADS)
    stack.callback(lane.close)
    inspection = InspectionService(models=models, lane=lane, dataset_cache=core.data.datasets)
    usage = UsageService(
        store=core.store,
        artifacts=core.artifacts,
        lane=core.large_reads,
        database=core.data.database,
        datasets=core.data.datasets,
        disk_floor=core.disk_floor,
    )
    quotas = QuotaService(
        store=core.store, threads=core.threads, quotas=core.quotas, meter=core.meter
    )
    streams = PipelineGroup(max_in_flight=core.settings.max_pending_per_stream)
    return Servicers(
        training=TrainingServicer(
            jobs=jobs, sweeps=sweeps, usage=usage, quotas=quotas, tokens=tokens
        ),
        inference=InferenceServicer(
            models=models, predictions=predictions, streams=streams, tokens=tokens
        ),
        inspection=InspectionServicer(inspection, tokens),
        open_inference=OpenInferenceServicer(
            models=models, predictions=predictions, streams=streams, others=processes.ask
        ),
        streams=streams,
    )


def _make_training_services(core: Core, scheduler: Scheduler) -> tuple[JobService, SweepService]:
    settings = core.settings
    lifecycle = Lifecycle(
        threads=core.threads,
        writes=core.writes,
        removals=core.removals,
        large_reads=core.large_reads,
        notifier=core.notifier,
        scheduler=scheduler,
        artifacts=core.artifacts,
        purge=core.store.jobs.purge,
        keepalive_seconds=settings.stream_keepalive_seconds,
        quotas=core.quotas,
    )
    jobs = JobService(
        lifecycle,
        store=core.store,
        datasets=core.datasets,
        max_queued_jobs=settings.max_queued_jobs,
        default_retention=Retention(policy=RetentionPolicy(settings.retention)),
    )
    sweeps = SweepService(
        lifecycle,
        store=core.store,
        datasets=core.datasets,
        max_queued_jobs=settings.max_queued_jobs,
    )
    return jobs, sweeps


def make_predictor(core: Core, stack: AsyncExitStack) -> Predictor:
    settings = core.settings
    decoders = DecoderPool(
        max_large_work=_LARGEST_REQUESTS_WAITING * settings.max_pixels_per_request,
        observer=core.metrics,
    )
    predictor = Predictor(
        device=inference_device(settings.inference_device),
        threads=settings.inference_threads,
        max_pending=settings.max_pending_predictions,
        max_loaded_bytes=settings.max_loaded_bytes,
        decoders=decoders,
        observer=core.metrics,
    )
    stack.callback(predictor.close)
    core.metrics.watch_predictions(lambda: predictor.pending, lambda: decoders.large_work)
    return predictor


def make_prediction_service(core: Core, predictor: Predictor) -> PredictionService:
    settings = core.settings
    return PredictionService(
        predictor=predictor,
        threads=core.loads,
        limits=InputLimits(
            images=settings.max_images_per_request,
            image_bytes=settings.max_image_bytes,
            image_pixels=settings.max_image_pixels,
            pixels=settings.max_pixels_per_request,
        ),
        dataset_cache=core.data.datasets,
        meter=core.meter,
    )


def _make_probes(core: Core, predictor: Predictor, scheduling: "asyncio.Task[None]") -> list[Probe]:
    async def check_scheduling() -> None:
        if scheduling.done():
            raise RuntimeError("the scheduler has ended") from scheduling.exception()

    return [
        Probe(part="store", check=partial(core.threads.run, core.store.check_reads)),
        Probe(part="writes", check=partial(core.writes.run, core.store.check_writes)),
        Probe(part="predictions", check=predictor.check, patience=PREDICTION_PATIENCE),
        Probe(part="scheduler", check=check_scheduling),
    ]


@asynccontextmanager
async def monitoring(
    core: Core, probes: list[Probe], grpc_server: GrpcServer
) -> AsyncIterator[HealthMonitor]:
    """Reports health by these probes within the context."""
    monitor = HealthMonitor(probes, on_change=grpc_server.report_failing)
    core.metrics.watch_health(monitor.failing)
    task = asyncio.create_task(monitor.run(), name="health")
    try:
        yield monitor
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def guarding(
    access: AccessControl, *rechecks: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Follows the files of identities within the context; `rechecks` end what they forbid."""

    async def recheck() -> None:
        errors = []
        for check in rechecks:
            try:
                await check()
            except Exception as error:  # noqa: BLE001 - the others must run, and all again soon
                errors.append(error)
        if errors:
            raise errors[0]

    watching = asyncio.create_task(access.watch(recheck), name="access")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


@asynccontextmanager
async def following(core: Core) -> AsyncIterator[None]:
    """Follows the files of certificates, and handles SIGHUP, within the context."""
    if core.tls is None:
        yield
        return
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(core.tls.follow(), name="certificates")
    loop.add_signal_handler(signal.SIGHUP, core.tls.reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def _beside(
    processes: ServingProcesses, port: int, grpc_server: GrpcServer, monitor: HealthMonitor
) -> AsyncIterator[None]:
    """Runs the other serving processes within the context."""

    async def status() -> dict[str, Any]:
        return {"failing": failing_parts(monitor)}

    try:
        await processes.start(port, grpc_server.linked_calls({STATUS_PATH: StatusMethod(status)}))
        yield
    except ProcessError as error:
        await grpc_server.stop()
        raise StartupError(str(error)) from error
    finally:
        processes.drain()
        await processes.stop()


def failing_parts(monitor: HealthMonitor) -> list[str]:
    """The parts that fail."""
    return [part for part, is_failing in monitor.failing().items() if is_failing]


@asynccontextmanager
async def _scheduling(core: Core, scheduler: Scheduler) -> AsyncIterator["asyncio.Task[None]"]:
    try:
        recovered = await core.threads.run(core.store.attempts.recover)
        await core.threads.run(_finish_deletions, core)
    except (StorageError, OSError) as error:
        raise StartupError(f"the data directory {core.data.root} is unusable: {error}") from error
    if recovered:
        _LOG.info("jobs resume after their last complete epoch", jobs=list(recovered))
    task = asyncio.create_task(scheduler.run(), name="scheduler")
    try:
        yield task
    finally:
        await scheduler.stop()
        await task


def _finish_deletions(core: Core) -> None:
    """Finishes the deletions that a crash interrupted; blocks."""
    for batch in in_batches(core.store.jobs.deleted_ids()):
        for job_id in batch:
            core.artifacts.remove(job_id)
        core.store.jobs.purge(batch)
    core.artifacts.finish_removals(core.store.jobs.ids())


async def _serve_grpc(core: Core, servicers: Servicers) -> tuple[GrpcServer, int]:
    """Starts the gRPC server; returns it and its port."""
    try:
        server = GrpcServer(
            core.settings,
            servicers,
            core.metrics.grpc,
            core.access,
            meter=core.meter,
            audit=core.call_audit,
            tls=core.tls,
        )
        return server, await server.start()
    except (OSError, TlsError) as error:
        raise StartupError(str(error)) from error


@asynccontextmanager
async def _http_port(core: Core, pages: Pages, processes: ServingProcesses) -> AsyncIterator[str]:
    """Opens the HTTP port of metrics and the page within the context; yields its URL."""
    settings = core.settings
    port = HttpPort(processes.registry, pages, processes.refresh, core.tls)
    try:
        yield await _open(port, settings)
    finally:
        await port.close()


async def _open(port: HttpPort, settings: Settings) -> str:
    try:
        return await port.open(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        raise StartupError(
            f"metrics cannot be served on {settings.metrics_host}:{settings.metrics_port}: "
            f"{error.strerror}; name another port with --metrics-port, 0 for a free one"
        ) from error


__all__ = ["RunningServer", "StartupError", "run_server", "serve"]
