"""The Open Inference Protocol on the wire, by the project's own messages."""

from typing import Any

import grpc
import numpy as np
import pytest

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.v1.job_pb2 import RETENTION_POLICY_BEST_AND_LAST, JobOptions, Retention
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.open_inference import (
    OpenInference,
    raw_request,
)
from support.wire import Stubs, tiny_spec

VARIANT = "tiny-1-blocks-batch-norm"


def statistics(client: OpenInference, **wanted: str) -> list[oip.ModelStatistics]:
    response = client.call("ModelStatistics", oip.ModelStatisticsRequest(**wanted))
    return list(response.model_stats)


def test_statistics_count_what_was_asked_and_how_long_it_took(
    client: OpenInference, stubs: Stubs, noise: np.ndarray
) -> None:
    events = stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=2)), timeout=60)
    job_id = next(iter(list(events))).job.removeprefix("jobs/")
    (untouched,) = statistics(client, name=job_id, version="1")

    for _ in range(3):
        client.infer(raw_request(job_id, "UINT8", noise, model_version="1"))
    client.refused(raw_request(job_id, "FP32", noise, model_version="1"))
    client.infer(raw_request(job_id, "UINT8", noise, model_version="2"))

    assert untouched.inference_count == untouched.last_inference == 0
    first, second = statistics(client, name=job_id)
    assert (first.name, first.version, second.version) == (job_id, "1", "2")
    assert first.inference_count == 15
    assert first.execution_count == first.inference_stats.success.count == 3
    assert first.inference_stats.fail.count == 1
    assert first.inference_stats.fail.ns > 0
    assert first.last_inference > 1_700_000_000_000
    stats = first.inference_stats
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert [part.count for part in parts] == [3] * 4
    assert stats.success.ns == sum(part.ns for part in parts)
    assert min(part.ns for part in parts) > 0
    assert second in statistics(client)
    assert statistics(client, name=job_id, version="2") == [second]


def test_the_index_lists_every_epoch_and_the_variants(
    client: OpenInference, stubs: Stubs, job_id: str
) -> None:
    events = stubs.training.TrainJob(
        TrainJobRequest(
            spec=tiny_spec(epochs=6),
            options=JobOptions(retention=Retention(policy=RETENTION_POLICY_BEST_AND_LAST)),
        ),
        timeout=60,
    )
    thinned = next(iter(list(events))).job.removeprefix("jobs/")

    def index(*, ready: bool) -> dict[tuple[str, str], oip.RepositoryIndexResponse.ModelIndex]:
        response = client.call("RepositoryIndex", oip.RepositoryIndexRequest(ready=ready))
        entries = {(entry.name, entry.version): entry for entry in response.models}
        assert len(entries) == len(response.models)
        return entries

    everything, ready = index(ready=False), index(ready=True)

    assert {entry.state for entry in ready.values()} == {"READY"}
    assert {(job_id, version) for version in "123"} <= set(ready)
    states = {version: everything[thinned, version].state for version in "123456"}
    assert states["6"] == "READY"
    dropped = [version for version, state in states.items() if state == "UNAVAILABLE"]
    assert dropped
    assert all("retention" in everything[thinned, version].reason for version in dropped)
    assert not [version for version in dropped if (thinned, version) in ready]
    described = client.call("ModelMetadata", oip.ModelMetadataRequest(name=thinned))
    assert {"6"} <= set(described.versions) <= set(states) - set(dropped)
    (variant,) = [entry for (name, _), entry in ready.items() if name == VARIANT]
    meant = client.call("ModelConfig", oip.ModelConfigRequest(name=VARIANT)).config.parameters
    assert meant["model"].string_value.split("/")[1] in variant.reason


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
