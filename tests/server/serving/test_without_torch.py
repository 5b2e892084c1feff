"""Without a GPU, only workers load torch, and the server process does not."""

from pathlib import Path

import pytest
import torch

from leadline.v1.inference_service_pb2 import DATA_TYPE_UINT8, PredictRequest, Tensor
from support.servers import LiveServer
from support.wire import Stubs


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU predicts")
def test_a_server_that_trains_and_predicts_has_not_loaded_torch(
    live_server: LiveServer, stubs: Stubs, job_id: str
) -> None:
    tensor = Tensor(data_type=DATA_TYPE_UINT8, shape=[1, 32, 32, 3], data=bytes(3072))

    answer = stubs.inference.Predict(PredictRequest(model=f"models/{job_id}", tensor=tensor))

    mapped = Path(f"/proc/{live_server.process.pid}/maps").read_text()
    assert len(answer.predictions) == 1
    assert "llvmlite" in mapped
    assert "libtorch" not in mapped
