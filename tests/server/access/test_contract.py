"""Identities over real channels: who may call, and what others learn."""

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import ListJobsRequest, TrainJobRequest
from support.identities import bearer, tokens_of_all_roles
from support.servers import ServerFactory
from support.wire import connect, details, reason, tiny_spec


def test_the_first(server_factory: ServerFactory, transport: str, tmp_path) -> None:
    tokens = tokens_of_all_roles(tmp_path / "tokens.json")
    server = server_factory(
        "--spare-workers=0", f"--tokens-file={tokens.path}", f"--transport={transport}"
    )
    stubs = connect(server.target)
    with pytest.raises(grpc.RpcError) as error:
        stubs.training.ListJobs(ListJobsRequest(), timeout=5)
    print(error.value, details(error.value))
    stubs.training.ListJobs(ListJobsRequest(), timeout=5, metadata=bearer(tokens.secrets["viewer"]))
    with pytest.raises(grpc.RpcError) as error:
        stubs.training.ListJobs(
            ListJobsRequest(), timeout=5, metadata=bearer(tokens.secrets["predictor"])
        )
    print(error.value, details(error.value))
    assert HealthStub(stubs.channel).Check(HealthCheckRequest(), timeout=5).status == 1
    stubs.channel.close()
