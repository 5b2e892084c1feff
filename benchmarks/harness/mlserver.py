"""MLServer with a custom runtime that uses torch, as its documentation proposes."""

import json
from pathlib import Path
from typing import ClassVar

from harness.cache import cache_folder
from harness.checks import Counts
from harness.infer import OUTPUT
from harness.processes import ServerProcess, free_port
from harness.servers import PeerMissingError, Server

_PROGRAM = cache_folder() / "mlserver" / "bin" / "mlserver"
_RUNTIME_FOLDER = Path(__file__).parents[1] / "peers" / "mlserver"
_MODELS_FOLDER = Path(__file__).parents[2] / "models"


class MLServer(Server):
    """`mlserver start` with one model, in the process that receives the calls."""

    batching: ClassVar[dict[str, float]] = {}
    """Settings of adaptive batching, which is off by default."""

    @classmethod
    def check_installed(cls) -> None:
        """Looks for the `mlserver` command."""
        if not _PROGRAM.exists():
            raise PeerMissingError("MLServer is not installed: run benchmarks/peers/setup.sh")

    def _start(self) -> ServerProcess:
        self._write_settings()
        return self._run(
            *(str(_PROGRAM), "start", str(self._folder)),
            environment={
                "PYTHONPATH": f"{_RUNTIME_FOLDER}:{_MODELS_FOLDER}",
                "OMP_NUM_THREADS": "1",
            },
        )

    def counts(self) -> Counts:
        """Reads MLServer's own metrics."""
        model = self._trained.model
        return Counts(
            int(self.total("model_infer_request_success_total", model=model)),
            int(self.total("model_infer_request_failure_total", model=model)),
        )

    def _write_settings(self) -> None:
        server = {
            "debug": False,  # the default logs each call
            "host": "127.0.0.1",
            "grpc_port": self._port,
            "http_port": free_port(),
            "metrics_port": self._metrics_port,
            "parallel_workers": 0,  # on one core, a worker process only adds a hop
            "grpc_max_message_length": 1 << 26,
        }
        model = {
            "name": self._trained.model,
            "implementation": "runtime.CheckpointRuntime",
            "parameters": {
                "extra": {
                    "folder": str(self._trained.folder),
                    "epoch": self._trained.epoch,
                    "output": OUTPUT,
                }
            },
            **self.batching,
        }
        (self._folder / "settings.json").write_text(json.dumps(server))
        (self._folder / "model-settings.json").write_text(json.dumps(model))


class BatchingMLServer(MLServer):
    """MLServer with adaptive batching: up to 32 requests, with a wait of up to 1 ms."""

    batching: ClassVar[dict[str, float]] = {"max_batch_size": 32, "max_batch_time": 0.001}
