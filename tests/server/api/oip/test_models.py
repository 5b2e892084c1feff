"""Models of the Open Inference Protocol on the wire, with the project's own messages."""

from typing import Any

import grpc
import numpy as np
import pytest

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.api.oip.statistics import Statistics
from leadline.v1.job_pb2 import RETENTION_POLICY_BEST_AND_LAST, JobOptions, Retention
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.datasets import dataset_of, specs_of
from support.open_inference import (
    OpenInference,
    raw_request,
)
from support.wire import Stubs

tiny_spec = specs_of(__file__)
DATASET = dataset_of(__file__)

VARIANT = "tiny-1-blocks-batch-norm"


def statistics(client: OpenInference, **fields: str) -> list[oip.ModelStatistics]:
    response = client.call("ModelStatistics", oip.ModelStatisticsRequest(**fields))
    return list(response.model_stats)


@pytest.fixture(scope="module")
def thinned(stubs: Stubs) -> str:
    """The id of a job with six epochs that keeps the best and the last."""
    request = TrainJobRequest(
        # Its variant is unique, so that it is not the best model of a variant in other tests.
        spec=tiny_spec(epochs=6, blocks=5),
        options=JobOptions(retention=Retention(policy=RETENTION_POLICY_BEST_AND_LAST)),
    )
    events = list(stubs.training.TrainJob(request, timeout=60))
    return events[0].job.removeprefix("jobs/")


def test_statistics_count_requests_and_their_times(
    client: OpenInference, thinned: str, noise: np.ndarray
) -> None:
    (before,) = statistics(client, name=thinned)

    for _ in range(3):
        client.infer(raw_request(thinned, "UINT8", noise, model_version="6"))
    client.refused(raw_request(thinned, "FP32", noise, model_version="6"))
    client.refused(raw_request(thinned, "UINT8", noise, model_version="7"))

    assert before.inference_count == before.last_inference == 0
    (after,) = statistics(client, name=thinned)
    assert (after.name, after.version) == (thinned, "6")
    assert after.inference_count == 15
    assert after.execution_count == after.inference_stats.success.count == 3
    assert after.inference_stats.fail.count == 1
    assert after.inference_stats.fail.ns > 0
    assert after.last_inference > 1_700_000_000_000
    stats = after.inference_stats
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert [part.count for part in parts] == [3] * 4
    assert stats.success.ns == sum(part.ns for part in parts)
    assert min(part.ns for part in parts) > 0
    assert after in statistics(client)
    assert statistics(client, name=thinned, version="6") == [after]


def test_the_least_recently_used_counts_are_evicted_first() -> None:
    kept = Statistics(max_versions=2)

    for epoch in (1, 2, 1, 3):
        kept.of(("job", epoch)).add_failure(1)

    assert [(epoch, counts.failed) for _, epoch, counts in kept.all()] == [(1, 2), (3, 1)]


def test_the_index_lists_every_model_with_its_best_epoch_and_the_variants(
    client: OpenInference, thinned: str, job_id: str
) -> None:
    def index(*, ready: bool) -> dict[str, oip.RepositoryIndexResponse.ModelIndex]:
        response = client.call("RepositoryIndex", oip.RepositoryIndexRequest(ready=ready))
        entries = {entry.name: entry for entry in response.models}
        assert len(entries) == len(response.models)
        return entries

    everything, ready = index(ready=False), index(ready=True)

    assert {thinned, job_id, VARIANT} <= set(everything) == set(ready)
    assert {entry.state for entry in ready.values()} == {"READY"}
    described = client.call("ModelMetadata", oip.ModelMetadataRequest(name=thinned))
    assert everything[thinned].version in described.versions
    meant = client.call("ModelConfig", oip.ModelConfigRequest(name=VARIANT)).config.parameters
    _, model, _, epoch = meant["model"].string_value.split("/")
    assert model in ready[VARIANT].reason
    assert ready[VARIANT].version == epoch


def test_blocks_of_two_convolutions_have_their_own_name(
    client: OpenInference, stubs: Stubs, noise: np.ndarray
) -> None:
    jobs = {}
    for number, name in ((1, f"{DATASET}-6-blocks"), (2, f"{DATASET}-6-blocks-of-2")):
        spec = tiny_spec(epochs=1, blocks=6, batch_norm=False, block_convolutions=number)
        events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
        jobs[name] = events[0].job.removeprefix("jobs/")

    for number, (name, job) in enumerate(jobs.items(), start=1):
        answer = client.infer(raw_request(name, "UINT8", noise))
        assert answer.parameters["model"].string_param == f"models/{job}/epochs/1"
        config = client.call("ModelConfig", oip.ModelConfigRequest(name=name)).config
        assert config.parameters["block_convolutions"].string_value == str(number)
    listed = client.call("RepositoryIndex", oip.RepositoryIndexRequest()).models
    assert set(jobs) <= {entry.name for entry in listed}
    for form in ("-of-1", "-of-3", "-batch-norm-of-2"):
        unknown = oip.ModelReadyRequest(name=f"{DATASET}-6-blocks{form}")
        assert not client.call("ModelReady", unknown).ready


def test_a_model_is_loaded_and_unloaded_and_stays_available(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    before = client.infer(raw_request(job_id, "UINT8", noise))

    client.call("RepositoryModelLoad", oip.RepositoryModelLoadRequest(model_name=job_id))
    client.call("RepositoryModelUnload", oip.RepositoryModelUnloadRequest(model_name=job_id))

    assert client.call("ModelReady", oip.ModelReadyRequest(name=job_id)).ready
    after = client.infer(raw_request(job_id, "UINT8", noise))
    assert after == before


@pytest.mark.parametrize("method", ["Load", "Unload"])
def test_what_the_repository_cannot_do_is_refused(
    client: OpenInference, job_id: str, method: str
) -> None:
    request_type: Any = getattr(oip, f"RepositoryModel{method}Request")
    name = f"RepositoryModel{method}"

    for request, code in (
        (request_type(model_name="nosuchmodel"), grpc.StatusCode.NOT_FOUND),
        (
            request_type(model_name=job_id, repository_name="other"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            client.call(name, request)
        assert caught.value.code() is code
