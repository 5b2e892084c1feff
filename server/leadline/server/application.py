"""Builds the service from its settings, runs it, and takes it down in order."""

import asyncio
import fcntl
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import structlog
from sqlalchemy.exc import SQLAlchemyError

from leadline.models.datasets import DatasetError
from leadline.server.api.inference import InferenceServicer
from leadline.server.api.inspection import InspectionServicer
from leadline.server.api.oip.servicer import OpenInferenceServicer
from leadline.server.api.pages import PageTokens
from leadline.server.api.predict import PredictHandler
from leadline.server.api.server import GrpcServer, Servicers
from leadline.server.api.training import TrainingServicer
from leadline.server.datasets import KnownDatasets, prepare_datasets
from leadline.server.devices import available_cores, inference_device, training_devices
from leadline.server.errors import StorageError
from leadline.server.inspection.inspector import Inspector
from leadline.server.jobs.job import Job, Model
from leadline.server.jobs.options import Retention, RetentionPolicy
from leadline.server.live.page import is_shown, make_pages
from leadline.server.scheduling.capacity import Capacity, Device
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.jobs import JobService
from leadline.server.services.sweeps import SweepService
from leadline.server.serving.catalog import Catalog
from leadline.server.serving.inputs import InputLimits
from leadline.server.serving.predictor import Predictor
from leadline.server.settings import Settings
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.database import SchemaError, open_database
from leadline.server.storage.store import JobStore
from leadline.server.telemetry.metrics import Metrics
from leadline.server.telemetry.port import HttpPort, Pages, in_url
from leadline.server.thread_pool import ThreadPool
from leadline.server.workers.local import WorkerPool
from leadline.server.workers.messages import Assignment

_LOG = structlog.get_logger(__name__)

# Threads for the store's and the inspector's blocking calls.
_STORE_THREADS = 4
_INSPECTION_THREADS = 2


class StartupError(Exception):
    """The server cannot start; the message says why and what to do."""


class ServingError(Exception):
    """The server has had to end; the message says why."""


@dataclass(frozen=True)
class DataDir:
    """Where everything is that the server keeps."""

    root: Path

    @property
    def database(self) -> Path:
        """Jobs and events."""
        return self.root / "leadline.db"

    @property
    def models(self) -> Path:
        """Checkpoints, a folder a job."""
        return self.root / "models"

    @property
    def datasets(self) -> Path:
        """Decoded datasets, a folder a fingerprint."""
        return self.root / "datasets"

    @property
    def page_key(self) -> Path:
        """The key that page tokens are signed with."""
        return self.root / "page-token.key"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and holds it against other servers.

        Raises:
            StartupError: another server holds it, or it cannot be written.
        """
        try:
            for folder in (self.root, self.models, self.datasets):
                folder.mkdir(parents=True, exist_ok=True)
            lock: TextIO = (self.root / "lock").open("a+")
        except OSError as error:
            raise StartupError(
                f"the data directory {self.root} cannot be written: {error.strerror}; "
                "name another with --data-dir"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StartupError(
                    f"another server uses the data directory {self.root}: "
                    "stop it, or name another with --data-dir"
                ) from error
            yield


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """Where a running server can be reached; `page_url` is None where it shows no page."""

    target: str
    metrics_url: str
    page_url: str | None
    broken: "asyncio.Task[None]"
    """Ends, with what has happened, where gRPC is served no more."""


async def serve(settings: Settings) -> None:
    """Runs the service until SIGTERM or SIGINT.

    Raises:
        StartupError: it cannot start.
        ServingError: it has ended by itself; jobs go on when it is started again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with run_server(settings) as server:
        _LOG.info("serving", target=server.target, metrics=server.metrics_url, page=server.page_url)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, server.broken}, return_when=asyncio.FIRST_COMPLETED)
        _LOG.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
    _LOG.info("stopped")
    if not stopped.done():
        stopped.cancel()
        # A server that lives on without answering would not be started again.
        raise ServingError(f"gRPC could be served no longer: {server.broken.exception()}")


