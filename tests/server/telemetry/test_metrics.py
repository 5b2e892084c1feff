import urllib.request
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from leadline.models.images import encode_png
from leadline.v1.inference_service_pb2 import EncodedImages, PredictRequest
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import CancelJobRequest, GetJobRequest, TrainJobRequest
from support.datasets import specs_of
from support.servers import LiveServer
from support.wire import Stubs

tiny_spec = specs_of(__file__)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: LiveServer) -> Samples:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:  # noqa: S310
        text = response.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_calls_are_counted_under_the_usual_names(
    live_server: LiveServer, stubs: Stubs, trained: list[JobEvent]
) -> None:
    labels = {
        "grpc_type": "unary",
        "grpc_service": "leadline.v1.TrainingService",
        "grpc_method": "GetJob",
    }
    before = scrape(live_server)

    stubs.training.GetJob(GetJobRequest(name=trained[0].job), timeout=10)
    for name in ("jobs/missing000", "nonsense"):
        with pytest.raises(grpc.RpcError):
            stubs.training.GetJob(GetJobRequest(name=name), timeout=10)

    after = scrape(live_server)

    def grown(name: str, **more: str) -> float:
        return value(after, name, **labels, **more) - value(before, name, **labels, **more)

    assert grown("grpc_server_started_total") == 3
    assert grown("grpc_server_msg_received_total") == 3
    assert grown("grpc_server_msg_sent_total") == 1
    assert grown("grpc_server_handled_total", grpc_code="OK") == 1
    assert grown("grpc_server_handled_total", grpc_code="NotFound") == 1
    assert grown("grpc_server_handled_total", grpc_code="InvalidArgument") == 1
    assert grown("grpc_server_handling_seconds_count") == 3


def test_streams_count_their_messages_and_their_end(live_server: LiveServer, stubs: Stubs) -> None:
    labels = {
        "grpc_type": "server_stream",
        "grpc_service": "leadline.v1.TrainingService",
        "grpc_method": "TrainJob",
    }
    before = scrape(live_server)

    list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=2)), timeout=60))

    after = scrape(live_server)
    name = "grpc_server_msg_sent_total"
    assert value(after, name, **labels) - value(before, name, **labels) == 5
    for name, grown in (("leadline_epochs_total", 2), ("leadline_images_trained_total", 800)):
        assert value(after, name) - value(before, name) == grown


def test_a_running_job_shows_its_accuracies_and_its_workers_memory(
    live_server: LiveServer, stubs: Stubs
) -> None:
    stream = stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=10_000)), timeout=60)
    events = [next(iter(stream)) for _ in range(3)]
    job = events[0].job.removeprefix("jobs/")

    during = scrape(live_server)
    stubs.training.CancelJob(CancelJobRequest(name=events[0].job), timeout=10)
    list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))
    after = scrape(live_server)

    assert 0 < value(during, "leadline_job_test_accuracy", job_id=job) <= 1
    assert 0 < value(during, "leadline_job_train_accuracy", job_id=job) <= 1
    assert value(during, "leadline_job_epoch", job_id=job) >= 1
    assert value(during, "leadline_worker_memory_bytes", job_id=job) > 50e6
    assert ("leadline_worker_gpu_memory_bytes", frozenset({("job_id", job)})) in during
    assert value(during, "leadline_jobs", state="running") == 1
    assert not [key for key in after if ("job_id", job) in key[1]]


def test_predictions_are_timed_and_their_images_counted(
    live_server: LiveServer, stubs: Stubs, trained: list[JobEvent]
) -> None:
    before = scrape(live_server)
    page = PredictRequest(model=trained[-1].finished.model, encoded=EncodedImages())
    page.encoded.images.extend([encode_png(np.zeros((32, 32, 3), np.uint8))] * 5)

    stubs.inference.Predict(page, timeout=10)

    after = scrape(live_server)
    for name, grown in (
        ("leadline_prediction_seconds_count", 1),
        ("leadline_prediction_batch_size_count", 1),
        ("leadline_prediction_batch_size_sum", 5),
    ):
        assert value(after, name) - value(before, name) == grown
    assert value(after, "leadline_queue_depth") == value(after, "leadline_jobs", state="queued")


def test_an_unknown_method_makes_no_series(live_server: LiveServer, stubs: Stubs) -> None:
    call: Callable[..., bytes] = stubs.channel.unary_unary("/leadline.v1.TrainingService/Invented")

    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not [key for key in scrape(live_server) if "Invented" in str(key)]
