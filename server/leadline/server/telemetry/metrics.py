"""The Prometheus metrics of a server.

Callers cannot choose the values of labels. Series with the label `job_id` exist
only while the job runs, so their number is bounded.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from leadline.server.jobs.job import EpochCompleted, Job
from leadline.server.jobs.states import JobState
from leadline.server.sweeps.sweep import SweepState
from leadline.server.telemetry.calls import SECONDS, GrpcMetrics
from leadline.server.telemetry.histograms import HistogramCollector, UnlockedHistogram
from leadline.server.tls import TlsCertificates
from leadline.server.workers.messages import Usage

_RELOAD_RESULTS = ("ok", "refused")

_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """All metrics of one server; observes jobs and predictions."""

    def __init__(self) -> None:
        # A `_created` series for each metric would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.grpc = GrpcMetrics()
        self.registry.register(self.grpc)
        self._epochs = self._counter("leadline_epochs", "Epochs completed.")
        self._images = self._counter(
            "leadline_images_trained", "Training images processed by optimisation steps."
        )
        self._median_stops = self._counter(
            "leadline_jobs_median_stopped", "Sweep jobs stopped by the median stopping rule."
        )
        self._train_accuracy = self._job_gauge(
            "leadline_job_train_accuracy", "Train accuracy of the last epoch, a fraction."
        )
        self._test_accuracy = self._job_gauge(
            "leadline_job_test_accuracy", "Test accuracy of the last epoch, a fraction."
        )
        self._epoch = self._job_gauge("leadline_job_epoch", "The last completed epoch.")
        self._gpu_memory = self._job_gauge(
            "leadline_worker_gpu_memory_bytes",
            "GPU memory reserved by torch in the worker, in bytes.",
        )
        self._prediction_seconds = self._histogram(
            "leadline_prediction_seconds",
            "Seconds from the arrival of a predict request to its response.",
            SECONDS,
        )
        self._prediction_images = self._histogram(
            "leadline_prediction_batch_size", "Images in a predict request.", _IMAGES
        )
        self._restarts = self._make_process_metrics()
        self._predictions_in_flight = self._gauge(
            "leadline_predictions_in_flight", "Predict requests in flight."
        )
        self._decoding_pixels = self._gauge(
            "leadline_decoding_queue_pixels",
            "Pixels of large predict requests that are not decoded yet.",
        )
        self._abandoned = self._counter(
            "leadline_decoding_abandoned",
            "Predict requests given up before their images were decoded.",
        )
        self._queue_depth = self._gauge("leadline_queue_depth", "Jobs waiting for a device.")
        self._queue_held = self._gauge(
            "leadline_queue_held", "Whether queued jobs do not start for lack of disk space."
        )
        self._disk_free = self._gauge(
            "leadline_disk_free_bytes", "Free space on the disk of the data directory, in bytes."
        )
        self._workers: dict[str, int] = {}
        self._register_gauge(
            "leadline_worker_memory_bytes",
            "Resident memory of the worker, in bytes.",
            "job_id",
            self._worker_memory,
        )

    def watch_jobs(self, count_by_state: Callable[[], Mapping[JobState, int]]) -> None:
        """Reports jobs by state; each scrape calls `count_by_state`."""
        self._register_gauge("leadline_jobs", "Jobs by state.", "state", count_by_state)
        self._queue_depth.set_function(lambda: count_by_state()[JobState.QUEUED])

    def watch_sweeps(self, count_by_state: Callable[[], Mapping[SweepState, int]]) -> None:
        """Reports sweeps by state; each scrape calls `count_by_state`."""
        self._register_gauge("leadline_sweeps", "Sweeps by state.", "state", count_by_state)

    def watch_disk(self, free_bytes: Callable[[], int], is_held: Callable[[], bool]) -> None:
        """Reports the disk of the data directory; each scrape calls both functions."""
        self._disk_free.set_function(free_bytes)
        self._queue_held.set_function(is_held)

    def watch_health(self, failing: Callable[[], Mapping[str, bool]]) -> None:
        """Reports the parts that health depends on; each scrape calls `failing`."""
        self._register_gauge(
            "leadline_part_healthy",
            "Whether a part of the server answers: 1, or 0 if health reports NOT_SERVING for it.",
            "part",
            lambda: {part: int(not is_failing) for part, is_failing in failing().items()},
        )

    def watch_audit(self, written: Callable[[], int], lost: Callable[[], int]) -> None:
        """Reports the lines of the audit log; each scrape calls both functions."""
        about = "leadline_audit_lines", "Entries written to the audit log."
        self.registry.register(_ReadCounter(*about, written))
        about = "leadline_audit_lost", "Entries that the audit log lost, because its disk failed."
        self.registry.register(_ReadCounter(*about, lost))

    def watch_predictions(
        self, count_in_flight: Callable[[], int], count_pixels: Callable[[], int]
    ) -> None:
        """Reports predict requests in flight, and their pixels; each scrape calls both."""
        self._predictions_in_flight.set_function(count_in_flight)
        self._decoding_pixels.set_function(count_pixels)

    def watch_certificates(self, tls: TlsCertificates | None) -> None:
        """Reports the certificates in force, if any, and their reloads."""
        self._register_gauge(
            "leadline_tls_certificate_expires_seconds",
            "Seconds until the first certificate of a file in force expires.",
            "certificate",
            dict if tls is None else tls.seconds_left,
        )
        reloads = Counter(
            "leadline_tls_reloads",
            "Reloads of changed certificates.",
            ("result",),
            registry=self.registry,
        )
        for result in _RELOAD_RESULTS:
            reloads.labels(result)
        if tls is not None:
            tls.on_reload.append(lambda why: reloads.labels(_RELOAD_RESULTS[why is not None]).inc())

    def on_worker(self, job: Job, pid: int) -> None:
        """A worker has started on the job."""
        self._workers[job.job_id] = pid

    def on_epoch(self, job: Job, epoch: EpochCompleted, train_images: int) -> None:
        """An epoch of the job was stored."""
        self._epochs.inc()
        self._images.inc(train_images)
        self._train_accuracy.labels(job.job_id).set(epoch.train_accuracy)
        self._test_accuracy.labels(job.job_id).set(epoch.test_accuracy)
        self._epoch.labels(job.job_id).set(epoch.epoch)

    def on_median_stop(self, job: Job) -> None:
        """The median stopping rule has stopped the job."""
        del job
        self._median_stops.inc()

    def on_usage(self, job: Job, usage: Usage) -> None:
        """The job's worker reports its memory."""
        self._gpu_memory.labels(job.job_id).set(usage.gpu_memory)

    def on_worker_end(self, job: Job) -> None:
        """The job's worker has ended."""
        self._workers.pop(job.job_id, None)
        gauges = (self._train_accuracy, self._test_accuracy, self._epoch, self._gpu_memory)
        for gauge in gauges:
            with contextlib.suppress(KeyError):
                gauge.remove(job.job_id)

    def on_prediction(self, *, images: int, seconds: float) -> None:
        """A predict request was answered after `seconds`."""
        self._prediction_images.observe(images)
        self._prediction_seconds.observe(seconds)

    def on_abandoned_decoding(self) -> None:
        """A predict request was dropped before its images were decoded."""
        self._abandoned.inc()

    def on_restart(self) -> None:
        """A serving process is started again."""
        self._restarts.inc()

    def _make_process_metrics(self) -> Counter:
        """Makes the metrics of serving processes; returns the counter of restarts."""
        self.registry.register(
            _ReadCounter(
                "leadline_predictions",
                "Predict requests that a process has answered.",
                lambda: self._prediction_seconds.count,
            )
        )
        return self._counter(
            "leadline_serving_process_restarts", "Serving processes started again after their end."
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> UnlockedHistogram:
        histogram = UnlockedHistogram(bounds)
        self.registry.register(HistogramCollector(name, text, histogram))
        return histogram

    def _job_gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ("job_id",), registry=self.registry)

    def _register_gauge(
        self, name: str, text: str, label: str, read: Callable[[], Mapping[Any, float]]
    ) -> None:
        self.registry.register(_ReadGauge(name, text, label, read))

    def _worker_memory(self) -> dict[str, int]:
        """Resident memory of the workers in bytes by job, from the operating system."""
        memory = {}
        for job_id, pid in list(self._workers.items()):
            with contextlib.suppress(psutil.Error):
                memory[job_id] = psutil.Process(pid).memory_info().rss
        return memory


class _ReadCounter(Collector):
    """A counter whose value is read at each scrape."""

    def __init__(self, name: str, text: str, read: Callable[[], int]) -> None:
        self._about = name, text
        self._read = read

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Reads the value."""
        yield CounterMetricFamily(*self._about, value=self._read())


class _ReadGauge(Collector):
    """A gauge with one label; at each scrape `read` returns the gauge's value by label value."""

    def __init__(
        self, name: str, text: str, label: str, read: Callable[[], Mapping[Any, float]]
    ) -> None:
        self._about = name, text
        self._label = label
        self._read = read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names the metric without a query: the store may not be open yet."""
        yield self._family()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Reads the values."""
        family = self._family()
        for label, value in self._read().items():
            family.add_metric([label], value)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(*self._about, labels=[self._label])
