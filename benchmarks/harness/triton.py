"""Triton from nvidia-pytriton, with ONNX Runtime called from Python.

There are two variants. One is the server alone, with a model of its Python backend. The other is
pytriton, whose backend forwards requests to a process that has bound a function. The first saves a
hop.
"""

import shutil
from abc import ABC
from pathlib import Path

from harness.cache import cache_folder
from harness.checks import Counts
from harness.infer import INPUT, OUTPUT
from harness.processes import ServerProcess
from harness.servers import PeerMissingError, Server

_PROGRAMS = Path(__file__).parents[1] / "peers" / "triton"
_ENVIRONMENT = cache_folder() / "triton"
_PACKAGES = _ENVIRONMENT / "lib" / "python3.11" / "site-packages"
_HOME = _PACKAGES / "pytriton" / "tritonserver"

# The largest batch of the dynamic batcher, and the largest request.
_MAX_BATCH = 256

_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {max_batch}
input [ {{ name: "{input}", data_type: TYPE_FP32, dims: [ 3, 32, 32 ] }} ]
output [ {{ name: "{output}", data_type: TYPE_FP32, dims: [ {classes} ] }} ]
instance_group [ {{ kind: KIND_CPU, count: {instances} }} ]
dynamic_batching {{ }}
"""


class _Triton(Server, ABC):
    def counts(self) -> Counts:
        """Reads Triton's own metrics."""
        model = self._trained.model
        return Counts(
            int(self.total("nv_inference_request_success", model=model)),
            int(self.total("nv_inference_request_failure", model=model)),
        )

    @classmethod
    def check_installed(cls) -> None:
        """Looks for the server program of nvidia-pytriton."""
        if not (_HOME / "bin" / "tritonserver").exists():
            raise PeerMissingError("Triton is not installed: run benchmarks/peers/setup.sh")


class TritonServer(_Triton):
    """`tritonserver` with one model of the Python backend and dynamic batching.

    The batcher does not wait: it merges the requests that queued while the instances were busy.
    """

    instances = 1
    """The processes that run the model; on one core, more processes do not run in parallel."""

    def _start(self) -> ServerProcess:
        self._write_repository()
        self._write_backend()
        return self._run(
            str(_HOME / "bin" / "tritonserver"),
            f"--model-repository={self._folder / 'repository'}",
            f"--backend-directory={self._folder / 'backends'}",
            *("--allow-http=false", "--grpc-address=127.0.0.1", f"--grpc-port={self._port}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={self._metrics_port}"),
            environment={
                "LD_LIBRARY_PATH": str(_PACKAGES / "nvidia_pytriton.libs"),
                "PATH": f"{_ENVIRONMENT / 'bin'}:/usr/bin:/bin",
                "PYTHONPATH": str(_PACKAGES),
            },
        )

    def _write_backend(self) -> None:
        """Copies the Python backend with pytriton's stub for this Python version."""
        backend = self._folder / "backends" / "python"
        shutil.copytree(_HOME / "backends" / "python", backend)
        stub = _HOME / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
        shutil.copy(stub, backend)

    def _write_repository(self) -> None:
        model = self._folder / "repository" / self._trained.model
        (model / "1").mkdir(parents=True)
        shutil.copy(_PROGRAMS / "model.py", model / "1")
        shutil.copy(self._trained.onnx, model / "1" / "model.onnx")
        config = _CONFIG.format(
            name=self._trained.model,
            max_batch=_MAX_BATCH,
            input=INPUT,
            output=OUTPUT,
            classes=self._trained.classes,
            instances=self.instances,
        )
        (model / "config.pbtxt").write_text(config)


class TwoInstancesTritonServer(TritonServer):
    """Triton with two instances, which may overlap waiting and computing."""

    instances = 2


class BoundTritonServer(_Triton):
    """Triton with a function bound by pytriton, dynamic batching and one worker."""

    def _start(self) -> ServerProcess:
        return self._run(
            str(_ENVIRONMENT / "bin" / "python"),
            str(_PROGRAMS / "bound.py"),
            *("--network", str(self._trained.onnx), "--model", self._trained.model),
            *("--input", INPUT, "--output", OUTPUT, "--classes", str(self._trained.classes)),
            *("--max-batch", str(_MAX_BATCH)),
            *("--port", str(self._port), "--metrics-port", str(self._metrics_port)),
        )
