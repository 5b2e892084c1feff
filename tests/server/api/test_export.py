"""Models as ONNX files, over the wire and from the command line."""

import subprocess
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest

from client.cli_outcome import SCRIPT
from leadline.client import Client
from leadline.models.export import INPUT, LOGITS, load_onnx
from leadline.v1.inference_service_pb2 import ExportModelRequest
from leadline.v1.job_pb2 import JobEvent
from support.servers import LiveServer
from support.wire import Stubs, reason, violations


def test_an_exported_model_gives_the_predictions_of_the_server(
    live_server: LiveServer, trained: list[JobEvent], noise: np.ndarray, tmp_path: Path
) -> None:
    name = trained[2].epoch.model
    file = tmp_path / "model.onnx"
    command = [
        *SCRIPT,
        "export",
        "--target",
        live_server.target,
        "--model",
        name,
        "--out",
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    with Client(live_server.target) as client:
        exported = client.export_model(model=name)
        predictions = client.predict(noise, model=name, include_logits=True)

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images = noise.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    (logits,) = session.run([LOGITS], {INPUT: images})

    np.testing.assert_allclose(logits, [answer.logits for answer in predictions], atol=1e-4)
    assert name in done.stdout
    _, job_id, _, epoch = name.split("/")
    folder = live_server.data_dir / "models" / job_id / "attempt-001"
    assert file.read_bytes() == exported.onnx == load_onnx(folder, int(epoch))
    assert exported.model == name
    assert exported.weights_sha256 == trained[2].epoch.weights_sha256


def test_a_wrong_request_for_an_export_is_refused(stubs: Stubs, trained: list[JobEvent]) -> None:
    del trained
    for request, field in (
        (ExportModelRequest(), "selector"),
        (ExportModelRequest(model="models/UPPER"), "model"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            stubs.inference.ExportModel(request, timeout=10)
        assert list(violations(refused.value)) == [field]
    with pytest.raises(grpc.RpcError) as refused:
        stubs.inference.ExportModel(ExportModelRequest(model="models/aaaaaaaaaa"), timeout=10)
    assert reason(refused.value) == "MODEL_NOT_FOUND"
