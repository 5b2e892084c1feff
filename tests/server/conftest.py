"""Bare stubs of the shared server, and a job that is trained once for all tests."""

from collections.abc import Iterator

import pytest

from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.servers import LiveServer
from support.wire import Stubs, connect, tiny_spec


@pytest.fixture(scope="session")
def stubs(live_server: LiveServer) -> Iterator[Stubs]:
    """Stubs of the server that all tests share."""
    stubs = connect(live_server.target)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="session")
def trained(stubs: Stubs) -> list[JobEvent]:
    """All events of a job that has succeeded."""
    return list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec()), timeout=60))
