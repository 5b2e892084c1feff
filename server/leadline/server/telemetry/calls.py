"""gRPC metrics under the names of go-grpc-prometheus, which dashboards expect."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from leadline.server.telemetry.histograms import UnlockedHistogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class MethodMetrics:
    """Counts the calls of one method; used only by the event loop."""

    __slots__ = ("handled", "labels", "path", "received", "seconds", "sent", "started")

    def __init__(self, kind: str, service: str, name: str) -> None:
        """Makes the metrics of a method; `kind` is a `grpc_type` label, such as unary."""
        self.labels = (kind, service, name)
        self.path = f"/{service}/{name}"
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled: dict[str, int] = {}
        self.seconds = UnlockedHistogram(SECONDS)

    def end(self, code: str, seconds: float) -> None:
        """Counts a call that ended with this `grpc_code` label after `seconds`."""
        self.handled[code] = self.handled.get(code, 0) + 1
        self.seconds.observe(seconds)


class GrpcMetrics(Collector):
    """The metrics of all methods.

    Attributes:
        denied: the calls that were not admitted, by the reason of the error.
    """

    def __init__(self) -> None:
        self.denied = {"UNAUTHENTICATED": 0, "ROLE_NEEDED": 0}
        self._methods: list[MethodMetrics] = []

    def method(self, kind: str, service: str, name: str) -> MethodMetrics:
        """Makes and registers the metrics of one method."""
        metrics = MethodMetrics(kind, service, name)
        self._methods.append(metrics)
        return metrics

    def collect(self) -> Iterable[Metric]:
        """Reads the metrics of all methods."""
        yield self._counted("grpc_server_started", "RPCs started.", "started")
        yield self._counted("grpc_server_msg_received", "Messages received.", "received")
        yield self._counted("grpc_server_msg_sent", "Messages sent.", "sent")
        denied = CounterMetricFamily(
            "leadline_denied_calls",
            "Calls without valid credentials, or whose caller lacks the role.",
            labels=("reason",),
        )
        for reason, count in self.denied.items():
            denied.add_metric([reason], count)
        yield denied
        handled = CounterMetricFamily(
            "grpc_server_handled", "RPCs completed, by status code.", labels=(*_LABELS, "grpc_code")
        )
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds",
            "Seconds from the start of an RPC to its end.",
            labels=_LABELS,
        )
        for method in self._methods:
            for code, count in method.handled.copy().items():
                handled.add_metric([*method.labels, code], count)
            seconds.add_metric(method.labels, *method.seconds.read())
        yield handled
        yield seconds

    def _counted(self, name: str, text: str, attribute: str) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=_LABELS)
        for method in self._methods:
            family.add_metric(method.labels, getattr(method, attribute))
        return family
