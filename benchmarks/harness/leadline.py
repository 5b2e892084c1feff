"""Leadline under test."""

import sys

from harness.checks import Counts
from harness.processes import ServerProcess
from harness.servers import Server

_SERVICE = "inference.GRPCInferenceService"


class LeadlineServer(Server):
    """`leadline serve` on the data directory that has the trained model.

    It keeps no training worker in waiting: that is no part of serving.
    """

    @classmethod
    def check_installed(cls) -> None:
        """It always is: this program has imported it."""

    def _start(self) -> ServerProcess:
        return self._run(
            *(sys.executable, "-m", "leadline.server.main"),
            *("--data-dir", str(self._trained.data_dir)),
            *("--port", str(self._port), "--metrics-port", str(self._metrics_port)),
            *("--log-level", "warning", "--spare-workers", "0"),
        )

    def counts(self) -> Counts:
        """By the usual metric of gRPC servers."""
        labels = {"grpc_service": _SERVICE, "grpc_method": "ModelInfer"}
        handled = self.total("grpc_server_handled_total", **labels)
        succeeded = self.total("grpc_server_handled_total", **labels, grpc_code="OK")
        return Counts(int(succeeded), int(handled - succeeded))

    @property
    def pid(self) -> int:
        """The process id of the main process."""
        return self._process.pid

    def shares(self, processes: int) -> list[float]:
        """How many predictions each of its serving processes has answered, the main one first."""
        metric = "leadline_predictions_total"
        if processes == 1:  # it has no number
            return [self.total(metric)]
        return [self.total(metric, process=str(number)) for number in range(processes)]
