"""Leadline as a server in the comparison."""

import sys

from harness.checks import Counts
from harness.processes import ServerProcess
from harness.servers import Server

_SERVICE = "inference.GRPCInferenceService"


class LeadlineServer(Server):
    """`leadline serve` with the data directory of the trained model.

    It keeps no spare workers, because serving does not need them.
    """

    @classmethod
    def check_installed(cls) -> None:
        """Does nothing: this program imports Leadline."""

    def _start(self) -> ServerProcess:
        return self._run(
            *(sys.executable, "-m", "leadline.server.main"),
            *("--data-dir", str(self._trained.data_dir)),
            *("--port", str(self._port), "--metrics-port", str(self._metrics_port)),
            *("--log-level", "warning", "--spare-workers", "0"),
        )

    def counts(self) -> Counts:
        """Reads the standard metric of gRPC servers."""
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