@asynccontextmanager
async def run_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """The service, running within the context.

    It goes down in the order in which callers lose least: health says so,
    streams end with where to go on, calls in work are answered, workers end
    and their jobs are handed back, and the store closes last.

    Raises:
        StartupError: it cannot start.
    """
    _check_ready_file(settings.ready_file)
    data = DataDir(settings.data_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(data.locked())
        datasets = await _prepare(settings, data)
        core = _Core(settings, data, _open_store(data), datasets)
        stack.callback(core.threads.close)
        scheduler = _scheduler(core)
        servicers = _servicers(core, scheduler, stack)
        await stack.enter_async_context(_scheduling(core, scheduler))
        pages = make_pages(
            settings,
            store=core.store,
            notifier=core.notifier,
            catalog=core.catalog,
            dataset_cache=data.datasets,
            stack=stack,
        )
        url = await stack.enter_async_context(_http_port(core, pages))
        grpc_server = GrpcServer(settings, servicers, core.metrics.grpc)
        try:
            port = await grpc_server.start()
        except OSError as error:
            raise StartupError(str(error)) from error
        running = RunningServer(
            target=f"{in_url(settings.host)}:{port}",
            metrics_url=f"{url}/metrics",
            page_url=f"{url}/" if is_shown(settings) else None,
            broken=asyncio.create_task(grpc_server.wait_broken()),
        )
        stack.callback(running.broken.cancel)
        with _ready_file(settings.ready_file, running):
            try:
                yield running
            finally:
                await grpc_server.announce_stop()
                core.notifier.close()
                servicers.inference.close()
                servicers.open_inference.stop()
                await grpc_server.stop()


class _Core:
    """What most parts of the service share."""

    def __init__(
        self, settings: Settings, data: DataDir, store: JobStore, datasets: KnownDatasets
    ) -> None:
        self.settings = settings
        self.data = data
        self.store = store
        self.datasets = datasets
        self.artifacts = Artifacts(data.models)
        self.threads = ThreadPool("store", _STORE_THREADS)
        self.notifier = JobNotifier()
        self.catalog = Catalog(store=store, threads=self.threads, artifacts=self.artifacts)
        self.metrics = Metrics()
        self.metrics.watch_jobs(store.count_by_state)
        self.metrics.watch_sweeps(store.count_sweeps_by_state)


async def _prepare(settings: Settings, data: DataDir) -> KnownDatasets:
    try:
        return await asyncio.to_thread(
            prepare_datasets,
            settings.datasets,
            data.datasets,
            max_pixels=settings.max_image_pixels,
        )
    except DatasetError as error:
        raise StartupError(str(error)) from error


def _open_store(data: DataDir) -> JobStore:
    try:
        return JobStore(open_database(data.database))
    except (SQLAlchemyError, SchemaError) as error:
        raise StartupError(
            f"the job database {data.database} cannot be opened: {error}; "
            "restore it from a copy, or name another folder with --data-dir"
        ) from error


def _scheduler(core: _Core) -> Scheduler:
    settings, data = core.settings, core.data

    def assign(job: Job, model: Model | None, device: str) -> Assignment:
        dataset = job.spec.dataset
        source = core.datasets.sources.get(dataset)
        if source is None:
            raise DatasetError(
                f"this server no longer knows the dataset {dataset!r}: "
                "start it with --dataset for it, and submit the job again"
            )
        threads = _job_threads(settings)
        if job.sweep_id is not None:
            threads //= _sweep_jobs(settings, device)
        return Assignment(
            job_id=job.job_id,
            attempt=job.attempts,
            spec=job.spec,
            completed_epochs=job.completed_epochs,
            resume_from=_resume_points(core.artifacts, model),
            test_accuracies=tuple(one.result.test_accuracy for one in model.epochs)
            if model
            else (),
            device=device,
            # As it began, whatever the server's setting is now: another number
            # would sum in another order, and end at other weights.
            threads=job.environment.threads if job.environment else max(1, threads),
            dataset_source=source,
            dataset_cache=str(data.datasets),
            dataset_fingerprint=model.started.dataset_fingerprint
            if model
            else core.datasets.fingerprints.get(dataset, ""),
            checkpoint_folder=str(core.artifacts.folder(job.job_id, job.attempts)),
            max_image_pixels=settings.max_image_pixels,
        )

    return Scheduler(
        store=core.store,
        threads=core.threads,
        notifier=core.notifier,
        pool=WorkerPool(spares=settings.spare_workers, niceness=settings.worker_niceness),
        artifacts=core.artifacts,
        assign=assign,
        observer=core.metrics,
        capacity=Capacity(
            [
                Device(
                    name=name,
                    jobs=settings.jobs_per_device * times_named,
                    sweep_jobs=_sweep_jobs(settings, name),
                )
                for name, times_named in Counter(training_devices(settings.devices)).items()
            ]
        ),
        max_attempts=settings.max_attempts,
        silence_limit=settings.worker_silence_seconds,
    )


def _job_threads(settings: Settings) -> int:
    """Computing threads on the CPU that a job of its own takes."""
    return settings.worker_threads or available_cores()


def _sweep_jobs(settings: Settings, device: str) -> int:
    """How many jobs of sweeps a device takes at once: on the CPU, each has one thread."""
    return _job_threads(settings) if device == "cpu" else settings.sweep_jobs_per_gpu


def _resume_points(artifacts: Artifacts, model: Model | None) -> tuple[tuple[int, str], ...]:
    """A model's checkpoints, the newest first."""
    if model is None:
        return ()
    kept = [epoch for epoch in reversed(model.epochs) if epoch.is_kept]
    return tuple(
        (epoch.result.epoch, str(artifacts.folder(model.job.job_id, epoch.attempt)))
        for epoch in kept
    )


def _servicers(core: _Core, scheduler: Scheduler, stack: AsyncExitStack) -> Servicers:
    settings, data = core.settings, core.data
    tokens = PageTokens.load(data.page_key)
    predictor = Predictor(
        device=inference_device(settings.inference_device),
        threads=settings.inference_threads,
        max_pending=settings.max_pending_predictions,
        max_loaded_bytes=settings.max_loaded_bytes,
        observer=core.metrics,
    )
    stack.callback(predictor.close)
    core.metrics.watch_predictions(lambda: predictor.pending)
    inspection_threads = ThreadPool("inspection", _INSPECTION_THREADS)
    stack.callback(inspection_threads.close)
    jobs = JobService(
        store=core.store,
        threads=core.threads,
        notifier=core.notifier,
        scheduler=scheduler,
        artifacts=core.artifacts,
        datasets=core.datasets.sources,
        max_queued_jobs=settings.max_queued_jobs,
        default_retention=Retention(policy=RetentionPolicy(settings.retention)),
        keepalive_seconds=settings.stream_keepalive_seconds,
    )
    sweeps = SweepService(
        store=core.store,
        threads=core.threads,
        notifier=core.notifier,
        scheduler=scheduler,
        artifacts=core.artifacts,
        datasets=core.datasets.sources,
        max_queued_jobs=settings.max_queued_jobs,
        keepalive_seconds=settings.stream_keepalive_seconds,
    )
    limits = InputLimits(
        images=settings.max_images_per_request,
        image_bytes=settings.max_image_bytes,
        image_pixels=settings.max_image_pixels,
    )
    return Servicers(
        training=TrainingServicer(jobs, sweeps, tokens),
        inference=InferenceServicer(
            handler=PredictHandler(
                catalog=core.catalog,
                predictor=predictor,
                limits=limits,
                dataset_cache=data.datasets,
            ),
            store=core.store,
            threads=core.threads,
            tokens=tokens,
            max_pending_per_stream=settings.max_pending_per_stream,
        ),
        inspection=InspectionServicer(
            catalog=core.catalog,
            inspector=Inspector(dataset_cache=data.datasets),
            threads=inspection_threads,
            tokens=tokens,
        ),
        open_inference=OpenInferenceServicer(
            catalog=core.catalog,
            predictor=predictor,
            store=core.store,
            threads=core.threads,
            limits=limits,
            max_pending_per_stream=settings.max_pending_per_stream,
        ),
    )


@asynccontextmanager
async def _scheduling(core: _Core, scheduler: Scheduler) -> AsyncIterator[None]:
    try:
        recovered = await core.threads.run(core.store.recover)
        await core.threads.run(core.artifacts.finish_deletions, core.store.job_ids())
    except (StorageError, OSError) as error:
        raise StartupError(f"the data directory {core.data.root} is unusable: {error}") from error
    if recovered:
        _LOG.info("jobs go on after their last complete epoch", jobs=list(recovered))
    task = asyncio.create_task(scheduler.run(), name="scheduler")
    try:
        yield
    finally:
        await scheduler.stop()
        await task


@asynccontextmanager
async def _http_port(core: _Core, pages: Pages) -> AsyncIterator[str]:
    """The port of metrics and the page, open within the context; gives its URL."""
    settings = core.settings
    port = HttpPort(core.metrics.registry, pages)
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


def _check_ready_file(path: Path | None) -> None:
    if path is not None and not os.access(path.parent, os.W_OK):
        raise StartupError(
            f"{path} cannot be written: name a file in a folder that can, with --ready-file"
        )


@contextmanager
def _ready_file(path: Path | None, running: RunningServer) -> Iterator[None]:
    if path is None:
        yield
        return
    values = {
        "target": running.target,
        "metrics_url": running.metrics_url,
        "page_url": running.page_url,
        "pid": os.getpid(),
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(values))
    partial.replace(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


__all__ = ["RunningServer", "StartupError", "run_server", "serve"]
